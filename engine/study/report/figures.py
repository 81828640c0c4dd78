"""The report's figures as data: those of `lreg plot` on the winners' runs, and the candidates along their axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from engine.base.errors import LregError
from engine.base.settings import show
from engine.base.status import is_number
from engine.comparison import Arm
from engine.figures import Axis, Block, Line, Panel, blocks, evaluated
from engine.figures import Point as Dot
from engine.figures.base import ARM, MOST_TASKS, Who, scale_for
from engine.runs.reader import RunReader
from engine.runs.results import mean
from engine.runs.writer import slug
from engine.study.plan.plan import StudyAxis
from engine.study.plan.state import Candidate
from engine.study.report.evidence import Evidence

TRANSFERRED = ("curves", "sharpness", "accuracy", "frontier")
MOST_LINES = 8  # of a panel; with more, points
CANDIDATES = "candidates"
WIDE = 2.0  # values that spread over more than this factor get a logarithmic axis


def figures(study: Evidence) -> Iterator[tuple[str, Block]]:
    """File names and what is drawn there; what there are no data for is left out."""
    if study.arms:
        yield from _of_runs(study)
    if panels := tuple(_candidates(study)):
        metric = study.plan.pick.metric.replace("_", " ")
        caption = f"Candidates: {metric}, mean over meta-seeds with its 95% t-interval, along the axes of each arm."
        yield "candidates.png", Block(CANDIDATES, panels, caption)


def _of_runs(study: Evidence) -> Iterator[tuple[str, Block]]:
    arms = sorted(map(_fresh, study.arms.values()), key=lambda arm: arm.label != study.plan.reference)
    names = list(study.tasks) if len(study.tasks) > MOST_TASKS else [None]
    for index, name in enumerate(names):
        data = evaluated(arms, task=name)
        for figure in ("meta-loss", *TRANSFERRED) if index == 0 else TRANSFERRED:
            ending = f"-{slug(name)}" if name and figure in TRANSFERRED else ""
            try:
                (block,) = blocks(data, [figure])
            except LregError:  # there are no data for it: the tables say what is missing
                continue
            yield f"{figure}{ending}.png", block


def _fresh(arm: Arm) -> Arm:
    """With readers of its own, so that what is read for a figure is let go again."""
    return replace(arm, runs=tuple(replace(run, reader=RunReader(run.reader.path)) for run in arm.runs))


def _candidates(study: Evidence) -> Iterator[Panel]:
    """A panel for each axis of numbers that has more than one value."""
    labels = {study.plan.reference: 0}  # the reference is black everywhere
    for arm in study.plan.arms:
        complete = [item for item in study.candidates_of(arm.name) if item.value is not None]
        for axis in arm.axes:
            at = [item.point[axis.key] for item in complete]
            if len(set(map(str, at))) > 1 and all(map(is_number, at)):
                along = sorted(complete, key=lambda item: float(item.point[axis.key]))
                yield _panel(study, arm.name, axis, along, labels)


def _panel(study: Evidence, arm: str, axis: StudyAxis, along: Sequence[Candidate], labels: dict[str, int]) -> Panel:
    groups: dict[str, list[Candidate]] = {}
    for item in along:
        others = [f"{key.rpartition('.')[2]} = {show(value)}" for key, value in item.point.items() if key != axis.key]
        groups.setdefault(", ".join(others) or CANDIDATES, []).append(item)
    at = [float(item.point[axis.key]) for item in along]
    lines, marks = [], []
    winner = study.winners.get(study.plan.reference)
    if winner is not None and arm != winner.arm:  # as a level across the panel
        level, bottom, top = ((value, value) for value in _estimate(winner))
        lines.append(Line(Who(ARM, 0, winner.arm), (at[0], at[-1]), level, bottom, top))
    if study.plan.search is not None or len(groups) > MOST_LINES:
        who = Who(ARM, labels.setdefault(CANDIDATES, len(labels)), CANDIDATES)
        marks = [Dot(who, (x, x, x), _estimate(item)) for x, item in zip(at, along, strict=True)]
    else:
        for label, items in groups.items():
            who = Who(ARM, labels.setdefault(label, len(labels)), label)
            middle, low, high = (tuple(part) for part in zip(*map(_estimate, items), strict=True))
            lines.append(Line(who, tuple(float(i.point[axis.key]) for i in items), middle, low, high, bars=True))
    y = Axis(study.plan.pick.metric, scale_for([_estimate(item)[0] for item in along]))
    return Panel(arm, Axis(axis.key, scale_for(at, WIDE)), y, tuple(lines), tuple(marks))


def _estimate(item: Candidate) -> tuple[float, float, float]:
    value = mean(cell.value for cell in item.cells)
    middle, half = value.mean or 0.0, value.ci95 or 0.0
    return middle, middle - half, middle + half
