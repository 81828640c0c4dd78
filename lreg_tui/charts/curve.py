"""ChartLine: what a chart draws. Curve: a line made ready to be drawn, smoothed and as what each column shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from lreg_tui.charts.arrays import numpy
from lreg_tui.charts.axes import LARGEST, LEAST_POWER, AxisScale

SMOOTHING_STEPS = (0.0, 0.6, 0.9, 0.99, 0.999)
"""Weights that a key goes through: the share of the past in each smoothed value."""

CHUNK = 2**15  # values worked on at a time: they stay in the cache


def exponential(values: numpy.ndarray, weight: float, log: bool = False) -> numpy.ndarray:
    """Weighted means of all values so far, shape as `values`; `log`: of their logarithms, with gaps at 0 and less.

    s_t = Σ_j w^(t-j) v_j / Σ_j w^(t-j) over the finite v_j, j ≤ t: no bias to 0 at the start. A gap stays a gap.
    """
    smoothed, above, below = numpy.empty(len(values)), 0.0, 0.0
    for start in range(0, len(values), CHUNK):
        chunk = values[start : start + CHUNK].astype(float)
        with numpy.errstate(invalid="ignore", divide="ignore"):
            chunk = numpy.log(chunk) if log else chunk
            is_finite = numpy.isfinite(chunk)
            totals = _recurrence(numpy.where(is_finite, chunk, 0.0), weight, above)
            is_steady = is_finite.all() and abs(below * (1.0 - weight) - 1.0) < 1e-14  # the sum of all weights
            shares = numpy.array([below]) if is_steady else _recurrence(is_finite.astype(float), weight, below)
            means = numpy.where(is_finite, totals / shares, numpy.nan)
        smoothed[start : start + CHUNK] = numpy.exp(means) if log else means
        above, below = float(totals[-1]), float(shares[-1])
    return smoothed


def _recurrence(values: numpy.ndarray, weight: float, start: float) -> numpy.ndarray:
    """r_t = w r_(t-1) + v_t from r_(-1) = start, by sums over 1, 2, 4, ... values (Hillis and Steele 1986).

    No matrix product: on a busy machine the threads of a BLAS wait for each other many times as long as this takes.
    """
    sums, span = values.copy(), 1
    sums[0] += weight * start
    while span < len(sums) and (factor := weight**span):
        sums[span:] += factor * sums[:-span]
        span *= 2
    return sums


@dataclass(frozen=True, eq=False)
class ChartLine:
    """One run's curve (or set of points). The label may be from strangers; arrays are float64 (y: or 32) of one length.

    `x` never decreases (meta-steps); `y` has gaps where it is not finite. On a time axis, `times` take the place of
    `x`: seconds since the run's first record. `errors` are half-widths of intervals.
    `colour` counts through `themes.SERIES` and `themes.MARKERS`.
    """

    label: str
    x: numpy.ndarray
    y: numpy.ndarray
    colour: int = 0
    dim: bool = False
    times: numpy.ndarray | None = None
    errors: numpy.ndarray | None = None

    @classmethod
    def between(cls, label: str, x: Any, y: Any, low: Any, high: Any, **look: Any) -> ChartLine:
        """A line with intervals from `low` to `high`."""
        errors = numpy.subtract(high, low) / 2
        return cls(label, numpy.asarray(x, dtype=float), numpy.asarray(y, dtype=float), errors=errors, **look)


class Spans(NamedTuple):
    """What a polyline does in each of W columns. y is log10 on a log axis; NaN where there is nothing."""

    low: numpy.ndarray  # [W], of the records and of the polyline where it crosses the column's borders
    high: numpy.ndarray  # [W]
    borders: numpy.ndarray  # [W + 1], the polyline at the borders
    records: tuple[numpy.ndarray, numpy.ndarray]  # lowest and highest record, [W] each


class Curve:
    """Arrays of a line with x in order, and what was computed of them. They may be float32.

    `told` are the values as they were recorded, `y` those that can be drawn: what is not finite, or about as large as
    floats go, is a gap in it. `breaks` are the places of these gaps.
    """

    def __init__(self, line: ChartLine, by_time: bool = False) -> None:
        self.line, self.by_time = line, by_time
        source = line.x if not by_time else numpy.empty(0) if line.times is None else line.times
        length = min(len(source), len(line.y))
        self.x, self.told = _floats(source[:length]), _floats(line.y[:length])
        self.errors = None if line.errors is None else numpy.asarray(line.errors, dtype=float)
        if not (_is_drawable(self.x).all() and (self.x[1:] >= self.x[:-1]).all()):  # put strangers' records in order
            drawable = numpy.flatnonzero(_is_drawable(self.x))
            drawable = drawable[numpy.argsort(self.x[drawable], kind="stable")]
            self.x, self.told = self.x[drawable], self.told[drawable]
            self.errors = None if self.errors is None or len(self.errors) < length else self.errors[drawable]
        self.y = self.told
        self.breaks = numpy.flatnonzero(~_is_drawable(self.y))
        if not numpy.isnan(self.y[self.breaks]).all():
            self.y = self.y.copy()
            self.y[self.breaks] = numpy.nan
        self.latest = len(self.y) - 1 if len(self.y) else None
        self._positive: numpy.ndarray | None = None  # what of y a log axis shows
        self._smoothed: dict[tuple[float, bool], numpy.ndarray] = {}
        self._spans: dict[tuple[AxisScale, int, bool, float], Spans] = {}

    def is_of(self, line: ChartLine, by_time: bool) -> bool:
        """True if a line looks the same and holds the same arrays."""
        ours = self.line
        looks = [(each.label, each.colour, each.dim) for each in (ours, line)]
        names = ("x", "y", "times", "errors")
        arrays_are_same = all(getattr(ours, name) is getattr(line, name) for name in names)
        return by_time == self.by_time and looks[0] == looks[1] and arrays_are_same

    @property
    def is_empty(self) -> bool:
        return len(self.breaks) == len(self.y)

    def values(self, log: bool) -> numpy.ndarray:
        """y; on a log axis with gaps where it is not above 0."""
        if not log:
            return self.y
        if self._positive is None:
            self._positive = numpy.where(self.y > 0, self.y, numpy.nan) if self._count_left_out() else self.y
        return self._positive

    def left_out(self, log: bool) -> int:
        """How many values a log axis cannot show."""
        return self._count_left_out() if log and self.values(True) is not self.y else 0

    def _count_left_out(self) -> int:
        return int(numpy.count_nonzero(self.y <= 0))

    def smooth(self, weight: float, log: bool) -> numpy.ndarray:
        """The smoothed values; in the logarithm on a log axis."""
        if (weight, log) not in self._smoothed:
            self._smoothed.clear()  # they are long
            self._smoothed[weight, log] = exponential(self.y, weight, log)
        return self._smoothed[weight, log]

    def spans(self, scale: AxisScale, columns: int, log_y: bool, weight: float = 0.0) -> Spans:
        """What to draw in each column of the x axis, smoothed where `weight` is above 0."""
        key = (scale, columns, log_y, weight)
        if key not in self._spans:
            values = self.smooth(weight, log_y) if weight else self.values(log_y)
            self._spans = {other: spans for other, spans in self._spans.items() if other[0] == scale}
            self._spans[key] = decimate(self.x, values, scale.edges(columns), scale.log, log_y)
        return self._spans[key]

    def inside(self, scale: AxisScale) -> slice:
        first, last = numpy.searchsorted(self.x, scale.low, "left"), numpy.searchsorted(self.x, scale.high, "right")
        return slice(int(first), int(last))

    def nearest(self, x: float, log: bool = False) -> int | None:
        """Index of the record at or nearest to x, the last of several."""
        if not len(self.x):
            return None
        right = int(numpy.searchsorted(self.x, x, "right"))
        around = [index for index in (right - 1, right) if 0 <= index < len(self.x)]
        if log:
            exponent = _exponent(x)
            return min(around, key=lambda index: abs(_exponent(float(self.x[index])) - exponent))
        return min(around, key=lambda index: abs(float(self.x[index]) - x))


def _floats(values: numpy.ndarray) -> numpy.ndarray:
    values = numpy.asarray(values)
    return values if values.dtype in (numpy.float32, numpy.float64) else values.astype(float)


def _is_drawable(values: numpy.ndarray) -> numpy.ndarray:
    return numpy.abs(values) <= min(LARGEST, float(numpy.finfo(values.dtype).max))


def _exponent(x: float) -> float:
    """log10, and the least one where there is none."""
    return math.log10(x) if x > 0 else LEAST_POWER


# -- from any number of records to what each column of dots must show, so that no spike is lost -----------------------


def decimate(
    x: numpy.ndarray, y: numpy.ndarray, edges: numpy.ndarray, log_x: bool = False, log_y: bool = False
) -> Spans:
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
    before, edge, after = (numpy.log10(value) if log_x else value for value in (x[right - 1], edges[between], x[right]))
    ends = (y[index].astype(float) for index in (right - 1, right))
    start, end = (numpy.log10(value) if log_y else value for value in ends)
    levels[between] = start + (end - start) * ((edge - before) / (after - before))
    for border, record in ((0, cuts[0]), (-1, cuts[-1] - 1)):  # the first and the last record may lie on a border
        if 0 <= record < len(x) and x[record] == edges[border]:
            levels[border] = numpy.log10(y[record]) if log_y else y[record]
    levels[~numpy.isfinite(levels)] = numpy.nan
    return levels
