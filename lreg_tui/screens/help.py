"""HelpScreen: every key of the screen below it, by what it belongs to, and what else that screen explains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.dom import DOMNode
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Static

HIDDEN_OWNERS = ("Footer", "ToastRack", "Tooltip", "ScrollBar")
KEY_WIDTH = 14
Keys = dict[str, list[str]]
"""What can be done, and by which keys."""


class HelpScreen(ModalScreen[None]):
    """Groups are named by `HELP_TITLE` of their classes; a screen's `HELP_TEXT` follows them."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q", "leave", "close", key_display="esc")]
    DEFAULT_CSS = """
    HelpScreen {
        align: center middle;
        background: $background 60%;
        & > Vertical { width: 84; max-width: 96%; height: auto; max-height: 92%; background: $panel; padding: 1 2; }
        VerticalScroll { height: auto; scrollbar-size: 1 1; }
        Static { height: auto; }
    }
    """

    def __init__(self, explained: Screen[object]) -> None:
        super().__init__()
        self.explained = explained

    def compose(self) -> ComposeResult:
        with Vertical(), VerticalScroll():
            yield Static(self._text(), markup=False)

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    def action_leave(self) -> None:
        self.dismiss(None)

    def _text(self) -> Text:
        colours = self.app.theme_variables
        heading, key = f"bold {colours['primary']}", f"bold {colours['accent']}"
        text = Text()
        for title, keys in groups(self.explained):
            text.append(f"{title}\n", heading)
            for meaning, shown in keys.items():
                text.append(f"  {' '.join(shown):<{KEY_WIDTH}}", key)
                text.append(f"{meaning}\n")
            text.append("\n")
        explanation = getattr(self.explained, "HELP_TEXT", "")
        for number, line in enumerate(explanation.splitlines()):
            text.append(f"{line}\n", heading if number == 0 else "")
        text.rstrip()
        return text


def groups(screen: Screen[object]) -> Iterator[tuple[str, Keys]]:
    """Titles and keys: the screen's own, its widgets' kind by kind, those of everywhere. A key is listed once."""
    seen: set[type[DOMNode]] = set()
    own = list(getattr(screen, "_bindings", ()))
    taken = {(binding.key, _bare(binding.action)) for _, binding in own}
    if keys := _keys(screen, set()):
        yield _title(screen), keys
    for widget in screen.walk_children():
        kind = type(widget)
        if kind in seen or kind.__name__ in HIDDEN_OWNERS or not (isinstance(widget, Widget) and widget.can_focus):
            continue
        seen.add(kind)
        if keys := _keys(widget, taken):
            yield _title(widget), keys
    if keys := _keys(screen.app, taken):
        yield "Everywhere", keys


def _keys(node: DOMNode, without: set[tuple[str, str]]) -> Keys:
    found: Keys = {}
    for _, binding in node._bindings:
        meaning = binding.tooltip or binding.description
        if binding.system or not meaning or (binding.key, _bare(binding.action)) in without:
            continue
        if binding.action.startswith(("scroll_", "page_")):  # what every scrolling widget of Textual has
            continue
        shown = node.app.get_key_display(binding)
        keys = found.setdefault(meaning, [])
        if shown not in keys:
            keys.append(shown)
    return found


def _bare(action: str) -> str:
    """An action without whose it is: a screen may list one of the app's as its own."""
    return action.removeprefix("app.").removeprefix("screen.")


def _title(node: DOMNode) -> str:
    """What people call a screen or widget."""
    name = type(node).__name__.removesuffix("Screen")
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()
    return str(getattr(node, "HELP_TITLE", "") or words.capitalize())
