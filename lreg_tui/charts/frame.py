"""Frame: a grid of characters with a role for the colour of each, and where it differs from the frame before; Canvas, a
widget that shows one in the colours of the theme.

Lines are drawn in braille: four by two dots in each character cell. Rows count from the bottom, columns from the left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.strip import Strip
from textual.widget import Widget

from lreg_tui.charts.arrays import numpy
from lreg_tui.charts.axes import AxisScale, Range, View
from lreg_tui.charts.curve import Curve, Spans
from lreg_tui.text import present
from lreg_tui.widgets import themes

BLANK, TITLE, FOCUSED, VALUE, QUIET, FAINT, GRID, CURSOR = range(8)
"""Roles. Those of the series follow: SERIES + 2 is the third colour, DIMMED + 2 its raw values behind."""

SERIES, DIMMED = 16, 48
GRID_LINE = "┈"
DOTS_DOWN, DOTS_ACROSS = 4, 2  # in a cell
BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of U+2800, from the top left dot
BRAILLE = 0x2800  # the character without dots


class Frame:
    """Characters `chars` and roles `roles`, both [height, width]. A wide character is followed by an empty one."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.chars = numpy.full((height, width), " ", dtype="<U1")
        self.roles = numpy.zeros((height, width), dtype=numpy.uint8)

    @property
    def shape(self) -> tuple[int, int]:
        """Height, width."""
        return self.height, self.width

    def put(self, x: int, y: int, text: str, role: int) -> None:
        """Write text; what lies outside is cut off."""
        from rich.cells import cell_len

        if not 0 <= y < self.height:
            return
        for character in text:
            cells = cell_len(character)
            if not cells:
                continue
            if x < 0 or x + cells > self.width:
                break
            self.chars[y, x], self.roles[y, x] = character, role
            if cells == 2:
                self.chars[y, x + 1], self.roles[y, x + 1] = "", role
            x += cells

    def fill(self, x: int, y: int, width: int, character: str, role: int) -> None:
        self.chars[y, x : x + width], self.roles[y, x : x + width] = character, role

    def put_dots(self, x: int, y: int, dots: numpy.ndarray, role: int) -> None:
        """Lay dots, bool [4 rows, 2 columns], upon what is there: joined with lines as bright, else over them."""
        dot_codes = codes(dots)
        chars = self.chars[y : y + dot_codes.shape[0], x : x + dot_codes.shape[1]]
        roles = self.roles[y : y + dot_codes.shape[0], x : x + dot_codes.shape[1]]
        filled = dot_codes > 0
        code_points = numpy.ascontiguousarray(chars).view(numpy.uint32).reshape(chars.shape)
        is_braille = (code_points >= BRAILLE) & (code_points < BRAILLE + 256)
        is_braille &= (roles >= DIMMED) == (role >= DIMMED)
        below = numpy.where(is_braille, code_points - BRAILLE, 0)
        joined = (BRAILLE + (dot_codes | below)).astype(numpy.uint32)
        chars[filled] = joined.view("<U1").reshape(chars.shape)[filled]
        roles[filled] = role

    def changes(self, before: Frame) -> Iterator[tuple[int, int, int]]:
        """Row, first column and end of what looks different, once per row that does."""
        other = (self.chars != before.chars) | ((self.roles != before.roles) & (self.chars != " "))
        for row in numpy.flatnonzero(other.any(axis=1)).tolist():
            columns = numpy.flatnonzero(other[row])
            yield row, int(columns[0]), int(columns[-1]) + 1

    def runs(self, row: int) -> Iterator[tuple[str, int]]:
        """Text and role of each stretch of a row; blanks have no colour and join a stretch beside them."""
        chars, roles = self.chars[row].tolist(), self.roles[row].tolist()
        text: list[str] = []
        current, is_blank = BLANK, True
        for character, role in zip(chars, roles, strict=True):
            if character != " ":
                if role != current and not is_blank:
                    yield "".join(text), current
                    text = []
                current, is_blank = role, False
            text.append(character)
        yield "".join(text), current

    def text(self) -> str:
        """All characters, for tests and for copying."""
        return "\n".join("".join(line).rstrip() for line in self.chars.tolist())


def dots_of(spans: Spans, scale: AxisScale, height: int) -> numpy.ndarray:
    """Dots of a polyline, bool [4 height, columns], the top row first; parts beyond the scale are cut off."""
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


