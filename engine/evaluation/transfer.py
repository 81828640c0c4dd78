"""Transfer evaluation: a frozen optimizer trains fresh optimizees, and what it reached is measured.

Learned optimizers and baselines go through the same code. Optimizee k starts from the same parameters and sees the same
batches under every optimizer, whatever the run, so that results can be compared in pairs.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from engine.base import seeds
from engine.base.flat import Batch, Loss, PartedLoss, grad_and_value, gradients_and_losses, plain_attention
from engine.base.metrics import own_metrics
from engine.base.settings import Typed
from engine.evaluation.frozen_unroll import DRAWN_AT_ONCE, UpdateChange, frozen_unroll, nothing
from engine.optimizers.baselines import Baseline
from engine.optimizers.learned.base import LearnedOptimizer, Phi, Start
from engine.probes.summary import Profile, adaptive_sharpness_each, profile_each
from engine.tasks.base import Task, cast
from engine.tasks.bounded import bounded_loss

DIVERGED = 10.0  # an optimizee has diverged when its loss is this many first losses, or not finite
EPISODES_AT_ONCE = 25  # optimizees with data of their own that are trained side by side
BY_RADIUS = ("sharpness", "max_grad_norm", "surrogate_gap")
EXTENDED_BY_RADIUS = ("r1", "sharpness_linf", "max_grad_norm_linf")


@dataclass(frozen=True)
class ProbeSettings:
    """How the landscape around the reached parameters is measured; `extended`: with trace, R1 and the l-inf ball."""

    radii: Sequence[float]
    adaptive_radius: float = 0.5
    examples: int = 10_000
    restarts: int = 10
    ascent_steps: int = 50
    precision: str = "float64"
    extended: bool = False


Report = Callable[[str, float], None]
"""Is told in words what is going on, and the share of it, 0 to 1, that is done."""


def silent(text: str, share: float) -> None:
    """What a `report` does where nobody listens."""


def evaluate(
    task: Task,
    optimizer: LearnedOptimizer | Baseline,
    phi: Phi,
    numbers: Sequence[int],
    steps: int,
    probe: ProbeSettings,
    **how: Any,
) -> dict[str, Any]:
    """Train optimizees `numbers` for `steps` inner steps; `how`, and what is returned, as in `evaluate_each`."""
    return evaluate_each(task, optimizer, phi, numbers, steps, probe, **how)[0]


@plain_attention()
def evaluate_each(
    task: Task,
    optimizer: LearnedOptimizer | Baseline,
    phi: Phi,
    numbers: Sequence[int],
    steps: int,
    probe: ProbeSettings,
    *,
    changes: Sequence[UpdateChange] = (UpdateChange(),),
    sam: float = 0.0,
    marks: Sequence[int] = (),
    start: Start | None = None,
    purpose: str = "test",
    tick: Callable[[], None] = nothing,
    report: Report = silent,
) -> list[dict[str, Any]]:
    """Train optimizees `numbers` for `steps` inner steps; measure where they are at `marks` and at the end.

    Optimizees with data of their own, as episodes, have those of `task.held_out(purpose)`, no landscape is measured,
    and so many of them are trained side by side as keep memory in bounds. They are measured before the first step as
    well, and have diverged when their loss on the queries, not that on a support set that they may begin with having
    learned, is many times that. Once for each of `changes`, all of them side by side; `changes`, `sam` and `start` as
    in `frozen_unroll`. Returns for each "task", "metrics" (of the task's own), "created" and "seeds" of a transfer
    file; a metric that is not finite is None. `purpose` tells apart the optimizees that validate from those that test.
    `tick` is called at every inner step, and between the steps of the probes, and may raise to interrupt; `report` is
    told what is going on.
    """
    if isinstance(optimizer, LearnedOptimizer):
        optimizer.check_task(task)
    if len(numbers) > EPISODES_AT_ONCE and task.is_episodic:
        portions = [numbers[first : first + EPISODES_AT_ONCE] for first in range(0, len(numbers), EPISODES_AT_ONCE)]
        how: dict[str, Any] = {"changes": changes, "sam": sam, "marks": marks, "purpose": purpose, "tick": tick}
        how["start"] = start
        count = len(portions)
        parts = [
            evaluate_each(task, optimizer, phi, some, steps, probe, **how, report=_part(report, index, count))
            for index, some in enumerate(portions)
        ]
        return [
            {**of_change[0], "seeds": [seed for part in of_change for seed in part["seeds"]]}
            for of_change in zip(*parts, strict=True)
        ]
    points, measured_at = curve_points(steps), {*marks, steps, *([0] if task.is_episodic else [])}
    facts, task = task.facts, task.held_out("validation" if purpose == "validation" else "test")
    curve: list[Tensor] = []
    measured: list[list[dict[str, Any]]] = []
    rows = len(changes) * len(numbers)
    loss_sum = torch.zeros(rows, dtype=task.dtype, device=task.device)
    update_sum = torch.zeros_like(loss_sum)
    seed_list = [seeds.derive(number, purpose) for number in numbers]
    task = task.of([seeds.derive(seed, "episode") for seed in seed_list] * len(changes))
    training_loss = _training_losses(task, probe.examples, task.dtype)
    for inner_step, theta, loss, update in frozen_unroll(
        task, optimizer, phi, seed_list, steps, changes=changes, sam=sam, start=start, tick=tick
    ):
        loss_sum += loss
        update_sum += update.norm(dim=-1)
        if inner_step in points:
            curve.append(training_loss(theta))
        if inner_step in measured_at:
            report(f"probes at inner step {inner_step}", inner_step / steps)
            marks_here = measure(task, theta, probe, tick)
            measured.append([{"inner_step": inner_step, **mark} for mark in marks_here])
        if inner_step % DRAWN_AT_ONCE == 0:
            report(f"inner step {inner_step}/{steps}", inner_step / steps)
    history = torch.stack(curve, dim=1)  # [B, points]
    means = {"mean_loss": (loss_sum / steps).tolist(), "mean_update_norm": (update_sum / steps).tolist()}
    optimizees = [
        {
            "seed": numbers[b % len(numbers)],
            "diverged": _has_diverged(
                history[b], [marks_at[b] for marks_at in measured] if task.rows is not None else ()
            ),
            **{name: finite(values[b]) for name, values in means.items()},
            "curve": {"inner_step": points, "train_loss": [finite(value) for value in history[b].tolist()]},
            "marks": [marks_at[b] for marks_at in measured],
        }
        for b in range(rows)
    ]
    created = _now()
    return [
        {
            "task": facts,
            **own_metrics(task.measured),
            "created": created,
            "seeds": optimizees[first : first + len(numbers)],
        }
        for first in range(0, rows, len(numbers))
    ]


def _part(report: Report, index: int, count: int) -> Report:
    """What is told of one of several parts of the same length."""
    return lambda text, share: report(text, (index + share) / count)


def evaluate_baseline(
    task: Task,
    baseline: Baseline,
    values: Mapping[str, float],
    numbers: Sequence[int],
    steps: int,
    probe: ProbeSettings,
    **how: Any,
) -> dict[str, Any]:
    """Transfer evaluation of a baseline with its settings (learning rate, rho, ...); the rest as in `evaluate`."""
    phi = {name: torch.full((1, 1), value, device=task.device, dtype=task.dtype) for name, value in values.items()}
    facts = {"run": None, "optimizer": baseline.name, "label": baseline.name, "checkpoint": None, "scale": 1.0}
    evaluation = evaluate(task, baseline, phi, numbers, steps, probe, **how)
    return {**facts, **values, "passes_per_step": baseline.passes_per_step, **evaluation}


def evaluate_control(task: Task, name: str, numbers: Sequence[int]) -> dict[str, Any]:
    """What a control that trains nothing (`Task.controls`) reaches on the data of optimizees `numbers`, that test."""
    seed_list = [seeds.derive(seeds.derive(number, "test"), "episode") for number in numbers]
    metrics = task.held_out("test").of(seed_list).controls()[name]
    marks = [
        {f"test_{name}": finite(float(values[b])) for name, values in metrics.items()} for b in range(len(numbers))
    ]
    optimizees = [
        {
            "seed": number,
            "diverged": False,
            "curve": {"inner_step": [], "train_loss": []},
            "marks": [{"inner_step": 0, **mark}],
        }
        for number, mark in zip(numbers, marks, strict=True)
    ]
    return {"task": task.facts, **own_metrics(task.measured), "created": _now(), "seeds": optimizees}


def _has_diverged(losses: Tensor, marks: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an optimizee has, by its training losses; or by its marks, where these have its loss on the queries."""
    ends = [mark["validation_loss"] for mark in (marks[0], marks[-1])] if marks else losses[[0, -1]].tolist()
    first, last = (math.nan if loss is None else loss for loss in ends)
    return not last <= DIVERGED * first


def measure(
    task: Task, theta: Tensor, probe: ProbeSettings, tick: Callable[[], None] = nothing
) -> list[dict[str, Any]]:
    """The task's metrics and the shape of the landscape at theta, [B, P]; one dict for each optimizee.

    The landscape is that of the training loss on the first `probe.examples` training examples; it is not measured
    where optimizees have data of their own.
    """
    validation, test = task.metrics_of_each(theta, "validation"), task.metrics_of_each(theta, "test")
    precision = torch.float32 if probe.precision == "float32" else torch.float64
    points = theta.detach().to(precision)
    if task.rows is None:
        loss = bounded_loss(task, task.fixed_batch(probe.examples, dtype=precision))
        gradients, values = vmap(grad_and_value(loss), chunk_size=at_once(task, loss))(points)
        rough = task.fixed_batch(probe.examples, dtype=torch.float32)
        draft = bounded_loss(task, rough) if precision == torch.float64 else None
        landscape = shapes(loss, points[gradients.isfinite().all(1)], probe, tick, draft)
    else:
        gradients, values = gradients_and_losses(task.loss, points, _support(task, precision))
        landscape = iter(dict[str, Any]() for _ in points)
    marks = []
    for b, point in enumerate(points):
        mark: dict[str, Any] = {
            "train_loss": float(values[b]),
            "validation_loss": float(validation["loss"][b]),
            **{f"test_{name}": float(values[b]) for name, values in test.items()},
            "parameter_norm": float(point.norm()),
            "grad_norm": float(gradients[b].norm()),
            "top_eigenvalue": math.nan,
            **{name: {} for name in ("adaptive_sharpness", *BY_RADIUS)},
        }
        if gradients[b].isfinite().all():  # a search from a point that is not finite would find nothing
            mark |= next(landscape)
        marks.append({name: finite(value) if isinstance(value, float) else value for name, value in mark.items()})
    return marks


def _training_losses(task: Task, examples: int, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """The training loss of B optimizees at theta, [B, P]: [B]."""
    if task.rows is None:
        loss = bounded_loss(task, task.fixed_batch(examples, dtype=dtype))
        return vmap(loss, chunk_size=at_once(task, loss))
    support = _support(task, dtype)
    return lambda theta: vmap(task.loss, chunk_size=at_once(task))(theta, support)


def _support(task: Task, dtype: torch.dtype) -> Batch:
    """The training examples of each row of a bound task."""
    assert task.rows is not None
    return cast(task.batches(range(task.rows)).draw(1)[0], dtype)


def shapes(
    loss: Loss, points: Tensor, probe: ProbeSettings, tick: Callable[[], None] = nothing, draft: Loss | None = None
) -> Iterator[dict[str, Any]]:
    """The part of a mark that is of the landscape, for each of the points, [B, P]; `draft`: the loss in float32."""
    if not len(points):
        return
    search: dict[str, Any] = {"restarts": probe.restarts, "ascent_steps": probe.ascent_steps, "tick": tick}
    search["draft"] = draft
    samples = TRACE_SAMPLES if probe.extended else 0
    profiles = profile_each(loss, points, probe.radii, linf=probe.extended, trace_samples=samples, **search)
    adaptive = adaptive_sharpness_each(loss, points, [probe.adaptive_radius], **search)
    for profile, rises in zip(profiles, adaptive, strict=True):
        yield {"adaptive_sharpness": _by_key(rises), **_landscape(profile, probe)}


TRACE_SAMPLES = 20


def _landscape(shape: Profile, probe: ProbeSettings) -> dict[str, Any]:
    figures: dict[str, Any] = {"top_eigenvalue": shape.top_eigenvalue}
    if probe.extended:
        figures["trace"] = shape.trace
    for name in BY_RADIUS + (EXTENDED_BY_RADIUS if probe.extended else ()):
        figures[name] = _by_key(getattr(shape, name))
    return figures


def _by_key(by_radius: Mapping[float, float]) -> dict[str, float | None]:
    return {radius_key(radius): finite(figure) for radius, figure in by_radius.items()}


def at_once(task: Task, loss: Loss | None = None, largest: int = 2**24) -> int:
    """How many optimizees are trained, or a loss is taken at, side by side: as many as keep memory in bounds."""
    most = min(64, largest // task.parameters)
    if isinstance(loss, PartedLoss) and loss.points:
        most = min(most, loss.points)
    return max(1, most)


def radius_key(radius: float) -> str:
    """A radius as the key of a figure: as it was typed, or as people type it: "0.01", "1"."""
    return radius.text if isinstance(radius, Typed) else f"{radius:.12g}"


def curve_points(steps: int) -> list[int]:
    """Where a learning curve is recorded: 0, 1, 2, 5, 10, 20, 50, ... and the last inner step."""
    points = {base * 10**power for power in range(len(str(steps))) for base in (1, 2, 5)}
    return sorted(point for point in points | {0, steps} if point <= steps)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def finite(value: float) -> float | None:
    """The value, or None (null in JSON) where it is not finite."""
    return value if math.isfinite(value) else None
