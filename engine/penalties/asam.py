"""ASAM: adaptive sharpness, the gap in a ball that scales with the parameters."""

from __future__ import annotations

from torch import Tensor

from engine.base.flat import Loss, grad_and_value, unit
from engine.penalties.base import PENALTIES, GeometricPenalty, setting


@PENALTIES.register("asam")
class ASAM(GeometricPenalty):
    """Adaptive sharpness, one ascent step in the ball ‖ε/|θ|‖₂ ≤ ρ (Kwon et al. 2021, arXiv:2102.11600, eq. 3 and 4).

    R(θ) = L(θ + ε) − L(θ),  ε = ρ θ z = ρ θ² g / ‖θ g‖₂,  z = θ g / ‖θ g‖₂. Only the direction z is a constant for
    differentiation: the ball moves with θ, so ∇R = (1 + ρ z) ∇L(θ + ε) − g. With all of ε constant, as in ASAM's own
    update, the gradient would not see that a larger θ widens the ball, and as a penalty would only make θ grow.
    """

    rho: float = setting(0.5, minimum=0.0, help="sharpness radius: L2 norm of the perturbation divided by |theta|")

    def at(self, loss: Loss, theta: Tensor, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        stretch = 1 + self.rho * unit(theta * gradient)  # (θ + ε) / θ
        worst, worst_value = grad_and_value(loss)(theta * stretch)
        return worst_value - value, stretch * worst - gradient
