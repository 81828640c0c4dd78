"""What a figure is made of: panels with lines and points, and whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.comparison import Arm, reference_arm

KINDS = ARM, UNTRAINED, BASELINE = "arm", "untrained", "baseline"


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
