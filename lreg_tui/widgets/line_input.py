"""Lines of text to type."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import events
from textual.binding import BindingType
from textual.widgets import Input

from lreg_tui.widgets.keys import bind


class LineInput(Input):
    """One line, in the compact form and without a cursor that blinks: nothing is sent while nothing changes."""

    BINDINGS: ClassVar[list[BindingType]] = [bind("open", "submit", "accept")]

    def __init__(self, value: str = "", **options: Any) -> None:
        super().__init__(value, compact=True, **options)
        self.cursor_blink = False


class ListFilter(LineInput):
    """What narrows a list down, beside which there is nothing to go to: keys of the list are typed here.

    The screen has the actions accept and move, and where several can be picked, mark and mark_all. A space marks there,
    and is a letter like any other elsewhere.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        bind("open", "screen.accept", "accept"),
        bind("mark", "screen.mark"),
        bind("mark_all", "screen.mark_all", keys="ctrl+a"),
        bind("up", "screen.move(-1)", keys="up", show=False),
        bind("down", "screen.move(1)", keys="down", show=False),
        bind("page_up", "screen.move(-10)", show=False),
        bind("page_down", "screen.move(10)", show=False),
    ]

    def __init__(self, several: bool = False) -> None:
        super().__init__(placeholder="type to narrow down")
        self.several = several

    def check_consume_key(self, key: str, character: str | None) -> bool:
        return not (self.several and key == "space") and super().check_consume_key(key, character)

    def on_key(self, event: events.Key) -> None:
        if self.several and event.key == "space":
            event.prevent_default()  # else it is typed before anybody asks whether it is
