"""PromptScreen: one line of text, checked while it is typed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from textual.suggester import Suggester
from textual.widget import Widget
from textual.widgets import Input, Static

from lreg_tui.text.present import clean
from lreg_tui.widgets.dialog import Dialog
from lreg_tui.widgets.line_input import LineInput


class PromptScreen(Dialog[str | None]):
    """Ends with the text, or with None when it was left by escape. It takes the bottom lines; the rest stays in view.

    `check` returns what is wrong with a text, or ""; `changed` is told every text that is right. `note` and `value` may
    have been written by strangers.
    """

    DEFAULT_CSS = """
    PromptScreen {
        align: left bottom; background: $background 0%;
        & > .dialog { width: 100%; max-width: 100%; }
        .note { max-height: 3; }
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
        super().__init__(title)
        self.value = value
        self.note = note
        self.check = check
        self.suggester = suggester
        self.changed = changed

    def contents(self) -> Iterable[Widget]:
        yield LineInput(clean(self.value), suggester=self.suggester, select_on_focus=False)
        yield Static("", id="note", classes="note", markup=False)

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
