"""Lines of text to type."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.widgets import Input


class LineInput(Input):
    """One line, in the compact form and without a cursor that blinks: nothing is sent while nothing changes."""

    def __init__(self, value: str = "", **options: Any) -> None:
        super().__init__(value, compact=True, **options)
        self.cursor_blink = False


class ListFilter(LineInput):
    """What narrows a list down, beside which there is nothing to go to: keys of the list are typed here.

    The screen has the actions accept and move, and where several can be picked, mark and mark_all. A space marks there,
    and is a letter like any other elsewhere.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "screen.accept", "accept", key_display="⏎"),
        Binding("space", "screen.mark", "mark"),
        Binding("ctrl+a", "screen.mark_all", "all"),
        Binding("up", "screen.move(-1)", "up", show=False),
        Binding("down", "screen.move(1)", "down", show=False),
        Binding("pageup", "screen.move(-10)", "page up", show=False),
        Binding("pagedown", "screen.move(10)", "page down", show=False),
    ]

    def __init__(self, several: bool = False) -> None:
        super().__init__(placeholder="type to narrow down")
        self.several = several

    def check_consume_key(self, key: str, character: str | None) -> bool:
        return not (self.several and key == "space") and super().check_consume_key(key, character)

    def on_key(self, event: events.Key) -> None:
        if self.several and event.key == "space":
            event.prevent_default()  # else it is typed before anybody asks whether it is
