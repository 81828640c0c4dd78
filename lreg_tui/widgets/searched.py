"""Searched: search, wrap and copy for text to read: class LogTail(Searched, TextArea)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rich.text import Text
from textual.binding import BindingType
from textual.widgets import TextArea
from textual.widgets.text_area import Selection

from lreg_tui.widgets.keys import bind

if TYPE_CHECKING:
    Base = TextArea
else:
    Base = object  # of several widgets Textual takes the styles of the first one alone

SEARCHED: list[BindingType] = [
    bind("next", "go_to_match(1)", tooltip="the next match, towards the end"),
    bind("previous", "go_to_match(-1)", tooltip="the match before, towards the beginning"),
    bind("up", "scroll_up", show=False),
    bind("down", "scroll_down", show=False),
    bind("first", "scroll_home", show=False),
    bind("last", "scroll_end", show=False),
    bind("wrap", "wrap"),
    bind("copy", "copy_text", tooltip="what is selected by the mouse, or else all of it"),
]
MATCH = "searched--match"


class Searched(Base):
    """All matches are marked, the one that was gone to is selected; beyond the last one comes the first.

    The widget has the bindings SEARCHED, and a style for the component class MATCH.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(read_only=True, **options)
        self.show_cursor = False
        self.searched = ""

    def find(self, text: str, *, from_end: bool = False) -> int:
        """Go to the first place that is this text, or the last, whatever its case. Returns how many lines have it."""
        self.searched = text
        matches = self._matches()
        self.selection = Selection.cursor(self.document.end if from_end else (0, 0))
        if matches:
            self._select(matches[-1 if from_end else 0])
        self.notify_style_update()  # which drops the lines that were drawn
        self.refresh_bindings()
        self.refresh()
        return len({match.start[0] for match in matches})

    def _matches(self) -> list[Selection]:
        if not self.searched:
            return []
        lines = enumerate(self.document.lines)
        pattern = re.compile(re.escape(self.searched), re.IGNORECASE)
        return [
            Selection((row, hit.start()), (row, hit.end())) for row, line in lines for hit in pattern.finditer(line)
        ]

    def _select(self, match: Selection) -> None:
        self.selection = match
        line = self.wrapped_document.location_to_offset(match.start).y
        self.scroll_to(y=max(0, line - self.size.height // 2), animate=False, force=True)

    def get_line(self, line_index: int) -> Text:
        line = super().get_line(line_index)
        if self.searched:
            pattern = re.compile(re.escape(self.searched), re.IGNORECASE)
            style = self.get_component_rich_style(MATCH)
            for match in pattern.finditer(line.plain):
                line.stylize(style, *match.span())
        return line

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return bool(self.searched) if action == "go_to_match" else True

    def action_go_to_match(self, direction: int) -> None:
        matches = self._matches()
        further = [match for match in matches if (match.start > self.selection.start) == (direction > 0)]
        further = [match for match in further if match != self.selection] or matches
        if further:
            self._select(further[0] if direction > 0 else further[-1])

    def action_wrap(self) -> None:
        self.soft_wrap = not self.soft_wrap

    def action_copy_text(self) -> None:
        text = self.selected_text or self.text
        self.app.copy_to_clipboard(text)
        lines = text.count("\n") + 1
        self.app.notify(f"copied {lines} line{'s' * (lines != 1)}", markup=False)
