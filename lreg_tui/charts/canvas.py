"""Braille: four by two dots in each character cell. Rows count from the bottom, columns from the left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lreg_tui.charts.axes import Scale
from lreg_tui.charts.decimate import Spans

if TYPE_CHECKING:
    from numpy import ndarray

DOTS_DOWN, DOTS_ACROSS = 4, 2  # in a cell
BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of U+2800, from the top left dot
BLANK = 0x2800


def dots_of(spans: Spans, scale: Scale, height: int) -> ndarray:
    """Dots of a polyline, bool [4 height, columns], the top row first; parts beyond the scale are cut off."""
    import numpy

    count = DOTS_DOWN * height
    low, high = (scale.cells(part, count) for part in (spans.low, spans.high))
    borders = scale.cells(spans.borders, count)
    least, most = (scale.cells(part, count) for part in spans.records)
    start, end, goes_on = borders[:-1], borders[1:], numpy.isfinite(borders[1:])
    # the next column begins in the row in which this one ends: drawn in one of them only, lines stay thin
    with numpy.errstate(invalid="ignore"):
        high = numpy.where(goes_on & (end > start) & (high == end) & ~(most >= end), high - 1, high)
        low = numpy.where(goes_on & (end < start) & (low == end) & ~(least <= end), low + 1, low)
        rows = numpy.arange(count)[::-1, None]
        return (rows >= low) & (rows <= high)


def bars(columns: ndarray, low: ndarray, high: ndarray, width: int, height: int) -> ndarray:
    """Dots of upright bars, bool [4 height, width], from row `low` to row `high` in each of the columns."""
    import numpy

    dots = numpy.zeros((DOTS_DOWN * height, width), dtype=bool)
    rows = numpy.arange(DOTS_DOWN * height)[::-1, None]
    with numpy.errstate(invalid="ignore"):
        inside = (columns >= 0) & (columns < width)
        for column, bottom, top in zip(columns[inside].astype(int), low[inside], high[inside], strict=True):
            dots[:, column] |= ((rows >= bottom) & (rows <= top))[:, 0]
    return dots


def codes(dots: ndarray) -> ndarray:
    """Bits of each cell, uint8 [height, width], of dots, bool [4 height, 2 width]."""
    import numpy

    cells = dots.reshape(dots.shape[0] // DOTS_DOWN, DOTS_DOWN, dots.shape[1] // DOTS_ACROSS, DOTS_ACROSS)
    return numpy.einsum("rdcp,dp->rc", cells, numpy.array(BITS, dtype=numpy.uint8), dtype=numpy.uint8, casting="unsafe")
