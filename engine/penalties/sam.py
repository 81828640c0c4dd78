"""SAM, GSAM and ASAM: the loss at the worst point of a ball, one ascent step away, and the gap to it."""

from __future__ import annotations

from torch import Tensor

from engine.base.directions import gsam_direction
from engine.base.flat import Loss, grad_and_value, perturbation, unit
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
