"""Legend: each line's mark, label and value in as many rows as there are, or shorter; and the cursor that it is for."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from lreg_tui.charts import frame
from lreg_tui.charts.arrays import numpy
from lreg_tui.charts.axes import AxisScale
from lreg_tui.charts.curve import Curve
from lreg_tui.charts.marks import look
from lreg_tui.charts.plot import Picture, Scene
from lreg_tui.text import present

GAP = 3  # columns between entries
SHORTEST = 8  # columns that a label needs to be told from others
USUAL_VALUE = 6  # columns of most values: room is kept, so that legends do not jump while values change

BETWEEN_WORDS = " -_./"  # of a label

Runs = list[tuple[str, int]]
LABEL_LENGTH = 60
SLACK = 0.01  # of the axis: how far beyond its last record a line still has a value


class LegendEntry(NamedTuple):
    mark: str
    label: str
    value: str
    role: int


def lay_out(entries: Sequence[LegendEntry], width: int, rows: int, whole: bool = False) -> list[Runs]:
    """Runs of text and role for each row of the legend; no rows where it does not fit (`whole`: with all labels)."""
    if not entries or rows < 1:
        return []
    value = max(cell_len(entry.value) for entry in entries)
    value = max(value, USUAL_VALUE) if value else 0
    longest = max(cell_len(entry.label) for entry in entries)
    for used in range(1, rows + 1):
        across = -(-len(entries) // used)
        room = (width + GAP) // across - GAP - 2 - 1 - value
        if room >= longest or (used == rows and room >= SHORTEST and not whole):
            fitted = entries if room >= longest else told_apart(entries)
            label = min(room, max(cell_len(entry.label) for entry in fitted))
            return [_row(fitted[start : start + across], label, value) for start in range(0, len(fitted), across)]
    if not whole and (2 + value + GAP) * len(entries) - GAP <= width:
        return [_row(entries, 0, value)]
    return []


def told_apart(entries: Sequence[LegendEntry]) -> Sequence[LegendEntry]:
    """The entries without the words that all labels begin with, else all that is left where room is short."""
    common = os.path.commonprefix([entry.label for entry in entries])
    words = max(common.rfind(between) + 1 for between in BETWEEN_WORDS)
    if len(entries) < 2 or words < 2:
        return entries
    return [entry._replace(label="…" + entry.label[words:]) for entry in entries]


def _row(entries: Sequence[LegendEntry], label: int, value: int) -> Runs:
    runs: Runs = []
    for number, entry in enumerate(entries):
        is_last = number == len(entries) - 1
        runs.append((f"{entry.mark} ", entry.role))
        if label:
            runs.append((set_cell_size(present.shorten(entry.label, label), label) + " ", frame.QUIET))
        runs.append((entry.value if is_last else entry.value.ljust(value + GAP), frame.VALUE))
    return runs


def entries_of(scene: Scene, picture: Picture) -> list[LegendEntry]:
    """The legend: values at the cursor, or the latest ones; ≈ before smoothed ones. Of points, labels only."""
    found = []
    for curve in scene.curves:
        label, value = present.clean(curve.line.label, LABEL_LENGTH), ""
        if scene.cursor is not None or not scene.points_only:
            index = record_at(scene, picture, curve)
            number, smoothed = (None, False) if index is None else value_of(scene, curve, index)
            value = "≈" * smoothed + (present.NOTHING if number is None else scene.show(number))
        found.append(LegendEntry(look(curve)[0], label, value, look(curve)[1]))
    return found


# -- the cursor: which records it stops at, what lines are worth there, and how it is drawn ----------------------------


def record_near(curves: Sequence[Curve], scale: AxisScale, x: float) -> float | None:
    """x of the record of all lines that is nearest on the screen; one within the axis, if there is any."""
    values = []
    for curve in curves:
        if (index := curve.nearest(x, scale.log)) is not None:
            part = curve.inside(scale)
            index = max(part.start, min(index, part.stop - 1)) if part.start < part.stop else index
            values.append(float(curve.x[index]))
    values = [value for value in values if not scale.log or value > 0]
    outside = {value: not scale.low <= value <= scale.high for value in values}
    return min(values, key=lambda value: (outside[value], abs(scale.position(value) - scale.position(x))), default=None)


def record_beside(curves: Sequence[Curve], x: float, right: bool) -> float | None:
    """x of the record of all lines that is next to `x` on one side; None at the end."""
    candidates = []
    for curve in curves:
        index = int(numpy.searchsorted(curve.x, x, "right")) if right else int(numpy.searchsorted(curve.x, x)) - 1
        if 0 <= index < len(curve.x):
            candidates.append(float(curve.x[index]))
    return (min(candidates) if right else max(candidates)) if candidates else None


def draw_cursor(scene: Scene, picture: Picture, curves: Sequence[Curve]) -> None:
    """A line across the plot, and each curve's mark on the record that it is nearest to."""
    column = None if scene.cursor is None else picture.column_of(scene.cursor)
    if column is None:
        return
    for row in range(picture.top, picture.top + picture.height):
        if picture.frame.chars[row, column] in (" ", frame.GRID_LINE):
            picture.frame.put(column, row, "│", frame.CURSOR)
    for curve in reversed(curves):
        index = record_at(scene, picture, curve)
        if index is not None:
            cell = picture.column_of(float(curve.x[index])), picture.row_of(value_of(scene, curve, index)[0])
            if cell[0] is not None and cell[1] is not None:
                picture.frame.put(cell[0], cell[1], *look(curve))


def record_at(scene: Scene, picture: Picture, curve: Curve) -> int | None:
    """Index of the record whose value is told: the one nearest to the cursor, or without a cursor the last."""
    if scene.cursor is None or curve.latest is None or picture.x is None:
        return curve.latest
    index = curve.nearest(scene.cursor, scene.log_x)
    first, last = (picture.x.position(float(curve.x[end])) for end in (0, -1))
    position = picture.x.position(scene.cursor)
    is_within = not position < first - SLACK and not position > last + SLACK  # a place is NaN for 0 on a log axis
    return index if is_within and not math.isnan(position) else None


def value_of(scene: Scene, curve: Curve, index: int) -> tuple[float, bool]:
    """A record's value, and whether it is a smoothed one: so it is where lines are, unless there is a gap in them."""
    if scene.smoothing and not scene.points_only:
        smoothed = float(curve.smooth(scene.smoothing, scene.log_y)[index])
        if math.isfinite(smoothed):
            return smoothed, True
    return float(curve.told[index]), False
