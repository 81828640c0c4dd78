"""Line: what a chart draws. Curve: a line made ready to be drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lreg_tui.charts import decimate, smoothing
from lreg_tui.charts.arrays import numpy
from lreg_tui.charts.axes import LARGEST, LEAST_POWER, Scale
from lreg_tui.charts.decimate import Spans


@dataclass(frozen=True, eq=False)
class Line:
    """One run's curve (or set of points). The label may be from strangers; arrays are float64 (y: or 32) of one length.

    `x` never decreases (meta-steps); `y` has gaps where it is not finite. On a time axis, `times` take the place of
    `x`: seconds since the run's first record. `errors` are half-widths of intervals.
    `colour` counts through `themes.SERIES`, `marker` through `themes.MARKERS` (None: as the colour).
    """

    label: str
    x: numpy.ndarray
    y: numpy.ndarray
    colour: int = 0
    marker: int | None = None
    dim: bool = False
    times: numpy.ndarray | None = None
    errors: numpy.ndarray | None = None


class Curve:
    """Arrays of a Line with x in order, and what was computed of them. They may be float32.

    `told` are the values as they were recorded, `y` those that can be drawn: what is not finite, or about as large as
    floats go, is a gap in it. `breaks` are the places of these gaps.
    """

    def __init__(self, line: Line, by_time: bool = False) -> None:
        self.line, self.by_time = line, by_time
        source = line.x if not by_time else numpy.empty(0) if line.times is None else line.times
        length = min(len(source), len(line.y))
        self.x, self.told = _floats(source[:length]), _floats(line.y[:length])
        self.errors = None if line.errors is None else numpy.asarray(line.errors, dtype=float)
        if not (_is_drawable(self.x).all() and (self.x[1:] >= self.x[:-1]).all()):  # put strangers' records in order
            kept = numpy.flatnonzero(_is_drawable(self.x))
            kept = kept[numpy.argsort(self.x[kept], kind="stable")]
            self.x, self.told = self.x[kept], self.told[kept]
            self.errors = None if self.errors is None or len(self.errors) < length else self.errors[kept]
        self.y = self.told
        self.breaks = numpy.flatnonzero(~_is_drawable(self.y))
        if not numpy.isnan(self.y[self.breaks]).all():
            self.y = self.y.copy()
            self.y[self.breaks] = numpy.nan
        self.latest = len(self.y) - 1 if len(self.y) else None
        self._positive: numpy.ndarray | None = None  # what of y a log axis shows
        self._smoothed: dict[tuple[float, bool], numpy.ndarray] = {}
        self._spans: dict[tuple[Scale, int, bool, float], Spans] = {}

    def is_of(self, line: Line, by_time: bool) -> bool:
        """True if a line looks the same and holds the same arrays."""
        ours = self.line
        looks = [(each.label, each.colour, each.marker, each.dim) for each in (ours, line)]
        names = ("x", "y", "times", "errors")
        arrays_are_same = all(getattr(ours, name) is getattr(line, name) for name in names)
        return by_time == self.by_time and looks[0] == looks[1] and arrays_are_same

    @property
    def is_empty(self) -> bool:
        """True if there is nothing that can be drawn."""
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
            self._smoothed[weight, log] = smoothing.exponential(self.y, weight, log)
        return self._smoothed[weight, log]

    def spans(self, scale: Scale, columns: int, log_y: bool, weight: float = 0.0) -> Spans:
        """What to draw in each column of the x axis, smoothed where `weight` is above 0."""
        key = (scale, columns, log_y, weight)
        if key not in self._spans:
            values = self.smooth(weight, log_y) if weight else self.values(log_y)
            self._spans = {other: spans for other, spans in self._spans.items() if other[0] == scale}
            self._spans[key] = decimate.spans(self.x, values, scale.edges(columns), scale.log, log_y)
        return self._spans[key]

    def inside(self, scale: Scale) -> slice:
        """The records within the x axis."""
        first, last = numpy.searchsorted(self.x, scale.low, "left"), numpy.searchsorted(self.x, scale.high, "right")
        return slice(int(first), int(last))

    def nearest(self, x: float, log: bool = False) -> int | None:
        """Index of the record at or nearest to x, the last of several."""
        if not len(self.x):
            return None
        right = int(numpy.searchsorted(self.x, x, "right"))
        around = [index for index in (right - 1, right) if 0 <= index < len(self.x)]
        if log:
            place = _exponent(x)
            return min(around, key=lambda index: abs(_exponent(float(self.x[index])) - place))
        return min(around, key=lambda index: abs(float(self.x[index]) - x))


def _floats(values: numpy.ndarray) -> numpy.ndarray:
    values = numpy.asarray(values)
    return values if values.dtype in (numpy.float32, numpy.float64) else values.astype(float)


def _is_drawable(values: numpy.ndarray) -> numpy.ndarray:
    return numpy.abs(values) <= min(LARGEST, float(numpy.finfo(values.dtype).max))


def _exponent(x: float) -> float:
    """log10, and the least one where there is none."""
    return math.log10(x) if x > 0 else LEAST_POWER
