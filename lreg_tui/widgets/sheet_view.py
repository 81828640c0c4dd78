"""SheetView: sheets (tables of text) that scroll. What does not fit side by side stands below each other.

view = SheetView()
view.show(comparison_sheets.sheets(comparison), notes=comparison.notes)
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rich.console import Console, RenderableType
from rich.style import Style
from textual import work
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from lreg_tui.text import present, sheets
from lreg_tui.text.sheets import Entry, Sheet
from lreg_tui.widgets.threads import off_the_loop

BEST, BETTER, WORSE = "★", "✓", "✗"  # so that colour is never the only difference
VERDICT = re.compile(r"\b(lower|higher)\b")
RULE = re.compile("[─ ]*─[─ ]*")
QUIET = Style(dim=True)
NARROWEST = 20  # columns that a table is laid out for, however small the widget


class SheetView(ScrollView, can_focus=True):
    """Reads like paper: the titles, tables and remarks of several sheets, one below the other.

    The best of a column and verdicts carry a mark beside their colour. Text from strangers stays plain.
    """

    DEFAULT_CSS = """
    SheetView { padding: 0 1; overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    """

    def __init__(self, empty: str = "", *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.sheets: Sequence[Sheet] = ()
        self.notes: Sequence[str] = ()
        self.empty = empty
        self._lines: list[Strip] = []
        self._width = 0  # that the lines are for

    def show(self, sheets: Iterable[Sheet], notes: Sequence[str] = (), empty: str | None = None) -> None:
        """Show these sheets, and notes below them; without any: the text `empty`. Redraws where something differs."""
        content = (list(sheets), list(notes), self.empty if empty is None else empty)
        if content != (self.sheets, self.notes, self.empty):
            self.sheets, self.notes, self.empty = content
            self._lay_out()

    @property
    def text(self) -> str:
        return "\n".join(line.text.rstrip() for line in self._lines)

    def on_resize(self) -> None:
        if self.scrollable_content_region.width != self._width:
            self._lay_out()

    @work(exclusive=True, group="layout")
    async def _lay_out(self) -> None:
        """Turn the sheets into lines of the width at hand: for long ones too much work between two key presses."""
        self._width = self.scrollable_content_region.width
        if not self._width:  # not in sight yet; it will be resized then
            return
        width = max(self._width, NARROWEST)
        sheets, notes, empty = self.sheets, self.notes, self.empty
        self._lines = await off_the_loop(lambda: lines_of(sheets, notes, empty, width), "layout")
        self.virtual_size = Size(self.size.width, len(self._lines))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        line = int(self.scroll_offset.y) + y
        width = self.size.width
        strip = self._lines[line] if 0 <= line < len(self._lines) else Strip.blank(width)
        return strip.crop_extend(0, width, None).apply_style(self.rich_style)


def lines_of(pages: Sequence[Sheet], notes: Sequence[str], empty: str, width: int) -> list[Strip]:
    """Sheets, and notes below them, as lines; without any sheet: the text `empty`."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    parts: list[RenderableType] = [] if pages else [present.text(empty, "dim")]
    for number, sheet in enumerate(pages):
        parts += [*([present.text("")] if number else []), *sheets.tables(marked(sheet), console)]
    parts += [present.text(""), *(present.text(f"note: {note}", "yellow") for note in notes)] if pages else []
    lines = (Strip(line) for part in parts for line in console.render_lines(part, pad=False))
    return [line.apply_style(QUIET) if RULE.fullmatch(line.text) else line for line in lines]


def marked(sheet: Sheet) -> Sheet:
    """The sheet with a mark at what is the best, better or worse."""
    has_verdict = any(_is_verdict(entry) for _, entries in sheet.rows for entry in entries)
    rows = [(label, [_marked(entry) for entry in entries]) for label, entries in sheet.rows]
    legend = [f"{BETTER} better, {WORSE} worse than the reference"] if has_verdict else []
    return replace(sheet, rows=rows, remarks=[*sheet.remarks, *legend])


def _is_verdict(entry: Entry) -> bool:
    return entry.style in (sheets.BETTER, sheets.WORSE) and bool(VERDICT.search(entry.text))


def _marked(entry: Entry) -> Entry:
    if entry.best:
        return Entry(f"{BEST} {entry.text}", True, "yellow")
    if _is_verdict(entry):
        return replace(entry, text=f"{BETTER if entry.style == sheets.BETTER else WORSE} {entry.text}")
    return entry
