"""ConfirmScreen: a question before what cannot be taken back. `y` does it; enter alone does not."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from lreg_tui.text.present import clean, clean_block
from lreg_tui.widgets.ending import Ending
from lreg_tui.widgets.key_footer import KeyFooter
from lreg_tui.widgets.keys import bind


class ConfirmScreen(Ending, ModalScreen[bool]):
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
        align: center middle;
        background: $background 60%;
        & > Vertical {
            width: 64; max-width: 90%; height: auto;
            padding: 1 2; background: $panel; border: round $warning;
        }
        .note { color: $text-muted; margin-top: 1; }
        Horizontal { height: 1; margin-top: 1; align-horizontal: right; }
        Button { margin-left: 2; min-width: 10; }
    }
    """

    def __init__(self, question: str, *, note: str = "", yes: str = "yes") -> None:
        super().__init__()
        self.question = question
        self.note = note
        self.yes = yes

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(clean(self.question), markup=False)
            if self.note:
                yield Static(clean_block(self.note), classes="note", markup=False)
            with Horizontal():
                yield Button(f"y  {self.yes}", id="yes", compact=True, variant="error")
                yield Button("n  cancel", id="no", compact=True)
        yield KeyFooter()  # in place of that of the screen below

    def on_mount(self) -> None:
        self.query_one("#no").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)
