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
from engine.optimizers.baselines import Baseline, plain_gradients, sam_gradients
from engine.optimizers.learned.base import LearnedOptimizer, Phi, Start, StepInfo, learned_start, without_start
from engine.tasks.base import Task

DRAWN_AT_ONCE = 50  # inner steps for which batches are drawn together


class UnrolledStep(NamedTuple):
    """Where B optimizees are after an inner step."""

    inner_step: int
    theta: Tensor  # [B, P]
    loss: Tensor  # [B], on the batch that led there, at the parameters before; zeros at inner step 0
    update: Tensor  # [B, P], likewise


class UpdateChange(NamedTuple):
    """What is done to every update u of a frozen optimizer: theta <- theta + scale u - weight_decay theta.

    The decay is decoupled, constant and not multiplied by the scale, as that of `load_optimizer` at lr = 1.
    """

    scale: float = 1.0
    weight_decay: float = 0.0


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
    changes: Sequence[UpdateChange] = (UpdateChange(),),
    sam: float = 0.0,
    start: Start | None = None,
    split: str = "train",
    tick: Callable[[], None] = nothing,
) -> Iterator[UnrolledStep]:
    """Train fresh optimizees, one for each change and seed, side by side: B = changes * seeds, change by change.

    Optimizees begin where `start` says, else where the learned optimizer does, with its learned initial parameters for
    tasks that have as many, else as the task draws them. `sam` > 0: the gradient is taken at theta + sam g/|g| (Foret
    et al. 2021, arXiv:2010.01412), two passes a step; of learned optimizers alone, for a baseline has directions of its
    own. `tick` is called at every inner step, and may raise to interrupt. Memory does not grow with the steps. Raises
    ValueError for a baseline with `sam`.
    """
    if sam and isinstance(optimizer, Baseline):
        raise ValueError(f"sam goes around learned optimizers, found {optimizer.name}")
    seed_list = [seed for _ in changes for seed in seed_list]
    theta = torch.stack([task.init_theta(seeds.derive(seed, "theta")) for seed in seed_list])
    stream = task.batches([seeds.derive(seed, "batches") for seed in seed_list], split)
    batches = stream.draw(min(DRAWN_AT_ONCE, max(1, steps)))
    if start is None and isinstance(optimizer, LearnedOptimizer):
        start = learned_start(optimizer, phi)
    if start is not None:
        theta = start(theta, batches[0], task.layout)
    step = _steps(optimizer, phi, theta, task)
    direction = optimizer.gradients if isinstance(optimizer, Baseline) else sam_gradients if sam else plain_gradients
    settings = {"rho": theta.new_tensor(sam)} if sam else phi
    scale, weight_decay = _columns(changes, len(seed_list), theta)
    yield UnrolledStep(0, theta, torch.zeros_like(theta[:, 0]), torch.zeros_like(theta))
    for first in range(0, steps, DRAWN_AT_ONCE):
        count = min(DRAWN_AT_ONCE, steps - first)
        batches = stream.draw(count) if first else batches
        for index in range(count):
            tick()
            grad, loss = direction(settings, task.loss, theta, batches[index])
            update = step(theta, grad, StepInfo(loss, first + index, steps, task))
            update = update if scale is None else scale * update
            update = update if weight_decay is None else update - weight_decay * theta
            theta = theta + update
            yield UnrolledStep(first + index + 1, theta, loss, update)


def _steps(optimizer: LearnedOptimizer | Baseline, phi: Phi, theta: Tensor, task: Task) -> Steps:
    if isinstance(optimizer, Baseline):
        return optimizer.steps(phi, theta)
    state = optimizer.init(theta, task.layout)
    return kernels.steps(optimizer, without_start(phi), state, theta, task.layout)


def _columns(changes: Sequence[UpdateChange], rows: int, theta: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Scale and weight decay of every row, [B, 1]; None where they change nothing, which then costs nothing."""

    def column(values: Sequence[float], usual: float) -> Tensor | None:
        if all(value == usual for value in values):
            return None
        return theta.new_tensor(values).repeat_interleave(rows // len(changes))[:, None]

    return column([change.scale for change in changes], 1.0), column([change.weight_decay for change in changes], 0.0)
