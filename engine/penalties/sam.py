"""SAM: the loss at the worst point of a ball."""

from __future__ import annotations

from torch import Tensor

from engine.base.flat import Loss, grad_and_value, perturbation
from engine.penalties.base import PENALTIES, GeometricPenalty, setting


@PENALTIES.register("sam")
class SAM(GeometricPenalty):
    """Loss at the worst point of a ball, one ascent step (Foret et al. 2021, arXiv:2010.01412, eq. 2).

    R(θ) = L(θ + ε),  ε = ρ ∇L(θ) / ‖∇L(θ)‖₂, a constant for differentiation. Its gradient is SAM's update direction.
    """

    rho: float = setting(0.01, minimum=0.0, help="sharpness radius: L2 norm in parameter space")

    def at(self, loss: Loss, theta: Tensor, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        worst, worst_value = grad_and_value(loss)(theta + perturbation(gradient, self.rho))
        return worst_value, worst
