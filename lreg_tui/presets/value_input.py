"""ValueInput: one setting's value while it is typed, over the line that it belongs to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.geometry import Offset
from textual.message import Message

from engine.base.errors import Problem
from lreg_tui.presets.preset_edit import Row, shown, typed
from lreg_tui.widgets.line_input import LineInput


class ValueInput(LineInput):
    """Hidden until it is opened on a row. A value that does not fit is not given."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,up,down", "give", "set", key_display="⏎"),
        Binding("escape", "leave", "cancel"),
    ]
    DEFAULT_CSS = """
    ValueInput {
        position: absolute; display: none;
        border: none; height: 1; padding: 0; background: $surface-lighten-2; color: $foreground;
        &:focus { border: none; background-tint: transparent; }
    }
    """

    @dataclass
    class Judged(Message):
        """What is typed for a row, and what is wrong with it ("": nothing)."""

        row: Row
        problem: str

    @dataclass
    class Closed(Message):
        """Typing is over; `raw` is the value as TOML where the row is to have another one.

        `by_key` is False where the focus has gone elsewhere already.
        """

        row: Row
        raw: str | None
        by_key: bool = True

    def __init__(self) -> None:
        super().__init__(select_on_focus=True)
        self.row: Row | None = None

    def open(self, row: Row, place: Offset, width: int) -> None:
        self.row = row
        self.styles.offset = (place.x, place.y)
        self.styles.width = width
        self.value = shown(row.value)
        self.display = True
        self.focus()

    def watch_value(self, value: str) -> None:
        if self.row is not None:
            self.post_message(self.Judged(self.row, without_path(typed(self.row.setting, value)[1])))

    def action_give(self) -> None:
        if self.row is None:
            return
        raw, problem = typed(self.row.setting, self.value)
        if problem is not None:
            self.app.bell()
        elif self.value.strip() == shown(self.row.value):
            self._close(None)
        else:
            self._close(raw)

    def action_leave(self) -> None:
        self._close(None)

    def on_blur(self) -> None:
        self._close(None, by_key=False)

    def _close(self, raw: str | None, by_key: bool = True) -> None:
        row, self.row = self.row, None
        self.display = False
        if row is not None:
            self.post_message(self.Closed(row, raw, by_key))


def without_path(problem: Problem | None) -> str:
    """A problem as it is told where its key is in view: found and allowed."""
    return str(dataclasses.replace(problem, path="")) if problem is not None else ""
