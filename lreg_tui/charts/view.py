"""View: which part of the data a chart shows. Pure arithmetic on ranges, in the units of the axes: `Scale.ends`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lreg_tui.charts.axes import GREATEST_POWER, LARGEST, LEAST_POWER, SMALLEST, Range, nice_step

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
