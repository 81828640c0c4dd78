"""LregApp: one feed, a stack of screens, and what is the same everywhere: keys, themes, notifications."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import RenderableType
from rich.terminal_theme import TerminalTheme
from textual import work
from textual.app import ComposeResult, SystemCommand
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.events import Event, Paste, Resize
from textual.filter import LineFilter
from textual.notifications import SeverityLevel
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from engine.runs.store import RunStore
from lreg_tui.runs.actions import Trash
from lreg_tui.runs.console_base import ConsoleBase, RunEnded, RunsChanged, SeriesChanged
from lreg_tui.runs.feed import INTERVAL_S, SLOW_INTERVAL_S, Feed, RunRow
from lreg_tui.system import session, terminal
from lreg_tui.system.config import Config
from lreg_tui.system.keys import key_of
from lreg_tui.text import present
from lreg_tui.widgets import themes
from lreg_tui.widgets.dialog import Ending
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.themes import NoColour
from lreg_tui.widgets.threads import off_the_loop

if TYPE_CHECKING:
    from textual.command import Provider

WARM_UP_S = 1.5  # after the start
MOST_TOLD = 500
SAME_S = 5.0  # in which a message that comes again is the same
FUNCTION_KEY = re.compile(r"f\d+")
LETTERS = (("up", "k", "up"), ("down", "j", "down"), ("first", "g", "home"), ("last", "G", "end"))
SCREENS = {
    "run": "runs.run_screen.RunScreen",
    "compare": "compare.compare_screen.CompareScreen",
    "transfer": "transfers.transfer_screen.TransferScreen",
    "studies": "studies.studies_screen.StudiesScreen",
    "study": "studies.study_screen.StudyScreen",
    "editor": "presets.preset_editor.PresetEditorScreen",
    "palette": "app.help.Palette",
    "help": "app.help.HelpScreen",
    "messages": "app.help.NoticesScreen",
}
SMALLEST = (60, 20)  # columns and lines below which a message stands in place of the screen


def key_commands() -> type[Provider]:
    """What the palette offers beside Textual's own commands: imported when it is opened."""
    from lreg_tui.app.help import KeyCommands

    return KeyCommands


class TooSmallScreen(Ending, ModalScreen[None]):
    """Says how large the terminal has to be; goes away by itself when it is."""

    BINDINGS: ClassVar[list[BindingType]] = [bind("quit", "app.quit", show=False)]
    DEFAULT_CSS = """
    TooSmallScreen { align: center middle; background: $background; }
    TooSmallScreen > Static { width: 100%; text-align: center; }
    """

    def __init__(self, columns: int, lines: int) -> None:
        super().__init__()
        self.wanted = f"lreg needs {columns} x {lines}; runs go on meanwhile"

    def compose(self) -> ComposeResult:
        yield Static(self.wanted, markup=False)


