"""Curve: a line made ready to be drawn, kept while records are appended, so that only these are looked at again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lreg_tui.charts import decimate, smoothing
from lreg_tui.charts.axes import LARGEST, LEAST_POWER, Scale
from lreg_tui.charts.decimate import Spans, Track
from lreg_tui.charts.growing import Elapsed
from lreg_tui.charts.line import Line

if TYPE_CHECKING:
    from numpy import ndarray

PART = 2**16  # records looked at in one go
CHECKED = 64  # records that are compared to tell appended data from other data


class Curve:
    """Arrays of a Line with x in order, and what was computed of them last time. They may be float32.

    `told` are the values as they were recorded, `y` those that can be drawn: what is not finite, or about as large as
    floats go, is a gap in it. `breaks` are the places of these gaps.
    """

    def __init__(self, line: Line, by_time: bool = False) -> None:
        self.line = line
        self.by_time = by_time
        self.latest: int | None = None  # index of the last record
        self._load()

    def take(self, line: Line, by_time: bool) -> bool:
        """Go on with a newer state of the line; True if there is anything new to draw."""
        old = self.line
        self.line = line
        look = (line.label, line.colour, line.marker, line.dim) != (old.label, old.colour, old.marker, old.dim)
        same = by_time == self.by_time and line.errors is old.errors
        if same and _continues(old, line):
            if len(line.y) == len(old.y):
                return look
            self._append(len(old.y))
        else:
            self.by_time = by_time
            self._load()
        return True

    def _load(self) -> None:
        import numpy

        self.x, self.y = _floats(self._source()), _floats(self.line.y)
        self.errors = None if self.line.errors is None else numpy.asarray(self.line.errors, dtype=float)
        self.breaks = numpy.empty(0, dtype=int)
        self._was_tidied = self._tidy(0)
        self._tracks: dict[bool, Track] = {}  # y as it is, and what of it a log axis shows
        self._smoothed: dict[tuple[float, bool], tuple[Track, smoothing.UnrollState]] = {}
        self._left_out = 0
        self._forget()

    def _append(self, before: int) -> None:
        if self._was_tidied or len(self.x) != before:  # what is here is no longer what the source begins with
            self._load()
            return
        self.x, self.y = _floats(self._source()), _floats(self.line.y)
        if self._tidy(before):
            self._load()
        self._forget()

    def _source(self) -> ndarray:
        """x of the records; none on a time axis where no times are known."""
        import numpy

        if not self.by_time:
            return self.line.x
        times = self.line.times
        if times is None:
            return numpy.empty(0)
        return times.first(len(self.line.y)) if isinstance(times, Elapsed) else times

    def _tidy(self, start: int) -> bool:
        """Put what strangers have written in order, looking at the records from `start` on; True if that was needed."""
        import numpy

        length = min(len(self.x), len(self.y))
        self.x, self.y = self.x[:length], self.y[:length]
        tail = self.x[max(start - 1, 0) :]
        in_order = not len(tail) or bool(-LARGEST <= tail.min() and tail.max() <= LARGEST and _never_falls(tail))
        if not in_order:
            kept = numpy.flatnonzero(numpy.abs(self.x) <= LARGEST)
            kept = kept[numpy.argsort(self.x[kept], kind="stable")]
            self.x, self.y = self.x[kept], self.y[kept]
            self.errors = None if self.errors is None or len(self.errors) < length else self.errors[kept]
        self.told = self.y
        breaks = _breaks(self.y[start:])
        self.breaks = numpy.concatenate((self.breaks[: self.breaks.searchsorted(start)], breaks + start))
        is_endless = bool(len(breaks)) and not numpy.isnan(self.y[breaks + start]).all()
        if is_endless:
            self.y = self.y.astype(float)
            self.y[self.breaks] = numpy.nan
        return not in_order or is_endless

    def _forget(self) -> None:
        self._spans: dict[tuple[Scale, int, bool, float], Spans] = {}
        self.latest = len(self.y) - 1 if len(self.y) else None

    @property
    def is_empty(self) -> bool:
        """True if there is nothing that can be drawn."""
        return len(self.breaks) == len(self.y)

    def values(self, log: bool) -> ndarray:
        """y; on a log axis with gaps where it is not above 0."""
        return self._track(log).values

    def _track(self, log: bool) -> Track:
        import numpy

        track = self._tracks.setdefault(log, Track())
        done = len(track.values)
        if done == len(self.y):
            return track
        new = self.y[done:]
        if log:
            self._left_out += int(numpy.count_nonzero(new <= 0))
        if log and self._left_out:
            track.append(len(new), lambda room: numpy.copyto(room, numpy.where(new > 0, new, numpy.nan)))
        else:
            track.extend_to(self.y)
        return track

    def left_out(self, log: bool) -> int:
        """How many values a log axis cannot show."""
        return self._left_out if log and len(self.values(True)) else 0

    def smooth(self, weight: float, log: bool) -> ndarray:
        """The smoothed values; in the logarithm on a log axis."""
        return self._smooth_track(weight, log).values

    def _smooth_track(self, weight: float, log: bool) -> Track:
        apply = smoothing.in_log_space if log else smoothing.exponential
        track, carry = self._smoothed.get((weight, log), (Track(), (0.0, 0.0)))
        done = len(track.values)
        if done < len(self.y):
            self._smoothed = {}  # before there is another
            carries = [carry]
            new = self.y[done:]
            track.append(len(new), lambda room: carries.append(apply(new, weight, carry, room)[1]))
            self._smoothed = {(weight, log): (track, carries[-1])}
        return track

    def spans(self, scale: Scale, columns: int, log_y: bool, weight: float = 0.0) -> Spans:
        """What to draw in each column of the x axis, smoothed where `weight` is above 0."""
        key = (scale, columns, log_y, weight)
        if key not in self._spans:
            track = self._smooth_track(weight, log_y) if weight else self._track(log_y)
            self._spans = {known: found for known, found in self._spans.items() if known[0] == scale}
            self._spans[key] = decimate.spans(self.x, track, scale.edges(columns), scale.log, log_y)
        return self._spans[key]

    def inside(self, scale: Scale) -> slice:
        """The records within the x axis."""
        import numpy

        first, last = numpy.searchsorted(self.x, scale.low, "left"), numpy.searchsorted(self.x, scale.high, "right")
        return slice(int(first), int(last))

    def nearest(self, x: float, log: bool = False) -> int | None:
        """Index of the record at or nearest to x, the last of several."""
        import numpy

        if not len(self.x):
            return None
        right = int(numpy.searchsorted(self.x, x, "right"))
        around = [index for index in (right - 1, right) if 0 <= index < len(self.x)]
        if log:
            place = _exponent(x)
            return min(around, key=lambda index: abs(_exponent(float(self.x[index])) - place))
        return min(around, key=lambda index: abs(float(self.x[index]) - x))


def _floats(values: ndarray) -> ndarray:
    import numpy

    values = numpy.asarray(values)
    return values if values.dtype in (numpy.float32, numpy.float64) else values.astype(float)


def _never_falls(values: ndarray) -> bool:
    """Looked at in parts: there may be very many."""
    parts = (values[start : start + PART + 1] for start in range(0, len(values), PART))
    return all((part[1:] >= part[:-1]).all() for part in parts)


def _breaks(values: ndarray) -> ndarray:
    """Places of the values that cannot be drawn. Looked at in parts: there may be very many values."""
    import numpy

    found = [numpy.empty(0, dtype=int)]
    for start in range(0, len(values), PART):
        part = values[start : start + PART]
        if not (-LARGEST <= float(part.min()) and float(part.max()) <= LARGEST):  # false for NaN as well
            found.append(start + numpy.flatnonzero(~(numpy.abs(part.astype(float)) <= LARGEST)))
    return numpy.concatenate(found)


def _exponent(x: float) -> float:
    """log10, and the least one where there is none."""
    return math.log10(x) if x > 0 else LEAST_POWER


def _continues(old: Line, new: Line) -> bool:
    """True if the new arrays begin with the old ones. Told by some of their records, however many there are."""
    import numpy

    for before, now in ((old.x, new.x), (old.y, new.y), (old.times, new.times)):
        if before is now:
            continue
        if not isinstance(before, numpy.ndarray) or not isinstance(now, numpy.ndarray):
            return False
        if not len(before) or len(now) < len(before):
            return False
        places = numpy.linspace(0, len(before) - 1, min(len(before), CHECKED)).astype(int)
        if not numpy.array_equal(before[places], now[places], equal_nan=True):
            return False
    return len(new.x) == len(new.y)
