"""LineTable: a heading and lines of cells, one with the cursor. Draws only the cells that change."""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from lreg_tui.runs.run_lines import Line, drawn


class LineTable(ScrollView, can_focus=True):
    """A subclass knows what stands in its lines; `PREFIX` is what its component classes begin with."""

    PREFIX: ClassVar[str]
    DEFAULT_CSS = """
    LineTable { overflow-x: hidden; overflow-y: auto; scrollbar-size: 1 1; scrollbar-gutter: stable; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._drawn: dict[int, Line] = {}  # by line of the widget

    @property
    def count(self) -> int:
        """How many lines there are below the heading."""
        raise NotImplementedError

    @property
    def cursor(self) -> int:
        """The place of the line with the cursor."""
        raise NotImplementedError

    def heading(self) -> Line:
        raise NotImplementedError

    def line(self, place: int) -> Line:
        """A line by its place; an empty one beyond their end."""
        raise NotImplementedError

    def move_to(self, place: int) -> None:
        """Put the cursor on a line, by its place."""
        raise NotImplementedError

    def style_of(self, kind: str) -> Style:
        """How a kind of part looks: as its component class says. The background is that of the line."""
        style = self.get_component_rich_style(f"{self.PREFIX}--{kind}")
        return Style(color=style.color, bold=style.bold or None)

    @property
    def _room(self) -> int:
        """Characters in a line."""
        return self.scrollable_content_region.width

    @property
    def _page(self) -> int:
        """Lines in view."""
        return max(1, self.size.height - 1)

    def action_page(self, pages: int) -> None:
        self.move_to(self.cursor + pages * max(1, self._page - 1))

    def action_go_to(self, place: int) -> None:
        self.move_to(place if place >= 0 else self.count - 1)

    def _fit(self) -> None:
        """Be as high as there are lines."""
        self.virtual_size = Size(self._room, self.count + 1)

    def _scroll_to_cursor(self) -> None:
        offset = self.scroll_offset.y
        wanted = min(max(offset, self.cursor - self._page + 1), self.cursor)
        if wanted != offset:
            self.scroll_to(y=wanted, animate=False, force=True)

    def _draw_all(self) -> None:
        """Draw everything again: the columns are others."""
        self._drawn.clear()
        self.refresh()

    def redraw_changed(self) -> None:
        """Draw again the cells in view that show something else than before."""
        for y in range(1, self.size.height):
            before, now = self._drawn.get(y), self._line_at(y)
            if before is None or before.has_cursor != now.has_cursor or len(before.cells) != len(now.cells):
                self.refresh(Region(0, y, self._room, 1))
                continue
            for old, new in zip(before.cells, now.cells, strict=True):
                if old != new:
                    self.refresh(Region(new.start, y, new.width, 1))

    def _line_at(self, y: int) -> Line:
        return self.line(y - 1 + self.scroll_offset.y)

    def render_line(self, y: int) -> Strip:
        if y == 0:
            line = self.heading()
        else:
            line = self._drawn[y] = self._line_at(y)
        style = self.rich_style
        if line.has_cursor:
            style += self.get_component_rich_style(f"{self.PREFIX}--cursor")
        return drawn(line, self._room, style, self.style_of)
