"""Smoothness of the learned optimizer: how far its update can be moved by a small change of its input."""

from __future__ import annotations

from torch import Tensor

from engine.optimizers.learned.base import LearnedOptimizer
from engine.penalties.base import PENALTIES, AscentPenalty, BoxAscent, Randomness, normal, setting


@PENALTIES.register("smooth")
class Smooth(AscentPenalty):
    """Largest squared change of the update in an L∞ ball about the input (Xiong & Hsieh, ECCV 2022, eqs. 3-7).

    R(φ) = max over s' in B∞(s, ε) of ‖u(s) − u(s')‖², the optimizer state held fixed, found by projected sign ascent
    from a noisy start (at s' = s the gradient is exactly zero). Both updates carry the gradient to φ; the worst s' is
    a constant. The paper: distance = "sum", noise = 0.05. The released code: distance = "mean", noise = 0.01, perturb
    = "gradient".
    """

    epsilon: float = setting(1.0, minimum=0.0, help="half-width of the box about the input features")
    ascent_steps: int = setting(10, minimum=0, help="steps that look for the worst perturbation")
    step_size: float = setting(0.2, above=0.0, help="length of an ascent step, as a share of epsilon")
    noise: float = setting(0.05, above=0.0, help="standard deviation of the start, cut to the box")
    distance: str = setting("mean", choices=("mean", "sum"), help="squared change: mean or sum over coordinates")
    perturb: str = setting(
        "features", choices=("features", "gradient"), help="every input feature, or those of the current gradient only"
    )

    def start_of_ascent(self, optimizer: LearnedOptimizer, features: Tensor, randomness: Randomness) -> Tensor:
        offset = normal(features, randomness).mul_(self.noise).clamp_(-self.epsilon, self.epsilon)
        if self.perturb == "gradient":
            offset[..., optimizer.gradient_features :] = 0.0
        return offset

    def ascent(self, optimizer: LearnedOptimizer) -> BoxAscent:
        free = optimizer.gradient_features if self.perturb == "gradient" else None
        return BoxAscent(self.epsilon, self.step_size * self.epsilon, self.ascent_steps, free)

    def change(self, update: Tensor, other: Tensor) -> Tensor:
        squares = (update - other) ** 2  # [B, P]
        return squares.mean(-1) if self.distance == "mean" else squares.sum(-1)
