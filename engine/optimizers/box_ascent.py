"""The worst features in a box about those that a learned optimizer was shown, by projected sign ascent."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from engine.optimizers.learned.base import LearnedOptimizer, Phi, State


class BoxAscent(NamedTuple):
    """Projected sign ascent of an update's squared change in a box about the features, the state held fixed."""

    epsilon: float  # half-width of the box
    length: float  # of one step
    steps: int
    free: int | None = None  # how many features move, the first ones; None: all


def ascend(
    optimizer: LearnedOptimizer,
    phi: Phi,
    center: Tensor,
    state: State,
    clean: Tensor,
    offset: Tensor,
    ascent: BoxAscent,
) -> Tensor:
    """The features, [..., P, F], in the box about `center` where the ascent from `offset` ends; by autograd."""
    free = torch.zeros_like(center)
    free[..., : ascent.free] = 1.0  # [: None] is all of them
    for _ in range(ascent.steps):
        point = (center + offset).requires_grad_()
        with torch.enable_grad():
            change = ((clean - optimizer.step(phi, point, state)[0]) ** 2).sum()
        (slope,) = torch.autograd.grad(change, point)
        offset = (offset + ascent.length * slope.sign() * free).clamp(-ascent.epsilon, ascent.epsilon)
    return center + offset
