"""What a figure is made of: panels with lines and points, and whose they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.base.errors import LregError, printable
from engine.comparison import Arm, MetricAt, TaskOutcomes, TaskResult, collect, radii_of, reference_arm
from engine.comparison.outcomes import Outcomes, chosen_radius, chosen_tasks, refuse
from engine.comparison.statistics import interval_of, values_of

KINDS = ARM, UNTRAINED, BASELINE = "arm", "untrained", "baseline"
MOST_TASKS = 12  # on one page
Estimate = tuple[float, float, float]
"""A mean over meta-seeds of the means over their optimizees, and the ends of its 95% t-interval (of one: itself)."""


@dataclass(frozen=True)
class Who:
    """Whose data a line or point is. `number` counts within its `kind`; arm 0 is the reference.

    `label` is text from strangers.
    """

    kind: str
    number: int
    label: str


@dataclass(frozen=True)
class Axis:
    """`name`: of a metric, or in words. `scale`: log or linear. `radius`: what the metric was measured at. `unit` and
    `label`: the metric's, where they are not lreg's own to know; text from strangers.
    """

    name: str
    scale: str = "linear"
    radius: str = ""
    unit: str = ""
    label: str = ""


@dataclass(frozen=True)
class Line:
    """A line through (x, y), with a band from low to high around it, or bars where `bars`.

    `dash`: solid or dashed; empty: as all lines of its kind. `notes`: a word at each point, or nothing. `breaks`:
    where a value could not be drawn, and the value: not finite, or about as large as floats go. y is NaN where
    there is nothing else.
    """

    who: Who
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    bars: bool = False
    notes: tuple[str, ...] = ()
    breaks: tuple[tuple[float, float], ...] = ()
    dash: str = ""


@dataclass(frozen=True)
class Point:
    """A mean with an interval in x and in y (each: middle, low, high), and the single optimizees behind it."""

    who: Who
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    cloud: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...] = ()
    points: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Block:
    """One figure: its panels, and a sentence for the caption."""

    figure: str
    panels: tuple[Panel, ...]
    caption: str


def in_order(arms: Sequence[Arm]) -> list[Arm]:
    """The reference arm first, then the others as they were given: the numbers of `Who`."""
    reference = reference_arm(arms)
    return [reference, *(arm for arm in arms if arm is not reference)]


def whose(panels: Sequence[Panel]) -> list[Who]:
    """Everybody who has data in some panel: arms, untrained, baselines, each in their order."""
    people = {line.who for panel in panels for line in panel.lines}
    people |= {point.who for panel in panels for point in panel.points}
    return sorted(people, key=lambda who: (KINDS.index(who.kind), who.number))


def scale_for(values: Sequence[float], least: float = 3.0) -> str:
    """log where all values are positive and spread over more than a factor `least`, else linear."""
    return "log" if values and min(values) > 0 and max(values) > least * min(values) else "linear"


@dataclass(frozen=True)
class Evaluated:
    """The transfer evaluations of some arms: at the marks, and along the learning curves."""

    arms: Sequence[Arm]
    marks: Mapping[str, TaskOutcomes]
    curves: Mapping[str, TaskOutcomes]
    damaged: int
    radius: str
    step: int | None

    @property
    def ordered_arms(self) -> list[Arm]:
        """The reference arm first, then the others as they were given."""
        return in_order(self.arms)

    def everybody(self, task: TaskOutcomes) -> dict[Who, TaskResult]:
        """Arms at scale 1, untrained learned optimizers (equal ones together), baselines: as far as evaluated.

        Each looks the same in every panel: baselines are numbered in the order of all their names.
        """
        arms = self.ordered_arms
        numbers = {arm.label: number for number, arm in enumerate(arms)}
        people = {Who(ARM, numbers[arm.label], arm.label): entry for arm in arms if (entry := task.main(arm))}
        for label, (name, entry) in task.without_training(arms).items():
            people[Who(UNTRAINED, numbers[label], name)] = entry
        tasks = (*self.marks.values(), *self.curves.values())
        baselines = sorted({label for outcomes in tasks for label in outcomes.baselines})
        for label, entry in task.baselines.items():
            people[Who(BASELINE, baselines.index(label), label)] = entry
        return dict(sorted(people.items(), key=lambda item: (KINDS.index(item[0].kind), item[0].number)))


def evaluated(
    arms: Sequence[Arm], task: str | None = None, step: int | None = None, radius: float | None = None
) -> Evaluated:
    """Read all that the arms' runs hold. Raises LregError where a task, step or radius was not evaluated."""
    marks, damaged = collect(arms)
    curves, _ = collect(arms, curves=True)
    chosen = {outcomes.name: outcomes for outcomes in chosen_tasks(marks, task)}
    if len(chosen) > MOST_TASKS:
        names = ", ".join(map(printable, chosen))
        raise LregError(f"{len(chosen)} tasks are too many for one page; choose with --task: {names}")
    steps = {at for outcomes in chosen.values() for at in outcomes.steps}
    if step is not None and step not in steps:
        refuse("--step", step, sorted(steps))
    curves = {name: curves[name] for name in chosen if name in curves}
    return Evaluated(arms, chosen, curves, damaged, chosen_radius(radii_of(chosen.values()), radius) or "", step)


def estimate(outcomes: Outcomes, at: MetricAt) -> Estimate | None:
    """Of the optimizees that did not diverge; None where nothing was measured."""
    interval = interval_of(outcomes, at)
    if interval.mean is None:
        return None
    if interval.low is None or interval.high is None:
        return interval.mean, interval.mean, interval.mean
    return interval.mean, interval.low, interval.high


def drawn(outcomes: Outcomes, at: MetricAt) -> Estimate | None:
    """The same for a figure. Of two meta-seeds, whose t-interval is 13 standard errors and would hide everything, the
    means of both in place of its ends.
    """
    means = [math.fsum(values.values()) / len(values) for values in values_of(outcomes, at).values() if values]
    return (sum(means) / 2, min(means), max(means)) if len(means) == 2 else estimate(outcomes, at)
