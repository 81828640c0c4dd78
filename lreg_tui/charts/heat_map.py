"""HeatMap: a two-dimensional array as colours, with contour lines and a scale.

heat = HeatMap("simple (best)")
heat.show(losses, x=(-1, 1), y=(-1, 1), bounds=(0.1, 3.0), log=True)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.cells import cell_len
from rich.segment import Segment, SegmentLines
from rich.style import Style
from textual import events
from textual.color import Color, Gradient
from textual.widget import Widget

from lreg_tui.charts.arrays import numpy
from lreg_tui.charts.axes import Range
from lreg_tui.charts.picture import NOTHING_YET
from lreg_tui.text import present

# viridis (van der Walt & Smith 2015): even steps of brightness, for all kinds of colour vision, and in grey
COLOURS = (  # from the least value to the greatest
    *("#440154", "#482878", "#3e4989", "#31688e", "#26828e"),
    *("#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"),
)
SHADES = "·░▒▓█"
STEPS = 48  # colours of the scale
EMPTY = -1
UNIT: Range = (-1.0, 1.0)
SCALE_WIDTH, LEAST_SCALE = 24, 8  # columns of the colours
BOLD = Style(bold=True)
LEVELS = 6  # bands between contour lines
CONTOUR = 0.3  # how far contour lines go from the colour towards black


class HeatMap(Widget):
    """Two rows of pixels per line of the terminal, shades without colours. Values that are not finite stay empty."""

    DEFAULT_CSS = "HeatMap { width: 1fr; height: 1fr; min-height: 4; }"
    ALLOW_SELECT = False

    def __init__(self, title: str = "") -> None:
        super().__init__()
        self.title = title
        self._values: numpy.ndarray | None = None
        self._x, self._y, self._bounds, self._log = UNIT, UNIT, UNIT, False
        self._instead = NOTHING_YET  # of a map
        self._pointed: tuple[int, int] | None = None  # pixel under the pointer
        self._shares: numpy.ndarray | None = None  # as drawn
        self._gradient = Gradient.from_colors(*COLOURS)

    def show(
        self,
        values: numpy.ndarray | Sequence[Sequence[float]],
        *,
        x: Range = UNIT,
        y: Range = UNIT,
        bounds: Range | None = None,
        log: bool = False,
        title: str | None = None,
    ) -> None:
        """Draw `values`, shape [rows, columns]; row 0 is at the lower end of `y`, column 0 at the lower end of `x`.

        `bounds` is the range of the colours, the same for maps to be compared (None: that of the values); `log` spaces
        colours and contour lines evenly in the logarithm.
        """
        array = numpy.asarray(values, dtype=float)
        ends = span(array, log) if array.ndim == 2 else None
        self._values = None if ends is None else array
        if array.ndim == 2 and array.size:
            self._instead = "nothing above 0 for a log scale" if numpy.isfinite(array).any() else "no finite values"
        else:
            self._instead = NOTHING_YET
        usable = bounds if bounds is not None and (not log or bounds[0] > 0) else None
        self._bounds = usable or ends or UNIT
        self._x, self._y, self._log = x, y, log
        self.title = self.title if title is None else title
        self.refresh()

    # -- drawing -------------------------------------------------------------------------------------------------------

    def render(self) -> SegmentLines:
        width, height = self.size
        self._shares = None
        if self._values is None or height < 3:
            lines = [[Segment(present.shorten(present.clean(self.title), width), BOLD)], *([] for _ in range(height))]
            lines[min(max(height // 2, 1), height - 1)] = [Segment(self._instead.center(width), self._quiet)]
            return SegmentLines(lines[:height], new_lines=True)
        across, down = size_of(width, 2 * (height - 2), self._x, self._y)
        self._shares = shares(self._values, across, down, self._bounds, self._log)
        return SegmentLines([self._head(width), *self._plot(self._shares), self._scale(width)], new_lines=True)

    def _plot(self, places: numpy.ndarray) -> list[list[Segment]]:
        if self.app.no_color:
            return [[Segment(line)] for line in shades(places)]
        pixels = steps(places) + STEPS * contours(places, LEVELS)
        rows = []
        for top, bottom in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
            runs = [(pair, len(list(same))) for pair, same in groupby(zip(top, bottom, strict=True))]
            colours = [(self._colour(above), self._colour(below), length) for (above, below), length in runs]
            rows.append([Segment("▀" * n, Style.from_color(a.rich_color, b.rich_color)) for a, b, n in colours])
        return rows

    def _head(self, width: int) -> list[Segment]:
        pointed = self._told()
        title = present.shorten(present.clean(self.title), max(width - cell_len(pointed) - 2, 0))
        return [Segment(title, BOLD), Segment(" " * max(width - cell_len(title) - cell_len(pointed), 0) + pointed)]

    def _scale(self, width: int) -> list[Segment]:
        """All the colours between their least and greatest value, as wide as there is room; then how far the map goes.

        What there is no room for is left out whole.
        """
        low, high = (present.setting(end, 3) for end in self._bounds)
        after = [f" {high}", " log" if self._log else "", f"   {_extent(self._x, self._y)}"]
        while len(after) > 1 and len(low) + 1 + LEAST_SCALE + sum(map(len, after)) > width:
            after.pop()
        room = max(min(SCALE_WIDTH, width - len(low) - 1 - sum(map(len, after))), 1)
        (colours,) = self._plot(numpy.linspace(0, 1, room)[None].repeat(2, axis=0))
        return [Segment(f"{low} ", self._quiet), *colours, Segment("".join(after), self._quiet)]

    @property
    def _quiet(self) -> Style:
        _, _, background, foreground = self.colors
        return Style(color=background.blend(foreground, 0.6).rich_color)

    def _colour(self, step: int) -> Color:
        if step < 0:
            return self.colors[2]
        colour = self._gradient.get_color((step % STEPS) / (STEPS - 1))
        return colour.blend(Color(0, 0, 0), CONTOUR) if step >= STEPS else colour

    # -- the value under the pointer -----------------------------------------------------------------------------------

    def on_mouse_move(self, event: events.MouseMove) -> None:
        offset = event.get_content_offset(self)
        self._point(None if offset is None else (offset.x, offset.y))

    def on_leave(self, _: events.Leave) -> None:
        self._point(None)

    def _point(self, pointed: tuple[int, int] | None) -> None:
        if pointed != self._pointed:
            self._pointed = pointed
            self.refresh(self.size.region.split_horizontal(1)[0])

    def _told(self) -> str:
        if self._pointed is None or self._shares is None or self._values is None:
            return ""
        down, across = self._shares.shape
        column, row = self._pointed[0], 2 * (self._pointed[1] - 1) + 0.5
        if not (0 <= column < across and 0 <= row < down):
            return ""
        right, up = column / max(across - 1, 1), 1 - row / max(down - 1, 1)
        places = right * (self._values.shape[1] - 1), up * (self._values.shape[0] - 1)
        value = float(self._values[round(places[1]), round(places[0])])
        x, y = (low + share * (high - low) for share, (low, high) in ((right, self._x), (up, self._y)))
        return f"{x:+.2f} {y:+.2f}  {present.number(value)}"


def _extent(x: Range, y: Range) -> str:
    """How far a map goes from its middle, along its two directions."""
    across, up = (
        f"±{present.setting(high, 3)}" if low == -high else f"{present.setting(low, 3)}…{present.setting(high, 3)}"
        for low, high in (x, y)
    )
    return across if across == up else f"{across} × {up}"


# -- a coarse grid of values as fine pixels of a colour scale ----------------------------------------------------------


def span(values: numpy.ndarray, log: bool) -> Range | None:
    """Least and greatest value that can be shown; None where there is none."""
    usable = values[numpy.isfinite(values) & ((values > 0) if log else True)]
    return (float(usable.min()), float(usable.max())) if usable.size else None


def shares(values: numpy.ndarray, width: int, height: int, bounds: Range, log: bool = False) -> numpy.ndarray:
    """Places of the values on the scale, 0 to 1, between the grid's points by straight lines, [height, width].

    Row 0 of `values`, shape [rows, columns], is the lowest, row 0 of the pixels the top one. NaN beside a NaN.
    """
    with numpy.errstate(invalid="ignore", divide="ignore"):
        if log:
            values, bounds = numpy.log(values), (float(numpy.log(bounds[0])), float(numpy.log(bounds[1])))
        values = numpy.where(numpy.isfinite(values), values, numpy.nan)
        low, high = bounds
        fine = _between(_between(values, height, axis=0), width, axis=1)[::-1]
        fractions = (fine - low) / (high - low) if high > low else numpy.where(numpy.isnan(fine), numpy.nan, 0.5)
    return numpy.clip(fractions, 0.0, 1.0)


def _between(values: numpy.ndarray, count: int, axis: int) -> numpy.ndarray:
    """Values at `count` places along an axis, from its first point to its last."""
    places = numpy.linspace(0, values.shape[axis] - 1, count)
    before = numpy.minimum(places.astype(int), max(values.shape[axis] - 2, 0))
    after = numpy.minimum(before + 1, values.shape[axis] - 1)
    share = (places - before).reshape((-1, 1) if axis == 0 else (1, -1))
    left, right = values.take(before, axis), values.take(after, axis)
    return numpy.where(share == 0, left, numpy.where(share == 1, right, left + (right - left) * share))


def steps(share: numpy.ndarray) -> numpy.ndarray:
    """Which colour of the scale each pixel has; EMPTY where there is no value."""
    return numpy.where(numpy.isnan(share), EMPTY, numpy.minimum(numpy.nan_to_num(share) * STEPS, STEPS - 1)).astype(int)


def contours(fractions: numpy.ndarray, levels: int) -> numpy.ndarray:
    """True on pixels just above one of the `levels` - 1 evenly spaced contour levels, bool [height, width]."""
    bands = numpy.where(
        numpy.isnan(fractions), EMPTY, numpy.minimum(numpy.floor(numpy.nan_to_num(fractions) * levels), levels - 1)
    )
    wide = numpy.pad(bands, 1, mode="edge")  # nothing lies beyond the border
    beside = (wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:])
    return numpy.any([(near >= 0) & (bands > near) for near in beside], axis=0)


def shades(fractions: numpy.ndarray) -> list[str]:
    """Lines of characters of growing density, each for two rows of pixels; blank where there is no value."""
    cells = (fractions[::2] + fractions[1::2]) / 2
    index = numpy.minimum(numpy.nan_to_num(cells) * len(SHADES), len(SHADES) - 1).astype(int)
    chars = numpy.where(numpy.isnan(cells), " ", numpy.array(list(SHADES))[index])
    return ["".join(line) for line in chars.tolist()]


def size_of(width: int, height: int, x: Range, y: Range) -> tuple[int, int]:
    """The largest pixels across and down within so many that keep the ranges' proportion; at least two each."""
    ratio = abs(x[1] - x[0]) / abs(y[1] - y[0]) if y[1] != y[0] and x[1] != x[0] else 1.0
    across, down = min(width, round(height * ratio)), min(height, round(width / ratio))
    return max(across, 2), max(down - down % 2, 2)
