"""Screens that can be left, and dialogs: a page, a question, a line to type, and values to start something with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from rich.console import RenderableType
from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.events import Event, Mount
from textual.screen import ModalScreen, Screen
from textual.suggester import Suggester, SuggestFromList
from textual.visual import VisualType
from textual.widget import Widget
from textual.widgets import Input, Label, Static

from engine.base.errors import LregError
from lreg_tui.text.present import clean, clean_block
from lreg_tui.widgets.keys import KeyFooter, bind
from lreg_tui.widgets.threads import off_the_loop

if TYPE_CHECKING:
    Base = Screen[Any]
else:
    Base = object


class News(Event):
    """What a screen is told of the world."""


class Ending(Base):
    """A screen's `dismiss` takes away this screen and no other, however often and whenever it is called.

    Textual takes away whatever lies on top. One that has others above it, as its work has ended by itself, waits until
    these are gone; one that is gone already does nothing.
    """

    _result: tuple[Any] | None = None  # that it waits with

    @property
    def is_current(self) -> bool:
        """Not below one that covers all: Textual 8.2 draws that one again for each change on the one below it."""
        return super().is_current and (self.is_active or self.app.screen.styles.background.a < 1)

    def dismiss(self, result: Any = None) -> AwaitComplete:
        if self.is_active:
            return super().dismiss(result)
        self._result = (result,)
        return AwaitComplete()

    def action_leave(self) -> Any:
        self.dismiss(None)

    async def on_event(self, event: Event) -> None:
        """One that is being taken away is told all the same, and has no widgets any more, or none yet."""
        if self.display or not isinstance(event, Mount | News):
            await super().on_event(event)

    def on_screen_resume(self) -> None:
        if self._result is not None:
            self.dismiss(*self._result)


class LineInput(Input):
    """One line, in the compact form and without a cursor that blinks: nothing is sent while nothing changes."""

    BINDINGS: ClassVar[list[BindingType]] = [bind("open", "submit", "accept")]

    def __init__(self, value: str = "", **options: Any) -> None:
        super().__init__(value, compact=True, **options)
        self.cursor_blink = False


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
            scrollbar-size: 1 1;
        }
        .note { height: auto; color: $text-muted; }
        .note.-wrong { color: $text-error; }
        .keys { margin-top: 1; text-align: right; }
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
    """Something to read."""

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
        self.query_one(VerticalScroll).focus()

    def action_move(self, how: str) -> None:
        getattr(self.query_one(VerticalScroll), how)(animate=False)


class ConfirmScreen(Dialog[bool]):
    """A question before what cannot be taken back: ends with True for yes. `y` does it; enter is no.

    `question` and `note` may have been written by strangers.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes", tooltip="do it"),
        Binding("n", "answer(False)", "no", tooltip="do nothing", show=False),
        bind("back", "answer(False)", "cancel"),
        bind("open", "answer(False)", tooltip="do nothing", show=False),
    ]

    def __init__(self, question: str, *, note: str = "", yes: str = "yes") -> None:
        super().__init__(question)
        self.note = note
        self.yes = yes

    def contents(self) -> Iterable[Widget]:
        yield Static(clean_block(self.note), classes="note", markup=False)
        keys = (("y", "bold $error"), f" {self.yes}     ", ("esc", "bold"), " cancel")
        yield Static(Content.assemble(*keys), classes="keys")

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)


class PromptScreen(Dialog[str | None]):
    """Ends with the text, or with None when it was left by escape. It takes the bottom lines; the rest stays in view.

    `check` returns what is wrong with a text, or raises that as LregError; `changed` is told every text that is right;
    `replaces`: what is typed takes the place of the value. `note` and `value` may have been written by strangers.
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
        check: Callable[[str], object] | None = None,
        suggester: Suggester | None = None,
        changed: Callable[[str], None] | None = None,
        replaces: bool = False,
    ) -> None:
        super().__init__(title)
        self.line = LineInput(clean(value), suggester=suggester, select_on_focus=replaces)
        self.note = note
        self.check = check
        self.changed = changed

    def contents(self) -> Iterable[Widget]:
        yield self.line
        yield Static("", id="note", classes="note", markup=False)

    def on_mount(self) -> None:
        self._judge(self.line.value)

    def on_input_changed(self, event: Input.Changed) -> None:
        if not self._judge(event.value) and self.changed is not None:
            self.changed(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if not self._judge(event.value):
            self.dismiss(event.value)

    def _judge(self, text: str) -> str:
        """Show what is wrong with a text, or else the note."""
        try:
            result = self.check(text) if self.check is not None else ""
        except LregError as error:
            result = str(error)
        wrong = result if isinstance(result, str) else ""
        line = self.query_one("#note", Static)
        line.set_class(bool(wrong), "-wrong")
        line.update(clean(wrong or self.note))
        return wrong


Started = TypeVar("Started")


@dataclass(frozen=True)
class Field:
    """A value that is asked for: what it is at first, and a line of help."""

    key: str
    value: str
    help: str
    suggestions: Sequence[str] = ()


class LaunchingScreen(Dialog["Started | None"], Generic[Started]):
    """Asks for values to start something with; ends with what was started, or None."""

    HELP_TITLE = "Launch"
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("start", "launch", show=False),
        bind("down", "app.focus_next", keys="down", show=False, priority=True),  # keys that follow go along
        bind("up", "app.focus_previous", keys="up", show=False, priority=True),
    ]
    DEFAULT_CSS = """
    LaunchingScreen {
        #about { max-height: 5; margin-bottom: 1; }
        Horizontal { height: 1; }
        Label { width: 10; color: $text-muted; }
        Horizontal:focus-within Label { color: $primary; text-style: bold; }
        Input { width: 1fr; }
        #message { margin-top: 1; max-height: 8; }
    }
    """

    def __init__(
        self,
        heading: str,
        about: str,
        fields: Sequence[Field],
        problem: Callable[[Mapping[str, str]], str],
        start: Callable[[Mapping[str, str]], Started],
        waits_for: str,
    ) -> None:
        """`about`: what will be started; `problem`: what is wrong with what is typed, "" for nothing; `start` raises
        LregError with the reason, and waits for disks and processes, first for what `waits_for` says."""
        super().__init__(heading)
        self.about, self.problem, self.start, self.waits_for = about, problem, start, waits_for
        self.fields = {field.key: field for field in fields}
        self.is_starting = False

    def contents(self) -> Iterable[Widget]:
        yield Static(self.about, id="about", classes="note", markup=False)
        for field in self.fields.values():
            suggester = SuggestFromList(field.suggestions) if field.suggestions else None
            yield Horizontal(Label(field.key, markup=False), LineInput(field.value, id=field.key, suggester=suggester))
        yield Static("", id="message", classes="note", markup=False)

    def on_mount(self) -> None:
        self._judge()

    @property
    def values(self) -> dict[str, str]:
        """What is typed."""
        return {key: self.query_one(f"#{key}", Input).value.strip() for key in self.fields}

    @on(Input.Changed)
    def _judge(self) -> None:
        """Show what is wrong, or else what the focused field is for."""
        problem = self.problem(self.values)
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
        if self.is_starting or self.problem(self.values):
            self.app.bell()
            return
        self.is_starting = True
        self._say(f"starting …  ({self.waits_for})")
        self._launch(self.values)

    @work(group="launch")
    async def _launch(self, values: Mapping[str, str]) -> None:
        try:
            started = await off_the_loop(lambda: self.start(values))
        except LregError as error:
            self.is_starting = False
            self._say(str(error), is_wrong=True)
        else:
            self.dismiss(started)
