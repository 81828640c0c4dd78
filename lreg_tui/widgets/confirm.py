"""ConfirmScreen: a question before what cannot be taken back. `y` does it; enter alone does not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Button, Static

from lreg_tui.text.present import clean_block
from lreg_tui.widgets.dialog import Dialog
from lreg_tui.widgets.keys import bind


class ConfirmScreen(Dialog[bool]):
    """Ends with True for yes. `question` and `note` may have been written by strangers."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes", tooltip="do it"),
        Binding("n", "answer(False)", "no", tooltip="do nothing", show=False),
        bind("back", "answer(False)", "cancel"),
        bind("left", "app.focus_previous", "other answer", show=False),
        bind("right", "app.focus_next", "other answer", show=False),
    ]
    DEFAULT_CSS = """
    ConfirmScreen {
        Horizontal { height: 1; margin-top: 1; align-horizontal: right; }
        Button { margin-left: 2; min-width: 10; }
    }
    """

    def __init__(self, question: str, *, note: str = "", yes: str = "yes") -> None:
        super().__init__(question)
        self.note = note
        self.yes = yes

    def contents(self) -> Iterable[Widget]:
        yield Static(clean_block(self.note), classes="note", markup=False)
        yield Horizontal(
            Button(f"y  {self.yes}", id="yes", compact=True, variant="error"),
            Button("esc  cancel", id="no", compact=True),
        )

    def on_mount(self) -> None:
        self.query_one("#no").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)
