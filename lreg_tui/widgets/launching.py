"""LaunchingScreen: a few values are asked for, and something is started with them.

It stays until a process has what was started, or tells why it has not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from textual import on, work
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.suggester import SuggestFromList
from textual.widget import Widget
from textual.widgets import Input, Label, Static

from engine.base.errors import LregError
from lreg_tui.text.present import clean_block
from lreg_tui.widgets.dialog import Dialog
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.line_input import LineInput
from lreg_tui.widgets.threads import off_the_loop

Started = TypeVar("Started")


@dataclass(frozen=True)
class Field:
    """A value that is asked for: what it is at first, and a line of help."""

    key: str
    value: str
    help: str
    suggestions: Sequence[str] = ()


class LaunchingScreen(Dialog["Started | None"], Generic[Started]):
    """Ends with what was started, or None. `about` says what that will be."""

    HEADING: ClassVar[str]
    WAITING: ClassVar[str]  # what a start waits for first
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("start", "launch", show=False),
        bind("down", "app.focus_next", keys="down", show=False, priority=True),  # keys that follow go along
        bind("up", "app.focus_previous", keys="up", show=False, priority=True),
    ]
    DEFAULT_CSS = """
    LaunchingScreen {
        #about { margin-bottom: 1; }
        Horizontal { height: 1; }
        Label { width: 10; color: $text-muted; }
        Horizontal:focus-within Label { color: $primary; text-style: bold; }
        Input { width: 1fr; }
        #message { margin-top: 1; max-height: 6; }
    }
    """

    def __init__(self, about: str, fields: Sequence[Field]) -> None:
        super().__init__(self.HEADING)
        self.about = about
        self.fields = {field.key: field for field in fields}
        self.is_starting = False

    def problem(self) -> str:
        """What is wrong with what is typed; "" for nothing."""
        raise NotImplementedError

    def start(self, values: Mapping[str, str]) -> Started:
        """Start it. Raises LregError with the reason. Waits for disks and processes: not called on the loop."""
        raise NotImplementedError

    def contents(self) -> Iterable[Widget]:
        yield Static(self.about, id="about", classes="note", markup=False)
        for field in self.fields.values():
            suggester = SuggestFromList(field.suggestions) if field.suggestions else None
            yield Horizontal(Label(field.key, markup=False), LineInput(field.value, id=field.key, suggester=suggester))
        yield Static("", id="message", classes="note", markup=False)

    def on_mount(self) -> None:
        self._judge()

    def value(self, key: str) -> str:
        return self.query_one(f"#{key}", Input).value.strip()

    @on(Input.Changed)
    def _judge(self) -> None:
        """Show what is wrong, or else what the focused field is for."""
        problem = self.problem()
        focused = self.fields.get(str(self.focused.id)) if self.focused is not None else None
        field = focused or next(iter(self.fields.values()))
        self._say(problem or field.help, bool(problem))

    def on_descendant_focus(self) -> None:
        if not self.is_starting:
            self._judge()

    def _say(self, message: str, is_wrong: bool = False) -> None:
        line = self.query_one("#message", Static)
        line.set_class(is_wrong, "-wrong")
        line.update(clean_block(message))

    @on(Input.Submitted)
    def action_launch(self) -> None:
        if self.is_starting or self.problem():
            self.app.bell()
            return
        self.is_starting = True
        self._say(f"starting …  ({self.WAITING})")
        self._launch({key: self.value(key) for key in self.fields})

    @work(group="launch")
    async def _launch(self, values: Mapping[str, str]) -> None:
        try:
            started = await off_the_loop(lambda: self.start(values))
        except LregError as error:
            self.is_starting = False
            self._say(str(error), is_wrong=True)
        else:
            self.dismiss(started)
