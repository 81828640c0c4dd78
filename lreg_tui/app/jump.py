"""JumpScreen: a letter on every panel and field in view; pressing it goes there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from string import ascii_uppercase
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.geometry import Offset
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import DataTable, OptionList, Static

from lreg_tui.widgets.ending import Ending
from lreg_tui.widgets.key_footer import KeyFooter
from lreg_tui.widgets.keys import bind

LETTERS = "asdfghjklqwertyuiopzxcvbnm" + ascii_uppercase
Going = Callable[[], Any]


def places(screen: Screen[Any]) -> Iterator[tuple[Offset, Going]]:
    """What has the focus or can have it, and the rows of lists and forms: where each begins, and what goes there."""
    for widget in screen.focus_chain:
        region = widget.region.intersection(screen.region)
        rows = list(_rows(widget))
        for row, going in rows:
            if 0 <= row < widget.size.height:
                yield widget.content_region.offset + Offset(0, row), going
        if region and not rows:
            yield region.offset, widget.focus


def _rows(widget: Widget) -> Iterator[tuple[int, Going]]:
    """Lines of the widget with something to go to."""
    top = round(widget.scroll_offset.y)
    if isinstance(widget, OptionList):
        for index, option in enumerate(widget.options):
            if not option.disabled:
                yield index - top, partial(_go, widget, "highlighted", index)
    elif isinstance(widget, DataTable):
        for index in range(widget.row_count):
            coordinate = widget.cursor_coordinate._replace(row=index)
            yield index - top + widget.show_header, partial(_go, widget, "cursor_coordinate", coordinate)


def _go(widget: Widget, attribute: str, target: object) -> None:
    widget.focus()
    setattr(widget, attribute, target)


class JumpScreen(Ending, ModalScreen[Going | None]):
    """Ends with what goes there."""

    BINDINGS = [bind("back", "leave", "cancel"), bind("jump", "leave", show=False)]
    DEFAULT_CSS = """
    JumpScreen {
        background: $background 30%;
        Static {
            position: absolute; width: 3; height: 1; content-align: center middle;
            background: $accent; color: $background; text-style: bold;
        }
    }
    """

    def __init__(self, screen: Screen[Any]) -> None:
        super().__init__()
        self.places = dict(zip(LETTERS, places(screen), strict=False))

    def compose(self) -> ComposeResult:
        for letter, (offset, _) in self.places.items():
            label = Static(letter, markup=False)
            label.styles.offset = offset.x, offset.y
            yield label
        yield KeyFooter()

    def on_key(self, event: events.Key) -> None:
        if event.character in self.places:
            event.stop()
            self.dismiss(self.places[event.character][1])
