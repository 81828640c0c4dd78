"""GAM: first-order flatness, the largest gradient norm in a ball."""

from __future__ import annotations

from torch import Tensor

from engine.base.directions import gam_direction
from engine.base.flat import Loss, grad, grad_and_hvp, perturbation, unit
from engine.penalties.base import PENALTIES, GeometricPenalty, setting


@PENALTIES.register("gam")
class GAM(GeometricPenalty):
    """First-order flatness, one ascent step on the gradient norm (Zhang et al. 2023, arXiv:2303.03108).

    R(θ) = ρ ‖∇L(θ + δ)‖₂,  δ = ρ f / ‖f‖₂,  f = ∇‖∇L(θ)‖₂ = H g / ‖g‖₂, with δ a constant for differentiation, so that
    ∇R = ρ H(θ + δ) g(θ + δ) / ‖g(θ + δ)‖₂. Where the loss has a gradient but no curvature, as ‖θ‖₂ at 0, H counts as 0.
    With form = "direction" the gradient is the released accelerated update (four gradients, no Hessian); the value is
    ρ times the gradient norm at its own perturbed point.
    """

    rho: float = setting(0.01, minimum=0.0, help="sharpness radius: L2 norm in parameter space")
    form: str = setting(
        "scalar", choices=("scalar", "direction"), help="gradient of R, or the released update direction"
    )
    gradient_rho: float = setting(0.03, above=0.0, help="radius of the gradient differences in form = direction")
    beta0: float = setting(0.1, minimum=0.0, maximum=1.0, help="1 - weight of the perturbed gradient, form = direction")
    beta1: float = setting(0.1, minimum=0.0, maximum=1.0, help="weight of SAM's gradient, form = direction")
    gamma: float = setting(0.05, minimum=0.0, help="strength of the orthogonal part, form = direction")

    def at(self, loss: Loss, theta: Tensor, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        if self.form == "direction":
            direction, worst = gam_direction(grad(loss), theta, gradient, self.rho, self)
            return self.rho * worst.norm(), direction
        ascent = _defined(grad_and_hvp(loss, theta, unit(gradient))[1])
        worst, curved = grad_and_hvp(loss, theta + perturbation(ascent, self.rho), unit)
        return self.rho * worst.norm(), self.rho * _defined(curved)


def _defined(curved: Tensor) -> Tensor:
    """H v, zero where it does not exist. If the gradient does not exist either, the penalty's value says so: NaN."""
    return curved.nan_to_num(0.0, 0.0, 0.0)
