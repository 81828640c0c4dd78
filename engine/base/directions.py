"""Published update directions of sharpness-aware methods: what they descend instead of the gradient.

`slope` is a callable from theta to the gradient there. Shapes are [..., P], and a radius or strength is a number or has
shape [..., 1], so one optimizee and many side by side use the same lines. A zero gradient gives no NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from engine.base.flat import orthogonal_part, perturbation

Slope = Callable[[Tensor], Tensor]
"""theta, shape [..., P], to the gradient of the loss there, same shape."""


def gsam_direction(gradient: Tensor, worst: Tensor, alpha: float | Tensor) -> Tensor:
    """GSAM's g_p − α g_⊥ (Zhuang et al. 2022, arXiv:2203.08065); `worst` is g_p, the perturbed gradient."""
    return worst - alpha * orthogonal_part(gradient, worst)


def gam_direction(
    slope: Slope, theta: Tensor, gradient: Tensor, rho: float | Tensor, constants: Any
) -> tuple[Tensor, Tensor]:
    """The released accelerated GAM (Zhang et al. 2023, arXiv:2303.03108): three gradients beside g₀ = `gradient`.

    g₁ = ∇L(θ + ρ' g₀/‖g₀‖),  θ₂ = θ + ρ (g₁ − g₀)/‖g₁ − g₀‖,  g₂ = ∇L(θ₂),  g₃ = ∇L(θ₂ + ρ' g₂/‖g₂‖);
    q = β₁ g₁ + (1 − β₁) g₃,  m = g₀ + (1 − β₀) g₂;  the direction is q − γ times the part of m orthogonal to q.
    `constants` have gradient_rho, which is ρ', beta0, beta1 and gamma. Returns the direction and g₂, the gradient at
    GAM's own perturbed point.
    """
    g1 = slope(theta + perturbation(gradient, constants.gradient_rho))
    theta2 = theta + perturbation(g1 - gradient, rho)
    g2 = slope(theta2)
    g3 = slope(theta2 + perturbation(g2, constants.gradient_rho))
    blended = constants.beta1 * g1 + (1 - constants.beta1) * g3
    mixed = gradient + (1 - constants.beta0) * g2
    return blended - constants.gamma * orthogonal_part(mixed, blended), g2
