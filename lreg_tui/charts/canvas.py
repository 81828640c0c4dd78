"""Canvas: a widget that shows a Frame, in the colours of the theme."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.strip import Strip
from textual.widget import Widget

from lreg_tui.charts import frame
from lreg_tui.charts.frame import Frame
from lreg_tui.widgets.contrast import visible
from lreg_tui.widgets.themes import SERIES

FAINT = 0.45  # share of its colour that a raw curve keeps behind the smoothed one
BLENDS = {frame.QUIET: 0.6, frame.FAINT: 0.4, frame.GRID: 0.2}  # of the background with the text's colour


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
            is_bold = role in (frame.TITLE, frame.FOCUSED)
            self._styles[role] = Style(color=colour.rich_color, bgcolor=background.rich_color, bold=is_bold)
        return self._styles[role]

    def colour(self, role: int, background: Color, foreground: Color) -> Color:
        if role >= frame.SERIES:
            colour = visible(Color.parse(SERIES[(role - frame.SERIES) % (frame.DIMMED - frame.SERIES)]), background)
            return background.blend(colour, FAINT) if role >= frame.DIMMED else colour
        if role in (frame.FOCUSED, frame.CURSOR):
            return Color.parse(self.app.theme_variables["accent"])
        return background.blend(foreground, BLENDS.get(role, 1.0))
