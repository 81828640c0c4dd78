"""View: which part of the data a chart shows. Pure arithmetic on ranges, even steps in the logarithm on a log axis."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lreg_tui.charts.axes import LARGEST, SMALLEST, Range, Scale, nice_step, power

CLOSEST = 1e-9  # of the whole range: no zoom beyond
KEPT = 0.1  # share of the view that always has data in it, however far one pans


@dataclass(frozen=True)
class View:
    """Ranges that are shown, in values of the axes; None: all there is. A following view slides with the newest."""

    x: Range | None = None
    y: Range | None = None
    following: bool = False

    def zoom_x(self, at: float, factor: float, full: Range, log: bool) -> View:
        """Make the range `factor` times as long; the value `at` stays where it is."""
        return replace(self, x=kept(zoomed(usable(self.x, log) or full, at, factor, log), full, log), following=False)

    def pan_x(self, share: float, full: Range, log: bool) -> View:
        """Move by a share of the range that is shown."""
        shown = usable(self.x, log)
        if shown is None:  # all is shown: there is nothing to move to
            return self
        return replace(self, x=kept(panned(shown, share, log), full, log), following=False)

    def zoom_y(self, at: float, factor: float, now: Range, log: bool) -> View:
        """`now` is what the y axis shows at the moment, where the view leaves that to the data."""
        return replace(self, y=zoomed(usable(self.y, log) or now, at, factor, log))

    def pan_y(self, share: float, now: Range, log: bool) -> View:
        return replace(self, y=panned(usable(self.y, log) or now, share, log))

    def follow(self, full: Range, log: bool) -> View:
        """Keep the newest in sight: the length that is shown now, or the last quarter where that was all."""
        window = usable(self.x, log) or zoomed(full, full[1], 0.25, log)
        return replace(self, x=window, following=True)

    def shown_x(self, full: Range, newest: float, log: bool) -> Range:
        """The range of the x axis: that of the data, the one chosen, or as much up to the newest.

        A following range moves in steps, so that most new records leave the axis as it is.
        """
        shown = usable(self.x, log)
        if shown is None or not self.following:
            return shown or full
        low, high = Scale(*shown, log).ends
        step = nice_step((high - low) / 10)
        end = math.ceil((math.log10(newest) if log else newest) / step - 1e-9) * step
        return _checked(_back((end - (high - low), end), log), full)


def usable(chosen: Range | None, log: bool) -> Range | None:
    """A chosen range, unless a log axis cannot show it."""
    return chosen if chosen is not None and (not log or chosen[0] > 0) else None


def zoomed(shown: Range, at: float, factor: float, log: bool) -> Range:
    """A range `factor` times as long in which `at` keeps its place; the same one where floats are at their end."""
    scale = Scale(*shown, log)
    low, high = scale.ends
    middle = min(max(low + scale.place(at) * (high - low), low), high) if not log or at > 0 else low
    found = middle - (middle - low) * factor, middle + (high - middle) * factor
    if found[1] - found[0] <= max(1e-12 * max(abs(found[0]), abs(found[1])), SMALLEST):
        return shown
    return _checked(_back(found, log), shown)


def panned(shown: Range, share: float, log: bool) -> Range:
    low, high = Scale(*shown, log).ends
    shift = share * (high - low)
    return _checked(_back((low + shift, high + shift), log), shown)


def kept(shown: Range, full: Range, log: bool) -> Range | None:
    """The range, no further from the data than `KEPT` allows; None where it would hold all of them and more."""
    (low, high), (first, last) = Scale(*shown, log).ends, Scale(*full, log).ends
    length = high - low
    if length >= (last - first) * (1 - 1e-9):
        return None
    if length < (last - first) * CLOSEST:
        middle, length = (low + high) / 2, (last - first) * CLOSEST
        low, high = middle - length / 2, middle + length / 2
    shift = max(first + KEPT * length - high, 0.0) + min(last - KEPT * length - low, 0.0)
    return _back((low + shift, high + shift), log) if shift else _back((low, high), log)


def _back(ends: Range, log: bool) -> Range:
    if not log:
        return ends
    return power(ends[0]), power(ends[1])


def _checked(found: Range, otherwise: Range) -> Range:
    return found if -LARGEST <= found[0] < found[1] <= LARGEST else otherwise
