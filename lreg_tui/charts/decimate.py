"""From any number of records to what each column of dots must show, so that no spike is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from lreg_tui.charts.growing import Growing

if TYPE_CHECKING:
    from numpy import ndarray

BLOCK = 64  # records


class Spans(NamedTuple):
    """What a polyline does in each of W columns. y is log10 on a log axis; NaN where there is nothing."""

    low: ndarray  # [W], of the records and of the polyline where it crosses the column's borders
    high: ndarray  # [W]
    borders: ndarray  # [W + 1], the polyline at the borders
    records: tuple[ndarray, ndarray]  # lowest and highest record, [W] each


def bounds(x: ndarray, edges: ndarray) -> ndarray:
    """Indices that cut the records into columns, shape [W + 1]; the last column holds its right border too."""
    import numpy

    found = numpy.searchsorted(x, edges, "left")
    found[-1] = numpy.searchsorted(x, edges[-1], "right")
    return found


class Track:
    """A growing array of values. Of its full blocks the least and greatest value are known beforehand."""

    def __init__(self, values: ndarray | None = None) -> None:
        import numpy

        self.values = numpy.empty(0)
        self._low, self._high = Growing(), Growing()  # of each full block
        self._own: Growing | None = None  # what the values are in, once something was appended
        if values is not None:
            self.extend_to(values)

    def extend_to(self, values: ndarray) -> None:
        """Take an array that begins with the present one. Only what is new in it is read."""
        import numpy

        known, full = len(self._low.values), len(values) // BLOCK
        blocks = values[known * BLOCK : full * BLOCK].reshape(-1, BLOCK)
        numpy.fmin.reduce(blocks, axis=1, out=self._low.grow(full - known))
        numpy.fmax.reduce(blocks, axis=1, out=self._high.grow(full - known))
        self.values = values

    def append(self, count: int, fill: Callable[[ndarray], object]) -> None:
        """Add so many values, which `fill` writes into the array that it gets."""
        if self._own is None:
            self._own = Growing()
            self._own.grow(len(self.values))[:] = self.values
        fill(self._own.grow(count))
        self.extend_to(self._own.values)

    def extremes(self, cuts: ndarray) -> tuple[ndarray, ndarray]:
        """Least and greatest finite value between each two cuts, shape [W + 1]; NaN where there is none, [W] each."""
        if cuts[-1] - cuts[0] <= 4 * BLOCK * len(cuts):
            return _reduced(self.values, self.values, cuts[:-1], cuts[1:])
        return self._by_blocks(cuts)

    def _by_blocks(self, cuts: ndarray) -> tuple[ndarray, ndarray]:
        """Whole blocks between the cuts, and the records on both sides of each cut within its block."""
        import numpy

        starts, stops = -(-cuts[:-1] // BLOCK), cuts[1:] // BLOCK
        low, high = _reduced(self._low.values, self._high.values, starts, stops)
        for first, last in ((cuts[:-1], starts * BLOCK), (stops * BLOCK, cuts[1:])):
            places = numpy.maximum(first, cuts[:-1])[:, None] + numpy.arange(BLOCK)
            inside = places < numpy.minimum(last, cuts[1:])[:, None]
            values = numpy.where(inside, self.values[numpy.minimum(places, len(self.values) - 1)], numpy.nan)
            low = numpy.fmin(low, numpy.fmin.reduce(values, axis=1))
            high = numpy.fmax(high, numpy.fmax.reduce(values, axis=1))
        return low, high


def _reduced(lows: ndarray, highs: ndarray, starts: ndarray, stops: ndarray) -> tuple[ndarray, ndarray]:
    """Least of `lows` and greatest of `highs` from each start to its stop; neither ever decreases."""
    import numpy

    low = numpy.full(len(starts), numpy.nan)
    high = low.copy()
    filled = stops > starts
    if filled.any():
        first, last = starts[filled][0], stops[filled][-1]
        pairs = numpy.stack((starts[filled], stops[filled]), axis=1).reshape(-1) - first
        pairs = pairs[:-1]  # the last stop is the end of the part
        low[filled] = numpy.fmin.reduceat(lows[first:last], pairs)[::2]
        high[filled] = numpy.fmax.reduceat(highs[first:last], pairs)[::2]
    return low, high


def spans(x: ndarray, track: Track, edges: ndarray, log_x: bool = False, log_y: bool = False) -> Spans:
    """The polyline through records (x, track.values), x not decreasing, in columns between `edges`, shape [W + 1].

    NaN is a gap; a log y axis needs values above 0 or NaN. Lines between records are straight on the screen.
    """
    import numpy

    cuts = bounds(x, edges)
    with numpy.errstate(invalid="ignore", divide="ignore"):
        lowest, highest = (numpy.log10(part) if log_y else part for part in track.extremes(cuts))
        borders = _at_borders(x, track.values, edges, cuts, log_x, log_y)
        low = numpy.fmin(lowest, numpy.fmin(borders[:-1], borders[1:]))
        high = numpy.fmax(highest, numpy.fmax(borders[:-1], borders[1:]))
    return Spans(low, high, borders, (lowest, highest))


def _at_borders(x: ndarray, y: ndarray, edges: ndarray, cuts: ndarray, log_x: bool, log_y: bool) -> ndarray:
    import numpy

    between = (cuts > 0) & (cuts < len(x))
    right = cuts[between]
    found = numpy.full(len(edges), numpy.nan)
    places = [x[right - 1], edges[between], x[right]]
    before, here, after = (numpy.log10(place) if log_x else place for place in places)
    ends = (y[index].astype(float) for index in (right - 1, right))
    start, end = (numpy.log10(value) if log_y else value for value in ends)
    found[between] = start + (end - start) * ((here - before) / (after - before))
    for border, record in ((0, cuts[0]), (-1, cuts[-1] - 1)):  # the first and the last record may lie on a border
        if 0 <= record < len(x) and x[record] == edges[border]:
            found[border] = numpy.log10(y[record]) if log_y else y[record]
    found[~numpy.isfinite(found)] = numpy.nan
    return found
