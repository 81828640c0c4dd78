"""Forward only: a frozen optimizer trains optimizees, and nothing is kept but what the next inner step needs.

Evaluation, transfer, tuning and landscapes unroll with this; learned optimizers and baselines go the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from engine import kernels
from engine.base import seeds
from engine.kernels.steps import Steps
from engine.optimizers.baselines import Baseline, plain_gradients
from engine.optimizers.learned.base import LearnedOptimizer, Phi, StepInfo
from engine.tasks.base import Task

DRAWN_AT_ONCE = 50  # inner steps for which batches are drawn together


class UnrolledStep(NamedTuple):
    """Where B optimizees are after an inner step."""

    inner_step: int
    theta: Tensor  # [B, P]
    loss: Tensor  # [B], on the batch that led there, at the parameters before; zeros at inner step 0
    update: Tensor  # [B, P], likewise


def nothing() -> None:
    """What a `tick` does where nobody wants to interrupt."""


@torch.no_grad()
def frozen_unroll(
    task: Task,
    optimizer: LearnedOptimizer | Baseline,
    phi: Phi,
    seed_list: Sequence[int],
    steps: int,
    *,
    scale: float = 1.0,
    split: str = "train",
    tick: Callable[[], None] = nothing,
) -> Iterator[UnrolledStep]:
    """Train fresh optimizees, one for each seed, with every update times `scale`. Memory does not grow with the steps.

    `tick` is called at every inner step, and may raise to interrupt.
    """
    theta = torch.stack([task.init_theta(seeds.derive(seed, "theta")) for seed in seed_list])
    stream = task.batches([seeds.derive(seed, "batches") for seed in seed_list], split)
    step = _steps(optimizer, phi, theta, task)
    direction = optimizer.gradients if isinstance(optimizer, Baseline) else plain_gradients
    yield UnrolledStep(0, theta, torch.zeros_like(theta[:, 0]), torch.zeros_like(theta))
    for first in range(0, steps, DRAWN_AT_ONCE):
        count = min(DRAWN_AT_ONCE, steps - first)
        batches = stream.draw(count)
        for index in range(count):
            tick()
            grad, loss = direction(phi, task.loss, theta, batches[index])
            update = step(theta, grad, StepInfo(loss, first + index, steps))
            update = update if scale == 1 else scale * update
            theta = theta + update
            yield UnrolledStep(first + index + 1, theta, loss, update)


def _steps(optimizer: LearnedOptimizer | Baseline, phi: Phi, theta: Tensor, task: Task) -> Steps:
    if isinstance(optimizer, Baseline):
        return optimizer.steps(phi, theta)
    return kernels.steps(optimizer, phi, optimizer.init(theta, task.layout), theta, task.layout)
