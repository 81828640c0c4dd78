"""Figures of transfer evaluations: learning curves, sharpness, accuracy, and the scale frontier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from engine.comparison import Arm, Entry, Figure, TaskOutcomes, last_common_step, radii_of
from engine.figures.base import ARM, Axis, Line, Panel, Point, Who
from engine.figures.evaluated import TRAIN_LOSS, Estimate, Evaluated, Outcomes, drawn, everybody

TEST_ACCURACY = Figure("test_accuracy")


def _title(name: str, step: int) -> str:
    return f"{name}, {step} steps"


def curves(found: Evaluated) -> list[Panel]:
    """Train loss on the fixed evaluation set against the inner step."""
    panels = []
    for name, task in found.curves.items():
        lines = [line for who, entry in everybody(found, task).items() if (line := _curve(who, entry)) is not None]
        if lines:
            panels.append(Panel(name, Axis("inner step", "log"), Axis("train_loss", "log"), tuple(lines)))
    return panels


def _curve(who: Who, entry: Entry) -> Line | None:
    """Where evaluations of different lengths met, the steps at which all of the longest one's optimizees are there."""
    whole = [
        {step for step, seeds in steps.items() if set(seeds) == set(steps[max(steps)])}
        for steps in entry.outcomes.values()
    ]
    steps = sorted(step for step in set.intersection(*whole) if step > 0)  # no place for 0 on a logarithmic axis
    points = {float(step): value for step in steps if (value := drawn(entry.at(step), TRAIN_LOSS)) is not None}
    return _line(who, points, bars=False)


def _line(who: Who, points: Mapping[float, Estimate], bars: bool) -> Line | None:
    if not points:
        return None
    y, low, high = (tuple(part) for part in zip(*points.values(), strict=True))
    return Line(who, tuple(points), y, low, high, bars)


def sharpness(found: Evaluated) -> list[Panel]:
    """Sharpness against the radius."""
    panels = []
    for name, task, step in _shown(found):
        lines = []
        for who, entry in everybody(found, task).items():
            radii = radii_of([task])
            at = {
                float(r): value for r in radii if (value := drawn(entry.at(step), Figure("sharpness", r))) is not None
            }
            positive = {radius: value for radius, value in at.items() if value[0] > 0}
            line = _line(who, positive, bars=True)
            lines += [line] if line is not None else []
        if lines:
            panels.append(Panel(_title(name, step), Axis("radius", "log"), Axis("sharpness", "log"), tuple(lines)))
    return panels


def _shown(found: Evaluated) -> Iterator[tuple[str, TaskOutcomes, int]]:
    for name, task in found.marks.items():
        step = found.step if found.step is not None else last_common_step(task, found.arms)
        if step is not None:
            yield name, task, step


def accuracy(found: Evaluated) -> list[Panel]:
    """Test accuracy against sharpness."""
    figure = Figure("sharpness", found.radius)
    x, y = Axis("sharpness", "log", found.radius), Axis("test_accuracy")
    return _scatter(found, (figure, TEST_ACCURACY), x, y)


def frontier(found: Evaluated) -> list[Panel]:
    """Sharpness against train loss; a line through the points of an arm without penalties under its scales."""
    figure = Figure("sharpness", found.radius)
    x, y = Axis("train_loss", "log"), Axis("sharpness", "log", found.radius)
    scatter = _scatter(found, (TRAIN_LOSS, figure), x, y, keep_empty=True)
    panels = []
    for panel, (_, task, step) in zip(scatter, _shown(found), strict=True):
        lines = [
            line for who, arm in scaled_arms(found).items() if (line := _frontier_line(who, arm, task, step, figure))
        ]
        there = {line.who for line in lines}
        points = tuple(point for point in panel.points if point.who not in there)
        if lines or points:
            panels.append(replace(panel, lines=tuple(lines), points=points))
    return panels


def scaled_arms(found: Evaluated) -> dict[Who, Arm]:
    """The arms whose frontiers are drawn: those without penalties that were evaluated at several scales anywhere."""
    arms = found.ordered_arms
    vanilla = [arm for arm in arms if not arm.has_penalty] or arms[:1]
    return {
        Who(ARM, arms.index(arm), arm.label): arm
        for arm in vanilla
        if any(len(task.scaled(arm)) > 1 for task in found.marks.values())
    }


def _frontier_line(who: Who, arm: Arm, task: TaskOutcomes, step: int, figure: Figure) -> Line | None:
    points: dict[float, tuple[Estimate, Estimate]] = {}
    for scale, entry in task.scaled(arm).items():
        x, y = (drawn(entry.at(step), wanted) for wanted in (TRAIN_LOSS, figure))
        if x is not None and y is not None and x[0] > 0 and y[0] > 0:
            points[scale] = x, y
    if len(points) < 2:
        return None
    x_means = tuple(x[0] for x, _ in points.values())
    y_means, low, high = (tuple(part) for part in zip(*(y for _, y in points.values()), strict=True))
    notes = tuple(f"×{scale:g}" for scale in points)
    return Line(who, x_means, y_means, low, high, True, notes)


def _scatter(
    found: Evaluated, figures: tuple[Figure, Figure], x: Axis, y: Axis, keep_empty: bool = False
) -> list[Panel]:
    panels = []
    for name, task, step in _shown(found):
        points = []
        for who, entry in everybody(found, task).items():
            at = entry.at(step)
            middle = [drawn(at, figure) for figure in figures]
            shown = all(
                m is not None and (m[0] > 0 or axis.scale != "log") for m, axis in zip(middle, (x, y), strict=True)
            )
            if shown and middle[0] is not None and middle[1] is not None:
                points.append(Point(who, middle[0], middle[1], _cloud(at, figures)))
        if points or keep_empty:
            panels.append(Panel(_title(name, step), x, y, points=tuple(points)))
    return panels


def _cloud(outcomes: Outcomes, figures: tuple[Figure, Figure]) -> tuple[tuple[float, float], ...]:
    """The single optimizees."""
    x, y = figures
    sound = [o.figures for seeds in outcomes.values() for o in seeds.values() if not o.diverged]
    return tuple((there[x], there[y]) for there in sound if x in there and y in there)
