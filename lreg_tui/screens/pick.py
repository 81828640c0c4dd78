"""PickScreen: one of several, by typing a part of it or with the arrow keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Label, OptionList
from textual.widgets.option_list import Option

from lreg_tui.present import clean

LABEL_WIDTH = 20


@dataclass(frozen=True)
class Choice:
    """`key` is what the screen ends with; `label` and `note` are what people read, maybe from strangers."""

    key: str
    label: str
    note: str = ""


class PickScreen(ModalScreen[str | None]):
    """Ends with the key of a choice, or with None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "cancel"),
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "move(-8)", show=False),
        Binding("pagedown", "move(8)", show=False),
    ]
    DEFAULT_CSS = """
    PickScreen {
        align: center middle;
        background: $background 60%;
        & > Vertical { width: 56; max-width: 90%; height: auto; max-height: 80%; background: $panel; padding: 1 2; }
        Label { color: $primary; text-style: bold; }
        Input { padding: 0; background: $panel; margin-bottom: 1; }
        OptionList { border: none; height: auto; max-height: 16; background: $panel; padding: 0; }
    }
    """

    def __init__(self, title: str, choices: Sequence[Choice], chosen: str = "") -> None:
        super().__init__()
        self.prompt = title
        self.choices = choices
        self.chosen = chosen
        self._fitting: list[Choice] = []

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Label(clean(self.prompt), markup=False)
            yield Input(placeholder="type a part of it", compact=True)
            options = OptionList()
            options.can_focus = False
            yield options

    def on_mount(self) -> None:
        self._offer("")

    def on_input_changed(self, event: Input.Changed) -> None:
        self._offer(event.value)

    def _offer(self, part: str) -> None:
        wanted = part.strip().lower()
        self._fitting = [item for item in self.choices if wanted in f"{item.label} {item.key}".lower()]
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options([Option(_content(item)) for item in self._fitting])
        keys = [item.key for item in self._fitting]
        options.highlighted = keys.index(self.chosen) if self.chosen in keys else 0 if keys else None

    def action_move(self, rows: int) -> None:
        options = self.query_one(OptionList)
        if self._fitting:
            options.highlighted = max(0, min((options.highlighted or 0) + rows, len(self._fitting) - 1))

    def on_input_submitted(self, event: events.Event) -> None:
        place = self.query_one(OptionList).highlighted
        if place is not None:
            self.dismiss(self._fitting[place].key)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._fitting[event.option_index].key)

    def action_leave(self) -> None:
        self.dismiss(None)


def _content(item: Choice) -> Content:
    """Text that is never read as markup."""
    note = clean(item.note, 60) if item.note != item.label else ""
    return Content.assemble(f"{clean(item.label, 60):<{LABEL_WIDTH}}", (f"  {note}" if note else "", "dim"))
