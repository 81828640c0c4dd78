"""Cursor: which records it stops at, what lines are worth there, and how it is drawn; and the legend, which says it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lreg_tui import present
from lreg_tui.charts import frame
from lreg_tui.charts.axes import Scale
from lreg_tui.charts.curve import Curve
from lreg_tui.charts.legend import Entry
from lreg_tui.charts.marks import look

if TYPE_CHECKING:
    from lreg_tui.charts.picture import Picture, Sheet

LABEL_LENGTH = 60
SLACK = 0.01  # of the axis: how far beyond its last record a line still has a value


def record_near(curves: Sequence[Curve], scale: Scale, x: float) -> float | None:
    """x of the record of all lines that is nearest on the screen."""
    places = [float(curve.x[index]) for curve in curves if (index := curve.nearest(x, scale.log)) is not None]
    places = [place for place in places if not scale.log or place > 0]
    return min(places, key=lambda place: abs(scale.place(place) - scale.place(x))) if places else None


def record_beside(curves: Sequence[Curve], x: float, right: bool) -> float | None:
    """x of the record of all lines that is next to `x` on one side; None at the end."""
    import numpy

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
            place = picture.column_of(float(curve.x[index])), picture.row_of(value_of(sheet, curve, index))
            if place[0] is not None and place[1] is not None:
                picture.frame.put(place[0], place[1], *look(curve))


def record_at(sheet: Sheet, picture: Picture, curve: Curve) -> int | None:
    """Index of the record whose value is told: the one nearest to the cursor, or without a cursor the last finite."""
    if sheet.cursor is None or curve.latest is None or picture.x is None:
        return curve.latest
    index = curve.nearest(sheet.cursor, sheet.log_x)
    first, last = (picture.x.place(float(curve.x[end])) for end in (0, -1))
    place = picture.x.place(sheet.cursor)
    is_within = not place < first - SLACK and not place > last + SLACK  # a place is NaN for 0 on a log axis
    return index if is_within and not math.isnan(place) else None


def value_of(sheet: Sheet, curve: Curve, index: int) -> float:
    """A record's value, smoothed if lines are."""
    smoothed = sheet.smoothing and not sheet.points_only
    return float((curve.smooth(sheet.smoothing, sheet.log_y) if smoothed else curve.y)[index])


def entries(sheet: Sheet, picture: Picture) -> list[Entry]:
    """The legend: values at the cursor, or the latest ones; ≈ before smoothed ones. Of points, labels only."""
    found = []
    for curve in sheet.curves:
        label, value = present.clean(curve.line.label, LABEL_LENGTH), ""
        if sheet.cursor is not None or not sheet.points_only:
            index = record_at(sheet, picture, curve)
            number = math.nan if index is None else value_of(sheet, curve, index)
            approx = "≈" if sheet.smoothing and not sheet.points_only and math.isfinite(number) else ""
            value = approx + sheet.show(number)
        found.append(Entry(look(curve)[0], label, value, look(curve)[1]))
    return found
