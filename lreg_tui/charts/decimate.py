"""From any number of records to what each column of dots must show, so that no spike is lost."""

from __future__ import annotations

from typing import NamedTuple

from lreg_tui.charts.arrays import numpy


class Spans(NamedTuple):
    """What a polyline does in each of W columns. y is log10 on a log axis; NaN where there is nothing."""

    low: numpy.ndarray  # [W], of the records and of the polyline where it crosses the column's borders
    high: numpy.ndarray  # [W]
    borders: numpy.ndarray  # [W + 1], the polyline at the borders
    records: tuple[numpy.ndarray, numpy.ndarray]  # lowest and highest record, [W] each


def spans(x: numpy.ndarray, y: numpy.ndarray, edges: numpy.ndarray, log_x: bool = False, log_y: bool = False) -> Spans:
    """The polyline through records (x, y), x not decreasing, in columns between `edges`, shape [W + 1].

    NaN is a gap; a log y axis needs values above 0 or NaN. Lines between records are straight on the screen.
    """
    cuts = numpy.searchsorted(x, edges, "left")
    cuts[-1] = numpy.searchsorted(x, edges[-1], "right")  # the last column holds its right border too
    with numpy.errstate(invalid="ignore", divide="ignore"):
        lowest, highest = (numpy.log10(part) if log_y else part for part in _extremes(y, cuts))
        borders = _at_borders(x, y, edges, cuts, log_x, log_y)
        low = numpy.fmin(lowest, numpy.fmin(borders[:-1], borders[1:]))
        high = numpy.fmax(highest, numpy.fmax(borders[:-1], borders[1:]))
    return Spans(low, high, borders, (lowest, highest))


def _extremes(values: numpy.ndarray, cuts: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Least and greatest finite value between each two cuts, shape [W + 1]; NaN where there is none, [W] each."""
    low = numpy.full(len(cuts) - 1, numpy.nan)
    high = low.copy()
    filled = cuts[1:] > cuts[:-1]
    if filled.any():
        starts, values = cuts[:-1][filled], values[: cuts[-1]]  # each column ends where the next filled one starts
        low[filled], high[filled] = numpy.fmin.reduceat(values, starts), numpy.fmax.reduceat(values, starts)
    return low, high


def _at_borders(
    x: numpy.ndarray, y: numpy.ndarray, edges: numpy.ndarray, cuts: numpy.ndarray, log_x: bool, log_y: bool
) -> numpy.ndarray:
    between = (cuts > 0) & (cuts < len(x))
    right = cuts[between]
    levels = numpy.full(len(edges), numpy.nan)
    before, here, after = (numpy.log10(place) if log_x else place for place in (x[right - 1], edges[between], x[right]))
    ends = (y[index].astype(float) for index in (right - 1, right))
    start, end = (numpy.log10(value) if log_y else value for value in ends)
    levels[between] = start + (end - start) * ((here - before) / (after - before))
    for border, record in ((0, cuts[0]), (-1, cuts[-1] - 1)):  # the first and the last record may lie on a border
        if 0 <= record < len(x) and x[record] == edges[border]:
            levels[border] = numpy.log10(y[record]) if log_y else y[record]
    levels[~numpy.isfinite(levels)] = numpy.nan
    return levels
