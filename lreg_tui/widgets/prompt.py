"""PromptScreen: one line of text, checked while it is typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.suggester import Suggester
from textual.widgets import Input, Label, Static

from lreg_tui.text.present import clean
from lreg_tui.widgets.ending import Ending
from lreg_tui.widgets.key_footer import KeyFooter
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.line_input import LineInput


class PromptScreen(Ending, ModalScreen[str | None]):
    """Ends with the text, or with None when it was left by escape. It takes the bottom lines; the rest stays in view.

    `check` returns what is wrong with a text, or ""; `changed` is told every text that is right. `note` and `value` may
    have been written by strangers.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        bind("open", "submit", "done"),
        bind("back", "leave", "cancel"),
    ]
    DEFAULT_CSS = """
    PromptScreen {
        align: left bottom;
        background: $background 0%;
        & > Vertical { height: auto; background: $panel; padding: 0 1; }
        Horizontal { height: 1; }
        Label { color: $primary; text-style: bold; margin-right: 1; }
        Input { width: 1fr; padding: 0; background: $panel; }
        #note { height: auto; max-height: 3; color: $text-muted; }
        #note.-wrong { color: $text-error; }
    }
    """

    def __init__(
        self,
        title: str,
        value: str = "",
        *,
        note: str = "",
        check: Callable[[str], str] | None = None,
        suggester: Suggester | None = None,
        changed: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__()
        self.prompt = title
        self.value = value
        self.note = note
        self.check = check
        self.suggester = suggester
        self.changed = changed

    def compose(self) -> ComposeResult:
        with Vertical():
            with Horizontal():
                yield Label(clean(self.prompt, 40), markup=False)
                yield LineInput(clean(self.value), suggester=self.suggester, select_on_focus=False)
            yield Static("", id="note", markup=False)
        yield KeyFooter()  # in place of that of the screen below, whose keys are letters here

    def on_mount(self) -> None:
        self._judge(self.query_one(Input).value)

    def on_input_changed(self, event: Input.Changed) -> None:
        if not self._judge(event.value) and self.changed is not None:
            self.changed(event.value)

    def on_input_submitted(self) -> None:
        self.action_submit()

    def action_submit(self) -> None:
        text = self.query_one(Input).value
        if not self._judge(text):
            self.dismiss(text)

    def _judge(self, text: str) -> str:
        """Show what is wrong with a text, or else the note."""
        wrong = self.check(text) if self.check is not None else ""
        line = self.query_one("#note", Static)
        line.set_class(bool(wrong), "-wrong")
        line.update(clean(wrong or self.note))
        return wrong
