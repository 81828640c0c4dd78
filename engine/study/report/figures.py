"""The report's figures as data: those of `lreg plot` on the winners' runs, and the candidates along their axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from engine.base.errors import LregError
from engine.base.settings import show
from engine.base.status import is_number
from engine.comparison import Arm, ArmRun
from engine.figures import Axis as Scale
from engine.figures import Block, Line, Panel, blocks, evaluated
from engine.figures import Point as Dot
from engine.figures.base import ARM, Who, scale_for
from engine.figures.evaluated import MOST_TASKS, Evaluated
from engine.runs.reader import RunReader
from engine.runs.results import mean
from engine.runs.writer import slug
from engine.study.plan.plan import Axis
from engine.study.plan.state import Candidate
from engine.study.report.evidence import Evidence

TRANSFERRED = ("curves", "sharpness", "accuracy", "frontier")
MOST_LINES = 8  # of a panel; with more, points
CANDIDATES = "candidates"
WIDE = 2.0  # values that spread over more than this factor get a logarithmic axis


def figures(found: Evidence) -> Iterator[tuple[str, Block]]:
    """File names and what is drawn there; what there are no data for is left out."""
    arms = _in_order(found)
    if arms:
        yield from _of_runs(found, arms)
    if panels := list(_candidates(found)):
        metric = found.plan.pick.metric.replace("_", " ")
        caption = f"Candidates: {metric}, mean over meta-seeds with its 95% t-interval, along the axes of each arm."
        yield "candidates.png", Block("candidates", tuple(panels), caption)


def _in_order(found: Evidence) -> list[Arm]:
    """The reference arm first."""
    return sorted(found.arms.values(), key=lambda arm: arm.label != found.plan.reference)


def _of_runs(found: Evidence, arms: Sequence[Arm]) -> Iterator[tuple[str, Block]]:
    fresh = [replace(arm, runs=tuple(map(_unread, arm.runs))) for arm in arms]
    names = list(found.tasks) if len(found.tasks) > MOST_TASKS else [None]
    for index, name in enumerate(names):
        data = evaluated(fresh, task=name)
        if index == 0:
            yield from _drawn(data, ["meta-loss"])
        yield from _drawn(data, TRANSFERRED, f"-{slug(name)}" if name else "")


def _unread(run: ArmRun) -> ArmRun:
    """With a reader of its own, so that what is read for a figure is let go again."""
    return replace(run, reader=RunReader(run.reader.path))


def _drawn(data: Evaluated, wanted: Sequence[str], ending: str = "") -> Iterator[tuple[str, Block]]:
    for figure in wanted:
        try:
            (block,) = blocks(data, [figure])
        except LregError:  # there are no data for it: the tables say what is missing
            continue
        yield f"{figure}{ending}.png", block


def _candidates(found: Evidence) -> Iterator[Panel]:
    """A panel for each axis of numbers that has more than one value."""
    labels = {found.plan.reference: 0}  # the reference is black everywhere
    metric = found.plan.pick.metric
    for arm in found.plan.arms:
        there = [item for item in found.candidates_of(arm.name) if item.value is not None]
        for axis in arm.axes:
            panel = _panel(arm.name, axis, there, found, metric, labels)
            if panel is not None:
                yield panel


def _panel(
    arm: str, axis: Axis, there: Sequence[Candidate], found: Evidence, metric: str, labels: dict[str, int]
) -> Panel | None:
    at = [item.point[axis.key] for item in there]
    if len(set(map(str, at))) < 2 or not all(is_number(value) for value in at):
        return None
    groups: dict[str, list[Candidate]] = {}
    for item in sorted(there, key=lambda item: float(item.point[axis.key])):
        others = [f"{_short(key)} = {show(value)}" for key, value in item.point.items() if key != axis.key]
        groups.setdefault(", ".join(others) or CANDIDATES, []).append(item)
    if found.plan.search is not None or len(groups) > MOST_LINES:
        who = Who(ARM, labels.setdefault(CANDIDATES, len(labels)), CANDIDATES)
        marks = tuple(Dot(who, (x, x, x), _estimate(item)) for x, item in zip(map(float, at), there, strict=True))
        lines: tuple[Line, ...] = ()
    else:
        marks = ()
        lines = tuple(
            _line(Who(ARM, labels.setdefault(label, len(labels)), label), axis, items)
            for label, items in groups.items()
        )
    values = [_estimate(item)[0] for item in there]
    x = Scale(axis.key, scale_for([float(value) for value in at], WIDE))
    lines = (*_reference(found, arm, min(map(float, at)), max(map(float, at))), *lines)
    return Panel(arm, x, Scale(metric, scale_for(values)), lines, marks)


def _reference(found: Evidence, arm: str, low: float, high: float) -> Iterator[Line]:
    """The reference arm's winner, as a level across the panel."""
    winner = found.winners.get(found.plan.reference)
    if winner is not None and arm != winner.arm:
        level, bottom, top = ((value, value) for value in _estimate(winner))
        yield Line(Who(ARM, 0, winner.arm), (low, high), level, bottom, top)


def _line(who: Who, axis: Axis, items: Sequence[Candidate]) -> Line:
    middle, low, high = (tuple(part) for part in zip(*map(_estimate, items), strict=True))
    return Line(who, tuple(float(item.point[axis.key]) for item in items), middle, low, high, bars=True)


def _estimate(item: Candidate) -> tuple[float, float, float]:
    value = mean(cell.value for cell in item.cells)
    middle, half = value.mean or 0.0, value.ci95 or 0.0
    return middle, middle - half, middle + half


def _short(key: str) -> str:
    return key.rpartition(".")[2]
