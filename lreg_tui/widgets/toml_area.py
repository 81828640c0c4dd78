"""TomlArea: a TOML document to edit or to read, coloured, and harmless whatever it holds.

area.take(text)  # other text, as one edit that can be undone; cursor and scroll position stay
area.wrong_lines = {3}  # lines that problems are about
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from rich.style import Style
from rich.text import Text
from textual.reactive import reactive
from textual.widgets import TextArea

from lreg_tui.text.present import clean

TOKEN = re.compile(
    r"""(?P<comment>\#.*)
      | (?P<string>"(?:[^"\\]|\\.)*"|'[^']*')
      | (?P<header>^\s*\[{1,2}[^\]=]*\]{1,2})
      | (?P<key>[\w.-]+(?=\s*=))
      | (?P<number>(?<![\w.])[+-]?\d[\w.+-]*)
      | (?P<word>\b(?:true|false|inf|nan)\b)""",
    re.VERBOSE,
)
KINDS = ("comment", "string", "header", "key", "number", "word", "wrong")


class TomlArea(TextArea):
    """A TextArea without a parser: the colours come from one expression a line, which damaged text cannot confuse."""

    HELP_TITLE = "TOML"
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"toml--{kind}" for kind in KINDS}
    DEFAULT_CSS = """
    TomlArea {
        border: none; padding: 0; background: $background; scrollbar-size-vertical: 1;
        &:focus { border: none; }
        & > .toml--comment { color: $foreground 55%; text-style: italic; }
        & > .toml--string { color: $success; }
        & > .toml--header { color: $primary; text-style: bold; }
        & > .toml--key { color: $foreground; }
        & > .toml--number { color: $accent; }
        & > .toml--word { color: $accent; }
        & > .toml--wrong { text-style: underline; color: $error; }
        & > .text-area--gutter { color: $foreground 25%; }
    }
    """

    wrong_lines: reactive[frozenset[int]] = reactive(frozenset(), init=False)

    def __init__(self, *, read_only: bool = False, id: str | None = None) -> None:
        super().__init__(read_only=read_only, show_line_numbers=True, soft_wrap=True, id=id)
        self.highlight_cursor_line = False  # it would wash out the colours
        self.cursor_blink = False  # nothing is sent while nothing changes

    def watch_wrong_lines(self) -> None:
        self.notify_style_update()  # which drops the lines that were drawn
        self.refresh()

    def take(self, text: str) -> None:
        """Hold this text from now on. Only the part that differs is replaced."""
        old = self.text
        if text == old:
            return
        limit = min(len(old), len(text))
        start = next((index for index in range(limit) if old[index] != text[index]), limit)
        most = limit - start
        same = next((index for index in range(most) if old[-1 - index] != text[-1 - index]), most)
        document: Any = self.document
        where = [document.get_location_from_index(index) for index in (start, len(old) - same)]
        self.replace(text[start : len(text) - same], where[0], where[1])

    def go_to(self, line: int) -> None:
        self.move_cursor((min(line, self.document.line_count - 1), 0), center=True)

    def get_line(self, line_index: int) -> Text:
        """A line as it is shown; of the same length, so that the cursor fits."""
        line_text = self.document.get_line(line_index)
        line = Text(
            "".join(clean(character) if character != "\t" else "\t" for character in line_text), end="", no_wrap=True
        )
        if line_index in self.wrong_lines:
            line.stylize(self._style("wrong"), len(line_text) - len(line_text.lstrip()))
            return line
        for match in TOKEN.finditer(line_text[:2000]):
            line.stylize(self._style(match.lastgroup or "key"), *match.span())
        return line

    def _style(self, kind: str) -> Style:
        """Without its background, which is that of the cursor's line or the selection."""
        style = self.get_component_rich_style(f"toml--{kind}")
        return Style(color=style.color, bold=style.bold, italic=style.italic, underline=style.underline)
