"""Transfer evaluation: a frozen optimizer trains fresh optimizees, and what it reached is measured.

Learned optimizers and baselines go through the same code. Optimizee k starts from the same parameters and sees the same
batches under every optimizer, whatever the run, so that results can be compared in pairs.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from engine import probes, seeds
from engine.baselines import BASELINES, LEARNING_RATES, UpdateRule
from engine.flat import gradients_and_losses
from engine.learned_optimizers.base import Phi
from engine.tasks import Task

DRAWN_AT_ONCE = 50  # inner steps for which batches are drawn together
LARGEST_BATCH = 2**24  # parameters of all optimizees that are tuned side by side
DIVERGED = 10.0  # an optimizee has diverged when its loss is this many first losses, or not finite


@dataclass(frozen=True)
class ProbeSettings:
    """How the landscape around the reached parameters is measured."""

    radii: Sequence[float]
    examples: int = 10_000
    restarts: int = 10
    ascent_steps: int = 50


def nothing() -> None:
    """What a `tick` does where nobody wants to interrupt."""


@torch.no_grad()
def frozen_unroll(
    task: Task,
    rule: UpdateRule,
    phi: Phi,
    seed_list: Sequence[int],
    steps: int,
    split: str = "train",
    tick: Callable[[], None] = nothing,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Train fresh optimizees, one for each seed. Yields inner step, theta, [B, P], and the loss, [B], on the batch that
    led there (0 at inner step 0). Memory does not grow with the steps.
    """
    theta = torch.stack([task.init_theta(seeds.derive(seed, "theta")) for seed in seed_list])
    stream = task.stream([seeds.derive(seed, "batches") for seed in seed_list], split)
    state = rule.init(theta)
    yield 0, theta, torch.zeros_like(theta[:, 0])
    for first in range(0, steps, DRAWN_AT_ONCE):
        tick()
        count = min(DRAWN_AT_ONCE, steps - first)
        window = stream.draw(count)
        for index in range(count):
            grad, loss = gradients_and_losses(task.loss, theta, window[index])
            update, state = rule.update(phi, theta, grad, state)
            theta = theta + update
            yield first + index + 1, theta, loss


def evaluate(
    task: Task,
    rule: UpdateRule,
    phi: Phi,
    numbers: Sequence[int],
    steps: int,
    probe: ProbeSettings,
    *,
    purpose: str = "test",
    tick: Callable[[], None] = nothing,
) -> dict[str, Any]:
    """Train optimizees `numbers` for `steps` inner steps and measure where they end.

    Returns "task", "created" and "seeds" of a transfer file; a figure that is not finite is None. `purpose` tells apart
    the optimizees that validate from those that test. `tick` is called now and then, and may raise to interrupt.
    """
    points = curve_points(steps)
    batch = task.fixed_batch(probe.examples, dtype=task.dtype)
    curve: list[Tensor] = []
    total = torch.zeros(len(numbers), dtype=task.dtype, device=task.device)
    theta = torch.empty(0)
    seed_list = [seeds.derive(number, purpose) for number in numbers]
    for inner_step, theta, loss in frozen_unroll(task, rule, phi, seed_list, steps, tick=tick):
        total += loss
        if inner_step in points:
            curve.append(vmap(task.loss, in_dims=(0, None))(theta, batch))
    history = torch.stack(curve, dim=1)  # [B, points]
    marks = measure(task, theta, probe, tick)
    mean_losses = (total / steps).tolist()
    return {
        "task": {key: task.values[key] for key in ("dataset", "optimizee", "batch_size")},
        "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seeds": [
            {
                "seed": number,
                "diverged": not float(history[b, -1]) <= DIVERGED * float(history[b, 0]),
                "mean_loss": finite(mean_losses[b]),
                "curve": {"inner_step": points, "train_loss": [finite(value) for value in history[b].tolist()]},
                "marks": [{"inner_step": steps, **marks[b]}],
            }
            for b, number in enumerate(numbers)
        ],
    }


