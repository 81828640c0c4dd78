"""Axes: from values to places, ranges that end at round numbers, ticks that show the original values; and views."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from lreg_tui.charts.arrays import numpy

Range = tuple[float, float]
UNITS = ("", "percent", "bytes", "seconds", "count")  # percent: values are shares of 1; count: whole numbers
BOUNDS: dict[str, Range] = {"": (-math.inf, math.inf), "percent": (0.0, 1.0)}  # within which values are; others: from 0
TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)  # s
LARGEST = 1e300  # what is beyond counts as endless, so that differences stay finite
SMALLEST = 1e-300  # no range is shorter
LEAST_POWER, GREATEST_POWER = -323.3, 308.25  # of ten that a float can hold
ENOUGH = 4  # powers of ten on a log axis that need no ticks between them
LEAST, MOST = 1e-3, 1e4  # numbers outside are written with an exponent or a unit prefix


@dataclass(frozen=True)
class AxisScale:
    """Places between 0 and 1 for the values from `low` to `high`; on a log scale both are above 0."""

    low: float
    high: float
    log: bool = False

    @property
    def ends(self) -> Range:
        """In the units of the axis: on a log scale exponents of ten."""
        return (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)

    @classmethod
    def between(cls, ends: Range, log: bool) -> AxisScale:
        """From one end to the other, as in `ends`."""
        return cls(power(ends[0]), power(ends[1]), True) if log else cls(*ends)

    def at(self, value: float) -> float:
        """A value in the units of the axis; NaN for one that a log scale cannot show."""
        return value if not self.log else math.log10(value) if value > 0 else math.nan

    def position(self, value: float) -> float:
        low, high = self.ends
        return (self.at(value) - low) / (high - low)

    def value(self, position: float) -> float:
        low, high = self.ends
        along = low + position * (high - low)
        return 10.0**along if self.log else along

    def edges(self, count: int) -> numpy.ndarray:
        """The values at the borders of `count` stretches of one length, shape [count + 1]."""
        edges = numpy.linspace(*self.ends, count + 1)
        edges = 10.0**edges if self.log else edges
        edges[0], edges[-1] = self.low, self.high  # what lies on them must not be lost to rounding
        return edges

    def cells(self, values: numpy.ndarray, count: int) -> numpy.ndarray:
        """Which of `count` stretches, 0 at the low end, values lie in, as floats; log10 of values on a log scale."""
        low, high = self.ends
        with numpy.errstate(over="ignore", invalid="ignore"):  # what is far outside may be endlessly far
            cells = numpy.floor((values - low) * (count / (high - low)))
        return numpy.where((cells == count) & (values <= high), count - 1, cells)


class Tick(NamedTuple):
    value: float
    label: str


def nice_step(length: float) -> float:
    """The least of 1, 2, 5, 10, 20, … (or 0.5, 0.2, …) that is not below `length`."""
    if not SMALLEST < length < math.inf:
        return 1.0
    power = 10.0 ** math.floor(math.log10(length))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= length * (1 - 1e-9))


def round_out(low: float, high: float, log: bool = False, parts: int = 10, unit: str = "") -> Range:
    """A range around the values whose ends are round, so that it seldom changes while values come in.

    It does not leave what a unit allows, unless values do: no share above 100%, no count below 0.
    """
    least, most = BOUNDS.get(unit, (0.0, math.inf))
    if log:
        bottom, top = _log_range(low, high, parts)
        return bottom, min(top, most) if high <= most else top
    largest = max(abs(low), abs(high))
    if not high - low > max(1e-9 * largest, SMALLEST):
        rounded = _around(low, high, unit)
    else:
        step = nice_step((high - low) / parts)
        rounded = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    ends = max(rounded[0], least) if low >= least else rounded[0], min(rounded[1], most) if high <= most else rounded[1]
    return ends if all(map(math.isfinite, ends)) else (low, high)


def _around(low: float, high: float, unit: str) -> Range:
    """A narrow range around what is but one value."""
    largest = max(abs(low), abs(high))
    if unit in ("count", "bytes", "seconds"):
        half = max(math.floor(0.1 * largest), 1.0)
    else:
        half = 0.1 * largest if largest > SMALLEST else 0.1
    return low - half, high + half


def _log_range(low: float, high: float, parts: int) -> Range:
    bottom, top = math.log10(low), math.log10(high)
    if top - bottom < 1e-6:
        bottom, top = bottom - 0.3, top + 0.3
    step = nice_step((top - bottom) / parts)
    bottom, top = math.floor(bottom / step + 1e-9) * step, math.ceil(top / step - 1e-9) * step
    least, most = power(bottom), power(top)
    return (least, most) if least < most else (least, 10 * least)  # at the least that a float can hold


def power(exponent: float) -> float:
    """10 to the exponent, as near to it as floats above 0 go."""
    return 10.0 ** min(max(exponent, LEAST_POWER), GREATEST_POWER)


def ticks(scale: AxisScale, most: int, unit: str = "") -> list[Tick]:
    """Up to about `most` round values within the scale, and how they are written."""
    if most < 1:
        return []
    values = _log_values(scale, most) if scale.log else None
    if values is None:
        return _linear_ticks(scale, most, unit)
    return [Tick(value, write(value, value, value, unit)) for value in values]


def _linear_ticks(scale: AxisScale, most: int, unit: str) -> list[Tick]:
    unit = unit if unit != "count" or scale.high - scale.low >= 1 else ""
    step = _step((scale.high - scale.low) / most, max(abs(scale.low), abs(scale.high)), unit)
    first = math.ceil(scale.low / step - 1e-9)
    last = math.floor(scale.high / step + 1e-9)
    top = max(abs(first), abs(last)) * step
    values = [number * step for number in range(first, min(last, first + 4 * most) + 1)]
    return [Tick(value, write(value, step, top, unit)) for value in values]


def _step(length: float, top: float, unit: str) -> float:
    if unit == "seconds":
        whole_step = next((float(step) for step in TIME_STEPS if step >= length * (1 - 1e-9)), None)
        return (whole_step or nice_step(length / 86400) * 86400) if length > 0.5 else nice_step(length)
    size = 1024.0 ** _prefix(top, 1024) if unit == "bytes" else 1.0
    step = nice_step(length / size) * size
    return max(step, 1.0) if unit == "count" else step


def _log_values(scale: AxisScale, most: int) -> list[float] | None:
    """Powers of ten, with 2 and 5 times them where there is room; None where less than two values were found."""
    low, high = (math.floor(end) for end in scale.ends)
    exponents = [exponent for exponent in range(low, high + 2) if _within(power(exponent), scale)]
    stride = -(-len(exponents) // most)
    values = [power(exponent) for exponent in exponents if exponent % stride == 0]
    for factors in ((1.0, 3.0), (1.0, 2.0, 5.0)) if len(values) < ENOUGH else ():
        every = [factor * power(exponent) for exponent in range(low, high + 1) for factor in factors]
        every = [value for value in every if _within(value, scale)]
        values = every if len(values) < len(every) <= max(most, 3) else values
    return values if len(values) >= 2 else None


def _within(value: float, scale: AxisScale) -> bool:
    return scale.low * (1 - 1e-9) <= value <= scale.high * (1 + 1e-9)


def write(value: float, step: float, top: float, unit: str = "") -> str:
    """A tick's label with the digits that tell it from its neighbour `step` away; `top` is the axis's largest value."""
    if abs(value) < 1e-9 * abs(step):
        return "0%" if unit == "percent" else "0"
    if unit == "seconds":
        return _clock(value, step)
    if unit == "percent":
        return f"{_plain(100 * value, 100 * step, 100 * top)}%"
    if unit == "bytes":
        prefix = _prefix(top, 1024)
        size = 1024.0**prefix
        return f"{_plain(value / size, step / size, top / size)} {('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[prefix]}"
    return _plain(value, step, top)


def _plain(value: float, step: float, top: float) -> str:
    prefix = min(_prefix(value, 1000), 4)
    if abs(top) >= MOST and abs(value) < 1e15 and step >= 0.01 * 1000.0**prefix:
        size = 1000.0**prefix
        return f"{round(value / size, _decimals(step / size)):.12g}{('', 'k', 'M', 'G', 'T')[prefix]}"
    if abs(top) < LEAST or abs(value) >= 1e15:
        digits = max(0, math.floor(math.log10(abs(value)) + 1e-9) - math.floor(math.log10(step) + 1e-9))
        mantissa, _, exponent = f"{value:.{min(digits, 12)}e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.{_decimals(step)}f}"


def _decimals(step: float) -> int:
    return min(12, max(0, -math.floor(math.log10(step) + 1e-9)))


def _prefix(value: float, base: int) -> int:
    """How many thousands, times thousands, … a value has: 0 for less than `base`, 1 for less than its square."""
    return max(0, min(5, math.floor(math.log(abs(value)) / math.log(base) + 1e-9))) if value else 0


def _clock(value: float, step: float) -> str:
    """A time in the two units that its neighbours need: 45s, 5m, 1m30, 2h, 2h30, 3d, 1d12."""
    if step < 1:
        return f"{value:.{_decimals(step)}f}s"
    sign, whole = "-" if value < 0 else "", round(abs(value))
    for size, unit, smaller in ((86400, "d", 3600), (3600, "h", 60), (60, "m", 1)):
        if whole >= size:
            remainder = whole % size // smaller
            return f"{sign}{whole // size}{unit}" + (f"{remainder:02d}" if remainder else "")
    return f"{sign}{whole}s"


CLOSEST = 1e-9  # of the whole range: no zoom beyond
KEPT = 0.1  # share of the view that always has data in it, however far one pans


@dataclass(frozen=True)
class View:
    """Ranges that are shown, of exponents of ten on a log axis; None: all there is. A following view slides with the
    newest.
    """

    x: Range | None = None
    y: Range | None = None
    following: bool = False

    def zoom_x(self, position: float, factor: float, now: Range, full: Range) -> View:
        """Make the range that is shown `now` as many times as long; what is at the `position`, 0 to 1, stays there."""
        return replace(self, x=kept(zoomed(now, position, factor), full), following=False)

    def pan_x(self, share: float, now: Range, full: Range) -> View:
        """Move by a share of the range that is shown; where that is all, there is nothing to move to."""
        return self if self.x is None else replace(self, x=kept(panned(now, share), full), following=False)

    def zoom_y(self, position: float, factor: float, now: Range) -> View:
        return replace(self, y=zoomed(now, position, factor))

    def pan_y(self, share: float, now: Range) -> View:
        return replace(self, y=panned(now, share))

    def follow(self, full: Range) -> View:
        """Keep the newest in sight: the length that is shown now, or the last quarter where that was all."""
        return replace(self, x=self.x or zoomed(full, 1.0, 0.25), following=True)

    def shown_x(self, full: Range, newest: float) -> Range:
        """The range of the x axis: that of the data, the one chosen, or as much up to the newest.

        A following range moves in steps, so that most new records leave the axis as it is.
        """
        if self.x is None or not self.following:
            return self.x or full
        length = self.x[1] - self.x[0]
        step = nice_step(length / 10)
        end = math.ceil(newest / step - 1e-9) * step
        return end - length, end


def usable(chosen: Range | None, log: bool) -> Range | None:
    """A chosen range, unless floats do not go so far."""
    least, most = (LEAST_POWER, GREATEST_POWER) if log else (-LARGEST, LARGEST)
    return chosen if chosen is not None and least <= chosen[0] < chosen[1] <= most else None


def zoomed(visible: Range, position: float, factor: float) -> Range:
    """A range `factor` times as long around a place in it; the same one where floats are at their end."""
    low, high = visible
    middle = low + position * (high - low)
    ends = middle - (middle - low) * factor, middle + (high - middle) * factor
    return ends if ends[1] - ends[0] > max(1e-12 * max(map(abs, ends)), SMALLEST) else visible


def panned(visible: Range, share: float) -> Range:
    shift = share * (visible[1] - visible[0])
    return visible[0] + shift, visible[1] + shift


def kept(visible: Range, full: Range) -> Range | None:
    """The range, no further from the data than `KEPT` allows; None where it would hold all of them and more."""
    (low, high), (first, last) = visible, full
    length = high - low
    if length >= (last - first) * (1 - 1e-9):
        return None
    if length < (last - first) * CLOSEST:
        middle, length = (low + high) / 2, (last - first) * CLOSEST
        low, high = middle - length / 2, middle + length / 2
    shift = max(first + KEPT * length - high, 0.0) + min(last - KEPT * length - low, 0.0)
    return low + shift, high + shift
