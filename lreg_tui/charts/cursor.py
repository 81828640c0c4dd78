"""Cursor: which records it stops at, what lines are worth there, and how it is drawn; and the legend, which says it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lreg_tui.charts import frame
from lreg_tui.charts.arrays import numpy
from lreg_tui.charts.axes import Scale
from lreg_tui.charts.curve import Curve
from lreg_tui.charts.legend import Entry
from lreg_tui.charts.marks import look
from lreg_tui.charts.plot import Picture, Sheet
from lreg_tui.text import present

LABEL_LENGTH = 60
SLACK = 0.01  # of the axis: how far beyond its last record a line still has a value


def record_near(curves: Sequence[Curve], scale: Scale, x: float) -> float | None:
    """x of the record of all lines that is nearest on the screen; one within the axis, if there is any."""
    places = []
    for curve in curves:
        if (index := curve.nearest(x, scale.log)) is not None:
            part = curve.inside(scale)
            index = max(part.start, min(index, part.stop - 1)) if part.start < part.stop else index
            places.append(float(curve.x[index]))
    places = [place for place in places if not scale.log or place > 0]
    outside = {place: not scale.low <= place <= scale.high for place in places}
    return min(places, key=lambda place: (outside[place], abs(scale.place(place) - scale.place(x))), default=None)


def record_beside(curves: Sequence[Curve], x: float, right: bool) -> float | None:
    """x of the record of all lines that is next to `x` on one side; None at the end."""
    found = []
    for curve in curves:
        index = int(numpy.searchsorted(curve.x, x, "right")) if right else int(numpy.searchsorted(curve.x, x)) - 1
        if 0 <= index < len(curve.x):
            found.append(float(curve.x[index]))
    return (min(found) if right else max(found)) if found else None


def draw(sheet: Sheet, picture: Picture, curves: Sequence[Curve]) -> None:
    """A line across the plot, and each curve's mark on the record that it is nearest to."""
    column = None if sheet.cursor is None else picture.column_of(sheet.cursor)
    if column is None:
        return
    for row in range(picture.top, picture.top + picture.height):
        if picture.frame.chars[row, column] in (" ", frame.GRID_LINE):
            picture.frame.put(column, row, "│", frame.CURSOR)
    for curve in reversed(curves):
        index = record_at(sheet, picture, curve)
        if index is not None:
            place = picture.column_of(float(curve.x[index])), picture.row_of(value_of(sheet, curve, index)[0])
            if place[0] is not None and place[1] is not None:
                picture.frame.put(place[0], place[1], *look(curve))


def record_at(sheet: Sheet, picture: Picture, curve: Curve) -> int | None:
    """Index of the record whose value is told: the one nearest to the cursor, or without a cursor the last."""
    if sheet.cursor is None or curve.latest is None or picture.x is None:
        return curve.latest
    index = curve.nearest(sheet.cursor, sheet.log_x)
    first, last = (picture.x.place(float(curve.x[end])) for end in (0, -1))
    place = picture.x.place(sheet.cursor)
    is_within = not place < first - SLACK and not place > last + SLACK  # a place is NaN for 0 on a log axis
    return index if is_within and not math.isnan(place) else None


def value_of(sheet: Sheet, curve: Curve, index: int) -> tuple[float, bool]:
    """A record's value, and whether it is a smoothed one: so it is where lines are, unless there is a gap in them."""
    if sheet.smoothing and not sheet.points_only:
        smoothed = float(curve.smooth(sheet.smoothing, sheet.log_y)[index])
        if math.isfinite(smoothed):
            return smoothed, True
    return float(curve.told[index]), False


def entries(sheet: Sheet, picture: Picture) -> list[Entry]:
    """The legend: values at the cursor, or the latest ones; ≈ before smoothed ones. Of points, labels only."""
    found = []
    for curve in sheet.curves:
        label, value = present.clean(curve.line.label, LABEL_LENGTH), ""
        if sheet.cursor is not None or not sheet.points_only:
            index = record_at(sheet, picture, curve)
            number, smoothed = (None, False) if index is None else value_of(sheet, curve, index)
            value = "≈" * smoothed + (present.NOTHING if number is None else sheet.show(number))
        found.append(Entry(look(curve)[0], label, value, look(curve)[1]))
    return found
