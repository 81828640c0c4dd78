"""GSAM: the surrogate gap."""

from __future__ import annotations

from torch import Tensor

from engine.base.directions import gsam_direction
from engine.base.flat import Loss, grad_and_value, perturbation
from engine.penalties.base import PENALTIES, GeometricPenalty, setting


@PENALTIES.register("gsam")
class GSAM(GeometricPenalty):
    """Surrogate gap of the loss, one ascent step (Zhuang et al. 2022, arXiv:2203.08065).

    R(θ) = h(θ) = L(θ + ε) − L(θ),  ε = ρ ∇L(θ) / ‖∇L(θ)‖₂, a constant for differentiation.
    With form = "direction" the gradient is the published update instead: g_p − α g_⊥, where g_p = ∇L(θ + ε) and g_⊥ is
    the part of g = ∇L(θ) orthogonal to g_p; the value stays the gap.
    """

    rho: float = setting(0.01, minimum=0.0, help="sharpness radius: L2 norm in parameter space")
    form: str = setting(
        "scalar", choices=("scalar", "direction"), help="gradient of the gap, or the published update direction"
    )
    alpha: float = setting(0.4, minimum=0.0, help="strength of the orthogonal part in form = direction")

    def at(self, loss: Loss, theta: Tensor, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        worst, worst_value = grad_and_value(loss)(theta + perturbation(gradient, self.rho))
        gap = worst_value - value
        if self.form == "scalar":
            return gap, worst - gradient
        return gap, gsam_direction(gradient, worst, self.alpha)
