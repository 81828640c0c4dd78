"""ReportScreen: the report of a study as plain text, and where it lies, so that its figures can be opened."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Static, TextArea

from engine.base.files import read_limited
from lreg_tui.text.present import clean, clean_block
from lreg_tui.widgets.ending import Ending
from lreg_tui.widgets.key_footer import KeyFooter
from lreg_tui.widgets.threads import off_the_loop

LARGEST = 2**22  # bytes
AS_IT_IS = re.compile(r"\s*$|[|#]|!?\[[^]]*\]\([^)]*\)$")  # a line that is no prose: a table's, a heading, a picture
ITEM = re.compile(r"\s*[-*] ")
LEAST = 20  # characters of a line of prose


class ReportText(TextArea):
    """Text to read: arrow keys scroll, the mouse selects."""

    HELP_TITLE = "Text"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_up", "up", show=False),
        Binding("down,j", "scroll_down", "down", show=False),
        Binding("left", "scroll_left", "left", show=False),
        Binding("right", "scroll_right", "right", show=False),
        Binding("pageup", "page_up", "page up", show=False),
        Binding("pagedown,space", "page_down", "page down", show=False),
        Binding("home,g", "scroll_home", "beginning", show=False),
        Binding("end,G", "scroll_end", "end", show=False),
    ]
    DEFAULT_CSS = """
    ReportText {
        border: none; padding: 0 1; background: $background; scrollbar-size: 1 1;
        &:focus { border: none; }
    }
    """

    def __init__(self) -> None:
        super().__init__("reading …", read_only=True, soft_wrap=False, show_line_numbers=False, compact=True)
        self.show_cursor = False
        self.highlight_cursor_line = False


class ReportScreen(Ending, Screen[None]):
    """The file may have been written by strangers, and is only read."""

    HELP_TITLE = "Report"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "wrap", "wrap", tooltip="long lines in one piece, or wrapped"),
        Binding("y", "copy_path", "copy path", tooltip="copy where the report lies to the clipboard"),
        Binding("escape", "leave", "back", tooltip="to the screen before"),
    ]
    DEFAULT_CSS = """
    ReportScreen {
        #where { height: 1; padding: 0 1; background: $panel; text-wrap: nowrap; text-overflow: ellipsis; }
        ReportText { height: 1fr; }
    }
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._text = "reading …"

    def compose(self) -> ComposeResult:
        yield Static(clean(self.path), id="where", markup=False)
        yield ReportText()
        yield KeyFooter()

    def on_mount(self) -> None:
        self.query_one(ReportText).focus()
        self._read()

    @work(group="report")
    async def _read(self) -> None:
        self._text = await off_the_loop(lambda: text_of(self.path), "report")
        self._show()

    def on_resize(self) -> None:
        self.call_after_refresh(self._show)

    def _show(self) -> None:
        """The text in lines of the screen's width; it stays about where it was."""
        area = self.query_one(ReportText)
        text = reflowed(self._text, max(LEAST, area.scrollable_content_region.width - 1))
        if text != area.text:
            at = area.scroll_offset.y / max(1, area.document.line_count)
            area.load_text(text)
            area.scroll_to(y=round(at * area.document.line_count), animate=False)

    def action_wrap(self) -> None:
        area = self.query_one(ReportText)
        area.soft_wrap = not area.soft_wrap

    def action_copy_path(self) -> None:
        self.app.copy_to_clipboard(clean(self.path))
        self.app.notify(f"copied {clean(self.path, 200)}", markup=False)

    def action_leave(self) -> None:
        self.dismiss()


def text_of(path: Path) -> str:
    try:
        return clean_block(read_limited(path, LARGEST, path.parent.parent).decode(errors="replace"))
    except OSError as error:
        return f"{clean(path)}: cannot be read: {clean(error.strerror or error)}"


def reflowed(text: str, width: int) -> str:
    """Prose, whatever the lines that it was written in, in lines of this width; tables and headings as they are."""
    return "\n".join(line for block in _blocks(text) for line in _laid_out(block, width))


def _blocks(text: str) -> Iterator[list[str]]:
    """Paragraphs and items of lists; every other line alone."""
    prose: list[str] = []
    for line in text.splitlines():
        is_prose = not AS_IT_IS.match(line)
        if prose and (not is_prose or ITEM.match(line)):
            yield prose
            prose = []
        if is_prose:
            prose.append(line)
        else:
            yield [line]
    if prose:
        yield prose


def _laid_out(block: list[str], width: int) -> list[str]:
    if AS_IT_IS.match(block[0]):
        return block
    indent = "  " if ITEM.match(block[0]) else ""
    joined = " ".join(line.strip() for line in block)
    return textwrap.wrap(joined, width, subsequent_indent=indent, break_on_hyphens=False)
