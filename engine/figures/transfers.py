"""Figures of transfer evaluations: learning curves, sharpness, what tasks measure, and the scale frontier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from engine.base.metrics import headline
from engine.comparison import Arm, MetricAt, TaskOutcomes, TaskResult, last_common_step, radii_of
from engine.comparison.outcomes import MetaSeed, Outcomes
from engine.comparison.paired import best_scale
from engine.figures.base import ARM, Axis, Estimate, Evaluated, Line, Panel, Point, Who, drawn
from engine.runs.evaluations import ADAPTIVE, SHARPNESS, TRAIN_LOSS, OptimizeeOutcome, primary, radii


def curves(evaluated: Evaluated) -> list[Panel]:
    """Train loss on the fixed evaluation set against the inner step."""
    panels = []
    for name, task in evaluated.curves.items():
        lines = [line for who, entry in evaluated.everybody(task).items() if (line := _curve(who, entry)) is not None]
        if lines:
            panels.append(Panel(name, Axis("inner step", "log"), Axis(TRAIN_LOSS.name, "log"), tuple(lines)))
    return panels


def _curve(who: Who, entry: TaskResult) -> Line | None:
    """Where evaluations of different lengths met, the steps at which all of the longest one's optimizees are there."""
    whole = [
        {step for step, seeds in steps.items() if set(seeds) == set(steps[max(steps)])}
        for steps in entry.outcomes.values()
    ]
    steps = sorted(step for step in set.intersection(*whole) if step > 0)  # no place for 0 on a logarithmic axis
    points = {float(step): value for step in steps if (value := drawn(entry.at(step), TRAIN_LOSS)) is not None}
    return _line(who, points, bars=False)


def _line(who: Who, points: Mapping[float, Estimate], bars: bool, notes: tuple[str, ...] = ()) -> Line | None:
    if not points:
        return None
    y, low, high = (tuple(part) for part in zip(*points.values(), strict=True))
    return Line(who, tuple(points), y, low, high, bars, notes)


def sharpness(evaluated: Evaluated) -> list[Panel]:
    """Sharpness against the radius."""
    panels = []
    for title, task, step in _tables(evaluated):
        lines, radii = [], radii_of([task])
        for who, entry in evaluated.everybody(task).items():
            estimates = {float(r): drawn(entry.at(step), MetricAt(SHARPNESS, r)) for r in radii}
            positive = {radius: value for radius, value in estimates.items() if value is not None and value[0] > 0}
            if line := _line(who, positive, bars=True):
                lines.append(line)
        if lines:
            panels.append(Panel(title, Axis("radius", "log"), Axis(SHARPNESS, "log"), tuple(lines)))
    return panels


def _tables(evaluated: Evaluated) -> Iterator[tuple[str, TaskOutcomes, int]]:
    """Title, outcomes and inner step of every task."""
    for name, task in evaluated.marks.items():
        step = evaluated.step if evaluated.step is not None else last_common_step(task, evaluated.arms)
        if step is not None:
            yield f"{name}, {step} steps", task, step


def headlines(evaluated: Evaluated) -> list[Panel]:
    """What the task is judged by (accuracy, if it measures that) against sharpness (adaptive, if of all)."""
    panels = []
    for title, task, step in _tables(evaluated):
        at = _sharpness_of_all(task, step, evaluated.radius)
        x = Axis(at.name, "log", at.radius or "")
        metric = headline((at.name for at in task.metrics), task.measured)
        y = Axis(metric.name, unit=metric.unit, label=metric.words)
        points = _points(evaluated, task, step, (at, MetricAt(metric.name)), (x, y))
        if points:
            panels.append(Panel(title, x, y, points=points))
    return panels


def _sharpness_of_all(task: TaskOutcomes, step: int, radius: str) -> MetricAt:
    """Adaptive sharpness where it was measured of everybody whose sharpness was, else sharpness at a radius."""
    of_each = [
        {at for seeds in entry.at(step).values() for outcome in seeds.values() for at in outcome.metrics}
        for entry in task.entries
    ]
    measured = [names for names in of_each if radii(names) or radii(names, ADAPTIVE)]
    return primary(set.intersection(*measured) if measured else (), radius)