def measure(
    task: Task, theta: Tensor, probe: ProbeSettings, tick: Callable[[], None] = nothing
) -> list[dict[str, Any]]:
    """Losses, accuracies and the shape of the landscape at theta, [B, P]; one dict for each optimizee.

    The landscape is that of the training loss on the first `probe.examples` training examples, in float64.
    """
    validation_loss, _ = task.evaluate(theta, "validation")
    test_loss, test_accuracy = task.evaluate(theta, "test")
    batch = task.fixed_batch(probe.examples, dtype=torch.float64)

    def loss(point: Tensor) -> Tensor:
        return task.loss(point, batch)

    marks = []
    for b, point in enumerate(theta.detach().double()):
        tick()
        gradient, value = grad_and_value(loss)(point)
        mark: dict[str, Any] = {
            "train_loss": float(value),
            "validation_loss": float(validation_loss[b]),
            "test_loss": float(test_loss[b]),
            "test_accuracy": float(test_accuracy[b]),
            "parameter_norm": float(point.norm()),
            "grad_norm": float(gradient.norm()),
        }
        sound = bool(gradient.isfinite().all())  # a search from a point that is not finite would find nothing
        shape = probes.profile(
            loss, point, probe.radii if sound else (), restarts=probe.restarts, ascent_steps=probe.ascent_steps
        )
        mark["top_eigenvalue"] = shape.top_eigenvalue
        for name in ("sharpness", "max_grad_norm", "surrogate_gap"):
            mark[name] = {radius_key(radius): finite(figure) for radius, figure in getattr(shape, name).items()}
        marks.append({name: finite(value) if isinstance(value, float) else value for name, value in mark.items()})
    return marks


def tune_learning_rate(
    task: Task, rule: UpdateRule, numbers: Sequence[int], steps: int, tick: Callable[[], None] = nothing
) -> float:
    """The grid's learning rate with the lowest mean validation loss after `steps` inner steps."""
    at_once = max(1, LARGEST_BATCH // (task.parameters * len(numbers)))
    outcome: list[Tensor] = []
    for rates in [LEARNING_RATES[first : first + at_once] for first in range(0, len(LEARNING_RATES), at_once)]:
        seed_list = [seeds.derive(number, "tuning") for _ in rates for number in numbers]
        column = torch.tensor(rates).repeat_interleave(len(numbers))[:, None]
        phi = {"learning_rate": column.to(task.device, task.dtype)}
        theta = torch.empty(0)
        for _, theta, _ in frozen_unroll(task, rule, phi, seed_list, steps, tick=tick):  # noqa: B007
            pass
        losses = task.evaluate(theta, "validation")[0].view(len(rates), len(numbers)).mean(1)
        outcome.append(torch.where(losses.isfinite(), losses, torch.inf))
    return LEARNING_RATES[int(torch.cat(outcome).argmin())]


def evaluate_baseline(
    task: Task,
    name: str,
    numbers: Sequence[int],
    steps: int,
    probe: ProbeSettings,
    tick: Callable[[], None] = nothing,
) -> dict[str, Any]:
    """Transfer evaluation of a baseline at its best grid learning rate."""
    rule = BASELINES[name]
    rate = tune_learning_rate(task, rule, numbers[:3], steps, tick)
    phi = {"learning_rate": torch.tensor([[rate]], device=task.device, dtype=task.dtype)}
    facts = {"run": None, "optimizer": name, "label": name, "learning_rate": rate, "passes_per_step": 1}
    return {**facts, **evaluate(task, rule, phi, numbers, steps, probe, tick=tick)}


def radius_key(radius: float) -> str:
    """A radius as the key of a figure, as people type it: "0.01", "1"."""
    return f"{radius:.12g}"


def curve_points(steps: int) -> list[int]:
    """Where a learning curve is recorded: 0, 1, 2, 5, 10, 20, 50, ... and the last inner step."""
    points = {base * 10**power for power in range(len(str(steps))) for base in (1, 2, 5)}
    return sorted(point for point in points | {0, steps} if point <= steps)


def finite(value: float) -> float | None:
    """The value, or None (null in JSON) where it is not finite."""
    return value if math.isfinite(value) else None