class LregApp(ConsoleBase):
    """The console on one run store. It reads run folders and starts processes; quitting it touches no run."""

    TITLE = "lreg"
    ENABLE_COMMAND_PALETTE = True
    ALLOW_IN_MAXIMIZED_VIEW = "KeyFooter"
    CSS = """
    .panel:focus-within, RunTable:focus, KeyedTable:focus, SettingList:focus, SheetView:focus, LogTail:focus {
        outline-left: outer $accent;  /* over a blank column: nothing moves when the focus does */
    }
    .panel LogTail:focus { outline-left: none; }
    """
    COMMANDS = ConsoleBase.COMMANDS | {key_commands}
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("help", "help", keys="?"),
        bind("help", "help", keys="f1", show=False, priority=True),  # also where a ? is a letter
        bind("add", "new_run", "new run"),
        bind("jump", "jump"),
        bind("messages", "messages"),
        bind("quit", "quit"),
        # where what has the focus knows the arrow keys only
        *(bind(meaning, f"simulate_key('{key}')", keys=letter, show=False) for meaning, letter, key in LETTERS),
    ]
    _has_told_of_pastes = False
    _ansi: tuple[str, TerminalTheme] | None = None  # of which theme, and its colours

    def __init__(
        self,
        store: RunStore,
        *,
        data_dir: Path | None = None,
        slow_link: bool = False,
        config: Config | None = None,
        session_path: Path | None = None,
    ) -> None:
        super().__init__()
        self.store = store
        self.data_dir = data_dir
        self.slow_link = slow_link
        self.config = config or Config()
        self.session_path = session_path
        self.remembered = session.load(session_path)
        for theme in themes.THEMES:
            self.register_theme(theme)
        chosen = self.config.theme or self.remembered.theme
        self.theme = chosen if chosen in self.available_themes else themes.DEFAULT  # before the styles are made
        self.trash = Trash(store.root)
        self.under_way = set()
        self.told: deque[tuple[str, str, float]] = deque(maxlen=MOST_TOLD)  # see NoticesScreen
        usual_s = SLOW_INTERVAL_S if slow_link else INTERVAL_S
        self.feed = Feed(store, self._tell, usual_s if self.config.refresh is None else self.config.refresh)
        self._own_filters = [NoColour()] if self.no_color else []

    def get_default_screen(self) -> Screen[Any]:
        from lreg_tui.runs.dashboard import DashboardScreen

        return self._of_this_size(DashboardScreen())

    def on_mount(self) -> None:
        if not self.is_headless:
            terminal.stop_when_told(self)
        self.call_after_refresh(self.feed.start)  # the first paint comes first
        self._take_over_trash()
        if not self.is_headless:
            self.set_timer(WARM_UP_S, self._warm_up)

    @work(group="warm up")
    async def _warm_up(self) -> None:
        """Import what the first key most often asks for while nobody waits: half of the time that opening takes."""
        for screen in ("runs.run_screen", "app.help", "presets.preset_editor"):
            await off_the_loop(partial(import_module, f"lreg_tui.{screen}"), "warm up")

    @work(group="trash")
    async def _take_over_trash(self) -> None:
        if count := await off_the_loop(self.trash.take_over, "trash"):
            runs = present.count(count, "run")
            words = f"{runs} deleted in a console that was killed: {key_of('undo')} brings back what went last"
            self.notify(words, markup=False)
            self.screen.refresh_bindings()

    def on_unmount(self) -> None:
        self.feed.stop()
        self.trash.empty()
        session.save(replace(self.remembered, theme=self.theme), self.session_path)

    @property
    def ansi_theme(self) -> TerminalTheme:
        """A red that text asks for is the theme's: one that colour-blind people can tell, where it is made for them."""
        if self._ansi is None or self._ansi[0] != self.theme:
            self._ansi = self.theme, themes.terminal_theme(self.current_theme.to_color_system().generate())
        return self._ansi[1]

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), *self._own_filters]

    def _tell(self, rows: tuple[RunRow, ...] | None, fresh: frozenset[str], ended: list[RunRow]) -> None:
        """Called in the feed's thread: pass on what changed to the screen that is shown and those below it."""
        for row in ended:
            self.post_message(RunEnded(row))
        for screen in self.screen_stack:
            if rows is not None:
                screen.post_message(RunsChanged(rows))
            if fresh:
                screen.post_message(SeriesChanged(fresh))

    def on_run_ended(self, message: RunEnded) -> None:
        row = message.row
        if row.state == "finished" and any(tag.startswith("study:") for tag in row.tags):
            return  # one of hundreds
        severity: SeverityLevel = "information" if row.state in ("finished", "stopped") else "error"
        says_why = row.state == "failed" and row.message  # else a message is what it was at
        reason = f": {present.clean(row.message, 120)}" if says_why else ""
        self.notify(f"{present.clean(row.name, 60)} {row.state}{reason}", severity=severity, markup=False)

    async def act_on(self, event: Event) -> None:
        """What is pasted goes into the text field in focus, without what is no text; elsewhere it does nothing."""
        if isinstance(event, Paste):
            from textual.widgets import Input

            if not self.takes_text():
                if event.text and not self._has_told_of_pastes:
                    self._has_told_of_pastes = True
                    self.notify("what is pasted goes into text fields only", severity="warning", markup=False)
                return
            event.text = present.without_controls(event.text)
            if isinstance(self.focused, Input):
                event.text = " ".join(event.text.split("\n")).replace("\t", " ").strip()
        await super().act_on(event)

    def takes_text(self) -> bool:
        from textual.widgets import Input, TextArea

        focused = self.focused if self._screen_stack else None
        return isinstance(focused, Input) or (isinstance(focused, TextArea) and not focused.read_only)

    def on_resize(self, event: Resize) -> None:
        """Below the smallest size a message hides the screen, which stays as it is."""
        fits = event.size.width >= SMALLEST[0] and event.size.height >= SMALLEST[1]
        if fits and isinstance(self.screen, TooSmallScreen):
            self.screen.dismiss()
        elif not fits and not isinstance(self.screen, TooSmallScreen):
            self.push_screen(TooSmallScreen(*SMALLEST))

    def push_screen(self, screen: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(screen, Screen):
            self._of_this_size(screen)
        return super().push_screen(screen, *arguments, **options)

    def _of_this_size(self, screen: Screen[Any]) -> Screen[Any]:
        """The screen with the classes of the size from the start: else Textual makes the styles twice."""
        width, height = self.size
        for size, breakpoints in ((width, screen.HORIZONTAL_BREAKPOINTS), (height, screen.VERTICAL_BREAKPOINTS)):
            fitting = sorted(item for item in breakpoints or () if item[0] <= size)
            screen.add_class(*(name for _, name in fitting[-1:]))
        return screen

    def pop_screen(self) -> AwaitComplete:
        """The dashboard stays, whoever asks."""
        return super().pop_screen() if len(self.screen_stack) > 1 else AwaitComplete()

    def get_key_display(self, binding: Binding) -> str:
        display = super().get_key_display(binding)
        return display.upper() if FUNCTION_KEY.fullmatch(display) else display

    # -- going places ------------------------------------------------------------------------------------------------

    def open(self, screen: str, *arguments: Any, **options: Any) -> None:
        """Its module is imported only now. A dialog is not opened above itself."""
        module, _, name = SCREENS[screen].rpartition(".")
        kind = getattr(import_module(f"lreg_tui.{module}"), name)
        if not (self.screen.is_modal and isinstance(self.screen, kind)):
            self.push_screen(kind(*arguments, **options))

    def action_new_run(self) -> None:
        self.open_editor()

    def action_studies(self) -> None:
        self.open("studies")

    def action_command_palette(self) -> None:
        self.open("palette")

    def action_help(self) -> None:
        self.open("help", self.screen)

    def notify(self, message: str, *, severity: SeverityLevel = "information", **options: Any) -> None:
        """One event is one message, which can be read again; what was told a moment ago is not told twice."""
        now = time.time()
        if not (self.told and self.told[-1][0] == message and now - self.told[-1][2] < SAME_S):
            super().notify(message, severity=severity, **options)
            self.told.append((message, severity, now))

    def action_messages(self) -> None:
        self.open("messages", self.told)

    def action_jump(self) -> None:
        from lreg_tui.app.help import JumpScreen

        self.push_screen(JumpScreen(self.screen), lambda going: going and going())

    def exit(self, result: Any = None, return_code: int = 0, message: RenderableType | None = None) -> None:
        """Once the screens that are being opened stand: an app that ends mounts no more widgets, but tells of them."""
        opening = [screen for screen in self.screen_stack if not screen.is_mounted]
        if opening:
            opening[-1].call_later(self.exit, result, return_code, message)
        else:
            super().exit(result, return_code, message)

    async def action_quit(self) -> None:
        """Quit, unless a screen has something to lose: it asks then, and quits itself. Runs go on either way."""
        if not any(getattr(screen, "keeps_from_quitting", bool)() for screen in self.screen_stack):
            self.exit()

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        yield from super().get_system_commands(screen)
        yield SystemCommand("New run", "Pick a preset, edit it, launch it", self.action_new_run)
        yield SystemCommand("Studies", "Many runs as one: grid, reports; start one", self.action_studies)
        yield SystemCommand("Messages", "What was told so far", self.action_messages)
        yield SystemCommand("Help", "The keys of this screen", self.action_help)