def frontier(evaluated: Evaluated) -> list[Panel]:
    """Sharpness (adaptive, if of all) against train loss; a line through the points of an arm without penalties under
    its scales, solid up to the best one."""
    panels = []
    for title, task, step in _tables(evaluated):
        at = _sharpness_of_all(task, step, evaluated.radius)
        x, y = Axis(TRAIN_LOSS.name, "log"), Axis(at.name, "log", at.radius or "")
        scaled = scaled_arms(evaluated).items()
        lines = [line for who, arm in scaled for line in _frontier_lines(who, arm, task, step, at)]
        on_lines = {line.who for line in lines}
        points = _points(evaluated, task, step, (TRAIN_LOSS, at), (x, y))
        points = tuple(point for point in points if point.who not in on_lines)
        if lines or points:
            panels.append(Panel(title, x, y, tuple(lines), points))
    return panels


def scaled_arms(evaluated: Evaluated) -> dict[Who, Arm]:
    """The arms whose frontiers are drawn: those without penalties that were evaluated at several scales anywhere."""
    arms = evaluated.ordered_arms
    vanilla = [arm for arm in arms if not arm.has_penalty] or arms[:1]
    return {
        Who(ARM, arms.index(arm), arm.label): arm
        for arm in vanilla
        if any(len(task.scaled(arm)) > 1 for task in evaluated.marks.values())
    }


def _frontier_lines(who: Who, arm: Arm, task: TaskOutcomes, step: int, at: MetricAt) -> Iterator[Line]:
    """The regular branch, and from the best scale on the overshoot; none where there are fewer than two points."""
    points: dict[float, tuple[Estimate, Estimate]] = {}
    pooled: dict[float, dict[tuple[MetaSeed, int], OptimizeeOutcome]] = {}
    for scale, entry in task.scaled(arm).items():
        outcomes = entry.at(step)
        x, y = (drawn(outcomes, one) for one in (TRAIN_LOSS, at))
        if x is not None and y is not None and x[0] > 0 and y[0] > 0:
            points[scale] = x, y
            pooled[scale] = {(seed, one): by[one] for seed, by in outcomes.items() for one in by}
    if len(points) < 2:
        return
    scales = list(points)
    best = scales.index(best_scale(pooled) or scales[-1])
    for part, dash in ((scales[: best + 1], "solid"), (scales[best:], "dashed")):
        if len(part) > 1:
            x_means = tuple(points[scale][0][0] for scale in part)
            y_means, low, high = zip(*(points[scale][1] for scale in part), strict=True)
            is_joint = dash == "dashed" and best > 0  # whose word the other branch says
            notes = tuple("" if is_joint and scale == part[0] else f"×{scale:g}" for scale in part)
            yield Line(who, x_means, y_means, low, high, True, notes, dash=dash)


def _points(
    evaluated: Evaluated, task: TaskOutcomes, step: int, of: tuple[MetricAt, MetricAt], axes: tuple[Axis, Axis]
) -> tuple[Point, ...]:
    """Everybody's means in two metrics, as far as there is a place for them on the axes."""
    points = []
    for who, entry in evaluated.everybody(task).items():
        outcomes = entry.at(step)
        x, y = (drawn(outcomes, at) for at in of)
        if (
            x is not None
            and y is not None
            and all(axis.scale != "log" or value[0] > 0 for axis, value in zip(axes, (x, y), strict=True))
        ):
            points.append(Point(who, x, y, _cloud(outcomes, of)))
    return tuple(points)


def _cloud(outcomes: Outcomes, of: tuple[MetricAt, MetricAt]) -> tuple[tuple[float, float], ...]:
    """The single optimizees."""
    x, y = of
    sound = [outcome.metrics for seeds in outcomes.values() for outcome in seeds.values() if not outcome.diverged]
    return tuple((metrics[x], metrics[y]) for metrics in sound if x in metrics and y in metrics)
