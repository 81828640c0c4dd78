"""What the preset form is made of: the list of its lines, and the field that narrows it down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from lreg_tui.presets.form_lines import ADD, FormLine
from lreg_tui.widgets.line_input import LineInput


class SettingList(OptionList):
    """The lines of the form. Up and down pass over headings."""

    HELP_TITLE = "Settings"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,space", "select", "edit", key_display="⏎", tooltip="change the setting under the cursor")
    ]

    def __init__(self) -> None:
        super().__init__(markup=False)
        self.lines: list[FormLine] = []

    @property
    def current(self) -> str:
        """The identity of the line under the cursor."""
        index = self.highlighted
        return self.lines[index].identity if index is not None and index < len(self.lines) else ""

    def show(self, lines: Sequence[FormLine]) -> None:
        """Show these. Where only contents differ, only lines that changed are drawn; the cursor stays on its line."""
        before, self.lines = self.lines, list(lines)
        if [line[::2] for line in lines] == [line[::2] for line in before]:
            for index, (new, old) in enumerate(zip(lines, before, strict=True)):
                if not new.content.is_same(old.content):
                    self.replace_option_prompt_at_index(index, new.content)
            return
        self._refill(before)

    def _refill(self, before: Sequence[FormLine]) -> None:
        place, offset = self.highlighted, self.scroll_offset
        current = before[place].identity if place is not None and place < len(before) else ""
        self.set_options([Option(line.content, line.identity, line.is_passed_over) for line in self.lines])
        ids = [line.identity for line in self.lines]
        usual = next((index for index, line in enumerate(ids) if not line.startswith("table:") and line != ADD), None)
        self.scroll_to(y=offset.y, animate=False, immediate=True)
        self.highlighted = ids.index(current) if current in ids else usual

    def go_to(self, path: str) -> None:
        """Go to a setting, or to the table that it would be in."""
        ids = [line.identity for line in self.lines]
        for wanted in (path, f"table:{path}", f"table:{path.rpartition('.')[0]}"):
            if wanted in ids:
                index = ids.index(wanted)  # of a heading that is passed over: the setting below it
                self.highlighted = min(index + self.lines[index].is_passed_over, len(ids) - 1)
                return


class FilterInput(LineInput):
    """Words that narrow the form down."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,down", "leave", "to the list", key_display="⏎"),
        Binding("escape", "forget", "no filter"),
    ]

    class Left(Message):
        """The user is done with it."""

    def action_leave(self) -> None:
        self.post_message(self.Left())

    def action_forget(self) -> None:
        self.value = ""
        self.post_message(self.Left())
