"""Labels: what stands beside and below the plot of a chart, and what is said of values that it leaves out."""

from __future__ import annotations

from collections.abc import Sequence

from lreg_tui.charts import frame
from lreg_tui.charts.axes import ticks
from lreg_tui.charts.curve import Curve
from lreg_tui.charts.plot import Picture, Sheet

NARROWEST_TICKS = 8  # columns from one label of the x axis to the next
LONGEST_NAME = 6  # of an x axis, beside its labels; a longer one stands in the head


def write_axes(sheet: Sheet, picture: Picture, has_labels: bool) -> None:
    """Levels with their labels and lines; below the plot, where there is room, the labels of x."""
    assert picture.x is not None and picture.y is not None
    levels = ticks(picture.y, max(picture.height // 3, 2), sheet.unit)
    name = len(sheet.x_name) if len(sheet.x_name) <= LONGEST_NAME else 0
    picture.left = min(max([len(tick.label) for tick in levels] + [name]) + 1, sheet.width // 2)
    picture.width = sheet.width - picture.left
    for tick in levels:
        if (row := picture.row_of(tick.value)) is not None:
            picture.frame.put(0, row, tick.label.rjust(picture.left - 1), frame.QUIET)
            picture.frame.fill(picture.left, row, picture.width, frame.GRID_LINE, frame.GRID)
    if has_labels:
        _write_x_labels(sheet, picture)


def _write_x_labels(sheet: Sheet, picture: Picture) -> None:
    assert picture.x is not None
    row, free = sheet.height - 1, 0
    if len(sheet.x_name) < picture.left:
        picture.frame.put(0, row, sheet.x_name.rjust(picture.left - 1), frame.FAINT)
        free = picture.left
    for tick in ticks(picture.x, picture.width // NARROWEST_TICKS, sheet.x_unit):
        column = picture.column_of(tick.value)
        if column is None:
            continue
        start = min(max(column - len(tick.label) // 2, free), sheet.width - len(tick.label))
        if start >= free:
            picture.frame.put(start, row, tick.label, frame.QUIET)
            free = start + len(tick.label) + 2


def write_left_out(sheet: Sheet, picture: Picture, curves: Sequence[Curve]) -> None:
    """Say in the corner how many values a log axis leaves out."""
    count = sum(curve.left_out(sheet.log_y) for curve in curves)
    if count:
        said = f"{count:,} not above 0 left out"
        if len(said) <= picture.width:
            line = picture.top + any(len(curve.breaks) for curve in curves)  # marks of these are on the edge
            picture.frame.put(sheet.width - len(said), line, said, frame.QUIET)
