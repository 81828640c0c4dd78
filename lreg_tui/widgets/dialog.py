"""Dialog and Page: what is asked, picked or read above a screen, all in one frame with its keys below."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Generic, TypeVar

from rich.console import RenderableType
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.visual import VisualType
from textual.widget import Widget
from textual.widgets import Static

from lreg_tui.text.present import clean, count
from lreg_tui.widgets.ending import Ending
from lreg_tui.widgets.key_footer import KeyFooter
from lreg_tui.widgets.keys import bind

Result = TypeVar("Result")
MOVES = {
    "down": "scroll_down",
    "up": "scroll_up",
    "page_down": "scroll_page_down",
    "page_up": "scroll_page_up",
    "first": "scroll_home",
    "last": "scroll_end",
}


class Dialog(Ending, ModalScreen[Result], Generic[Result]):
    """Its heading stands in the frame and may have been written by strangers. Escape leaves it."""

    BOX: ClassVar[type[Widget]] = Vertical
    BINDINGS: ClassVar[list[BindingType]] = [bind("back", "leave", "cancel")]
    DEFAULT_CSS = """
    Dialog {
        align: center middle; background: $background 60%;
        & > .dialog {
            width: 76; max-width: 96%; height: auto; max-height: 90%; padding: 0 1; background: $panel;
            border: round $primary; border-title-color: $primary; border-title-style: bold;
            border-subtitle-color: $text-muted; scrollbar-size: 1 1;
        }
        .note { height: auto; color: $text-muted; }
        .note.-wrong { color: $text-error; }
        Input { border: none; height: 1; padding: 0; background: $surface; }
    }
    """

    def __init__(self, heading: str) -> None:
        super().__init__()
        self.heading = heading

    def compose(self) -> ComposeResult:
        with self.BOX(classes="dialog") as box:
            box.border_title = Text(clean(self.heading, 200))
            yield from self.contents()
        yield KeyFooter()  # in place of that of the screen below, whose keys do nothing here

    def contents(self) -> Iterable[Widget]:
        """What stands in the frame."""
        raise NotImplementedError


class Page(Dialog[None]):
    """Something to read; how much of it is below stands in the frame."""

    BOX = VerticalScroll
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("back", "leave", "close"),
        bind("quit", "leave", show=False),
        *(bind(meaning, f"move('{how}')", show=False, priority=True) for meaning, how in MOVES.items()),
    ]
    DEFAULT_CSS = """
    Page {
        background: $background;  /* what lies below would be drawn again each time */
        & > .dialog { width: 84; max-width: 100%; max-height: 100%; scrollbar-gutter: stable; }
        Static { height: auto; }
    }
    """

    def contents(self) -> Iterable[Widget]:
        yield Static(self.body(), markup=False)

    def body(self) -> RenderableType | VisualType:
        raise NotImplementedError

    def on_mount(self) -> None:
        page = self.query_one(VerticalScroll)
        page.focus()
        for attribute in ("scroll_y", "virtual_size"):  # the page's own height follows that of the text
            self.watch(page, attribute, self._look_at_place)

    def _look_at_place(self) -> None:
        self.call_after_refresh(self._say_whether_more)

    def _say_whether_more(self) -> None:
        page = self.query_one(VerticalScroll)
        below = page.max_scroll_y - page.scroll_offset.y
        more = f"{count(below, 'more line')} ↓" if below > 0 else ""
        if page.border_subtitle != more:
            page.border_subtitle = more

    def action_move(self, how: str) -> None:
        getattr(self.query_one(VerticalScroll), how)(animate=False)
