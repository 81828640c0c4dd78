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
    offset = offset.clamp(-ascent.epsilon, ascent.epsilon)
    update_of = optimizer.update_of(phi, center + offset, state, ascent.free)
    middle, moved = center[..., : ascent.free], offset[..., : ascent.free]  # [: None] is all of them
    for _ in range(ascent.steps):
        point = (middle + moved).requires_grad_()
        with torch.enable_grad():
            change = ((clean - update_of(point)) ** 2).sum()
        (slope,) = torch.autograd.grad(change, point)
        moved = (moved + ascent.length * slope.sign()).clamp(-ascent.epsilon, ascent.epsilon)
    offset[..., : ascent.free] = moved
    return center + offset
