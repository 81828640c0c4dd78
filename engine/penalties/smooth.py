"""Smoothness of the learned optimizer: how far its update can be moved by a small change of its input."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from engine.learned_optimizers.base import LearnedOptimizer, Phi
from engine.penalties.base import PENALTIES, InnerStep, UpdatePenalty, setting


@PENALTIES.register("smooth")
class Smooth(UpdatePenalty):
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

    def value(self, optimizer: LearnedOptimizer, phi: Phi, step: InnerStep, generator: Generator) -> Tensor:
        worst = self.worst_features(optimizer, phi, step, generator)
        change = (step.update - optimizer.step(phi, worst, step.state)[0]) ** 2  # [B, P]
        return change.mean(-1) if self.distance == "mean" else change.sum(-1)

    def worst_features(self, optimizer: LearnedOptimizer, phi: Phi, step: InnerStep, generator: Generator) -> Tensor:
        """The perturbed input with the largest change of the update that the ascent finds, shape [B, P, F]."""
        constant = {name: tensor.detach() for name, tensor in phi.items()}
        state = {name: tensor.detach() for name, tensor in step.state.items()}
        center, clean = step.features.detach(), step.update.detach()
        free = torch.ones_like(center[..., :1].expand_as(center))
        if self.perturb == "gradient":
            free = free.clone()
            free[..., optimizer.gradient_features :] = 0.0
        start = torch.randn(center.shape, generator=generator, dtype=center.dtype, device=center.device)
        offset = (self.noise * start).clamp(-self.epsilon, self.epsilon) * free
        for _ in range(self.ascent_steps):
            point = (center + offset).requires_grad_()
            with torch.enable_grad():
                change = ((clean - optimizer.step(constant, point, state)[0]) ** 2).sum()
            (ascent,) = torch.autograd.grad(change, point)
            offset = offset + self.step_size * self.epsilon * ascent.sign() * free
            offset = offset.clamp(-self.epsilon, self.epsilon)
        return center + offset