def bars(columns: numpy.ndarray, low: numpy.ndarray, high: numpy.ndarray, width: int, height: int) -> numpy.ndarray:
    """Dots of upright bars, bool [4 height, width], from row `low` to row `high` in each of the columns."""
    dots = numpy.zeros((DOTS_DOWN * height, width), dtype=bool)
    rows = numpy.arange(DOTS_DOWN * height)[::-1, None]
    with numpy.errstate(invalid="ignore"):
        inside = (columns >= 0) & (columns < width)
        for column, bottom, top in zip(columns[inside].astype(int), low[inside], high[inside], strict=True):
            dots[:, column] |= ((rows >= bottom) & (rows <= top))[:, 0]
    return dots


def codes(dots: numpy.ndarray) -> numpy.ndarray:
    """Bits of each cell, uint8 [height, width], of dots, bool [4 height, 2 width]."""
    cells = dots.reshape(dots.shape[0] // DOTS_DOWN, DOTS_DOWN, dots.shape[1] // DOTS_ACROSS, DOTS_ACROSS)
    return numpy.einsum("rdcp,dp->rc", cells, numpy.array(BITS, dtype=numpy.uint8), dtype=numpy.uint8, casting="unsafe")


RAW_SHARE = 0.45  # share of its colour that a raw curve keeps behind the smoothed one
BLENDS = {QUIET: 0.6, FAINT: 0.4, GRID: 0.2}  # of the background with the text's colour


class Canvas(Widget):
    """What a role looks like, and a line of a frame as it is sent."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._styles: dict[int, Style] = {}
        self._colours: tuple[Color, ...] = ()  # that the styles were made for

    def strip(self, picture: Frame, row: int) -> Strip:
        return Strip([Segment(text, self.style(role)) for text, role in picture.runs(row)], picture.width)

    def style(self, role: int) -> Style:
        if self.colors != self._colours:
            self._colours = self.colors
            self._styles.clear()
        if role not in self._styles:
            _, _, background, _ = self.colors
            colour = self.colour(role, *self.colors[2:])
            is_bold = role in (TITLE, FOCUSED)
            self._styles[role] = Style(color=colour.rich_color, bgcolor=background.rich_color, bold=is_bold)
        return self._styles[role]

    def colour(self, role: int, background: Color, foreground: Color) -> Color:
        if role >= SERIES:
            colour = themes.visible(Color.parse(themes.SERIES[(role - SERIES) % (DIMMED - SERIES)]), background)
            return background.blend(colour, RAW_SHARE) if role >= DIMMED else colour
        if role in (FOCUSED, CURSOR):
            return Color.parse(self.app.theme_variables["accent"])
        return background.blend(foreground, BLENDS.get(role, 1.0))


EVALUATION = "evaluation"  # label of an x axis that counts them


@dataclass
class Scene:
    """What a chart shows: data and settings."""

    width: int
    height: int
    curves: Sequence[Curve] = ()
    title: str = ""
    view: View = field(default_factory=View)
    log_x: bool = False
    log_y: bool = False
    smoothing: float = 0.0
    by_time: bool = False
    points_only: bool = False
    x_label: str = ""
    unit: str = ""
    show: Callable[[float], str] = present.number
    cursor: float | None = None
    focused: bool = False

    @property
    def x_name(self) -> str:
        return "time" if self.by_time else self.x_label or "step"

    @property
    def x_unit(self) -> str:
        if self.by_time:
            return "seconds"
        return "" if self.points_only and self.x_label != EVALUATION else "count"

    def show_x(self, x: float) -> str:
        if self.by_time:
            return present.duration(x)
        return f"{round(x):,}" if x == round(x) and not self.points_only else present.number(x)


@dataclass
class Picture:
    """A frame and where in it the plot lies: `left` and `top` are its first column and line."""

    frame: Frame
    left: int = 0
    top: int = 1
    width: int = 0
    height: int = 0
    full_x: Range = (0.0, 1.0)  # in the units of the axis
    newest: float = 1.0
    x: AxisScale | None = None  # None: there is nothing to see
    y: AxisScale | None = None

    def x_at(self, column: float) -> float | None:
        """The value of the x axis in the middle of a column of the frame; None outside the plot."""
        inside = self.x is not None and 0 <= column - self.left < self.width
        return self.x.value((column - self.left + 0.5) / self.width) if inside and self.x else None

    def column_of(self, x: float) -> int | None:
        share = self.x.position(x) if self.x else math.nan
        return self.left + min(int(share * self.width), self.width - 1) if 0 <= share <= 1 else None

    def row_of(self, y: float) -> int | None:
        share = self.y.position(y) if self.y else math.nan
        return self.top + self.height - 1 - min(int(share * self.height), self.height - 1) if 0 <= share <= 1 else None
