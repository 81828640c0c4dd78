"""Tuning of baselines: grid search on the validation loss, again for every task (docs/method.md#baselines).

Learned optimizers are never tuned on the task they are tested on, so a tuned baseline is a strong opponent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.base import seeds
from engine.evaluation.frozen_unroll import DRAWN_AT_ONCE, frozen_unroll, nothing
from engine.evaluation.transfer import Report, at_once, silent
from engine.optimizers.baselines import Baseline
from engine.optimizers.learned.base import Phi, Start
from engine.tasks.base import Task

CPU_AT_ONCE = 9  # optimizees; with more, convolutions on a CPU take twice as long for each


@dataclass(frozen=True)
class TunedSettings:
    """The chosen value of every column of phi; `at_edge` names those at an end of their grid: it may be too narrow."""

    values: dict[str, float]
    at_edge: tuple[str, ...]


def tune(
    task: Task,
    baseline: Baseline,
    numbers: Sequence[int],
    steps: int,
    tick: Callable[[], None] = nothing,
    start: Start | None = None,
    report: Report = silent,
) -> TunedSettings:
    """The values of the grid with the lowest mean validation loss after `steps` inner steps of optimizees `numbers`.

    One column after the other, in the order of the grid, the later ones at their default: the learning rate first. A
    value counts as worst where the loss of any optimizee is not finite; of equals the first wins. The test set is not
    looked at, and the optimizees are not those that test. `tick` is called at every inner step, and may raise to
    interrupt; `report` is told how far it is. `start`: where optimizees begin, see `frozen_unroll`. Memory does not
    grow with the steps. Raises ValueError where there is nothing to tune on.
    """
    if not len(numbers) or steps < 1:
        raise ValueError(f"tuning needs an optimizee and an inner step, found {len(numbers)} and {steps}")
    values, at_edge = dict(baseline.default), []
    tried, total = 0, sum(map(len, baseline.grid.values()))
    for name, grid in baseline.grid.items():
        candidates = [{**values, name: value} for value in grid]

        def tell(count: float, name: str = name, before: int = tried) -> None:
            share = (before + count) / total
            report(f"choosing its {name.replace('_', ' ')} on validation, {share:.0%}", share)

        losses = validation_losses(task, baseline, candidates, numbers, steps, tick, start, tell)
        tried += len(grid)
        best = int(losses.argmin())
        values[name] = grid[best]
        if best in (0, len(grid) - 1):
            at_edge.append(name)
    return TunedSettings(values, tuple(at_edge))


def validation_losses(
    task: Task,
    baseline: Baseline,
    candidates: Sequence[Mapping[str, float]],
    numbers: Sequence[int],
    steps: int,
    tick: Callable[[], None] = nothing,
    start: Start | None = None,
    tell: Callable[[float], None] = lambda count: None,
) -> Tensor:
    """Mean validation loss over optimizees `numbers` for each candidate, a value for every column of phi: [candidates].

    Every candidate meets the same optimizees and batches. Infinite where the loss of any optimizee is not finite.
    `tell` is called now and then with how many candidates have been tried, one under way as a part of one.
    """
    portion = min(at_once(task), CPU_AT_ONCE) if task.device.type == "cpu" else at_once(task)
    together = max(1, portion // len(numbers))
    task, outcome = task.held_out("validation"), list[Tensor]()
    for first in range(0, len(candidates), together):
        chosen = candidates[first : first + together]
        seed_list = [seeds.derive(number, "tuning") for _ in chosen for number in numbers]
        phi = _columns(chosen, len(numbers), task)
        seen = task.of([seeds.derive(seed, "episode") for seed in seed_list])
        for step in frozen_unroll(seen, baseline, phi, seed_list, steps, start=start, tick=tick):
            theta = step.theta
            if step.inner_step % DRAWN_AT_ONCE == 0:
                tell(first + len(chosen) * step.inner_step / steps)
        losses = seen.metrics_of_each(theta, "validation")["loss"].view(len(chosen), len(numbers)).mean(1)
        outcome.append(torch.where(losses.isfinite(), losses, torch.inf))
    return torch.cat(outcome)


def _columns(candidates: Sequence[Mapping[str, float]], repeats: int, task: Task) -> Phi:
    """phi with `repeats` optimizees for each candidate: columns of shape [candidates * repeats, 1]."""
    return {
        name: torch.tensor(
            [[candidate[name]] for candidate in candidates for _ in range(repeats)],
            device=task.device,
            dtype=task.dtype,
        )
        for name in candidates[0]
    }
