"""PresetText: the preset of a run to read, with search as a log has it."""

from __future__ import annotations

import re
from typing import ClassVar

from textual.binding import BindingType
from textual.widgets.text_area import Selection

from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.toml_area import TomlArea


class PresetText(TomlArea):
    """The match that was gone to is selected; beyond the last one comes the first."""

    HELP_TITLE = "Preset"
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("next", "go_to_match(1)", tooltip="the next match, towards the end"),
        bind("previous", "go_to_match(-1)", tooltip="the match before, towards the beginning"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(read_only=True, id=id)
        self.show_cursor = False
        self.searched = ""

    def find(self, text: str) -> int:
        """Go to the first place that is this text, whatever its case. Returns how many lines have it."""
        self.searched = text
        self.selection = Selection.cursor((0, 0))
        found = self._matches()
        if found:
            self._select(found[0])
        self.refresh_bindings()
        return len({match.start[0] for match in found})

    def _matches(self) -> list[Selection]:
        if not self.searched:
            return []
        wanted = re.compile(re.escape(self.searched), re.IGNORECASE)
        lines = enumerate(self.text.split("\n"))
        return [Selection((row, hit.start()), (row, hit.end())) for row, line in lines for hit in wanted.finditer(line)]

    def _select(self, match: Selection) -> None:
        self.selection = match
        self.scroll_cursor_visible(center=True)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return bool(self.searched) if action == "go_to_match" else True

    def action_go_to_match(self, direction: int) -> None:
        found = self._matches()
        further = [match for match in found if (match.start > self.selection.start) == (direction > 0)]
        further = [match for match in further if match != self.selection] or found
        if further:
            self._select(further[0] if direction > 0 else further[-1])
