"""LaunchStudyScreen: name of a study, how many of its runs at once, and its start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from engine.errors import LregError
from engine.runs import STUDIES, RunStore
from lreg_tui import study_start
from lreg_tui.offers import Offer
from lreg_tui.present import clean, clean_block
from lreg_tui.screens.ending import Ending
from lreg_tui.threads import off_the_loop
from lreg_tui.widgets.key_footer import KeyFooter
from lreg_tui.widgets.line_input import LineInput

JOBS = re.compile(r"\d{1,4}")
LONGEST_NAME = 40
HELP = {"name": "what the study is called; its runs are called after it", "jobs": "runs at once; 0: as many as fit"}


class LaunchStudyScreen(Ending, ModalScreen[Path | None]):
    """Ends with the folder of the study that was started, or None. It stays until a process has it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,ctrl+l,f5", "launch", "launch", key_display="⏎"),
        Binding("down", "app.focus_next", show=False, priority=True),
        Binding("up", "app.focus_previous", show=False, priority=True),
        Binding("escape", "leave", "back"),
    ]
    DEFAULT_CSS = """
    LaunchStudyScreen {
        align: center middle; background: $background 60%;
        & > Vertical { width: 76; max-width: 95%; height: auto; padding: 1 2; background: $panel; }
        #heading { text-style: bold; margin-bottom: 1; }
        #about { color: $foreground 55%; margin-bottom: 1; height: auto; max-height: 4; }
        Horizontal { height: 1; }
        Label { width: 10; color: $foreground 55%; }
        Horizontal:focus-within Label { color: $primary; text-style: bold; }
        Input { width: 1fr; border: none; height: 1; padding: 0; background: $surface; }
        #message { margin-top: 1; height: auto; max-height: 8; color: $foreground 55%; }
        #message.-wrong { color: $text-error; }
    }
    """

    def __init__(self, offer: Offer, store: RunStore, data_dir: Path | None = None) -> None:
        super().__init__()
        self.offer = offer
        self.store = store
        self.data_dir = data_dir
        self.is_starting = False

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static("Start a study", id="heading", markup=False)
            yield Static(clean(f"{self.offer.reference}: {self.offer.about}"), id="about", markup=False)
            for key, value in {"name": clean(Path(self.offer.name).stem, LONGEST_NAME), "jobs": "0"}.items():
                with Horizontal():
                    yield Label(key, markup=False)
                    yield LineInput(value, id=key)
            yield Static("", id="message", markup=False)
        yield KeyFooter()

    def _value(self, key: str) -> str:
        return self.query_one(f"#{key}", Input).value.strip()

    def problem(self) -> str:
        """What is wrong with what is typed; "" for nothing. The rest of a name is judged with the study."""
        if len(self._value("name")) > LONGEST_NAME:
            return f"name: found {len(self._value('name'))} characters; allowed: {LONGEST_NAME} at most"
        found = self._value("jobs")
        return "" if JOBS.fullmatch(found) else f"jobs: found {found or 'nothing'}; allowed: an integer from 0 to 9999"

    @on(Input.Changed)
    def _judge(self) -> None:
        problem = self.problem()
        focused = self.focused.id if self.focused is not None and self.focused.id in HELP else "name"
        self._say(problem or HELP[str(focused)], bool(problem))

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
        self._say("starting …  (the data is looked for first)")
        self._start(self._value("name"), int(self._value("jobs")))

    @work(group="launch")
    async def _start(self, name: str, jobs: int) -> None:
        start = study_start.start
        try:
            study_id, was_there = await off_the_loop(
                lambda: start(self.offer.reference, self.store, name, jobs, self.data_dir)
            )
        except LregError as error:
            self.is_starting = False
            self._say(str(error), is_wrong=True)
            return
        if was_there:
            self.app.notify(f"going on with {clean(study_id, 200)}", markup=False)
        self.end(self.store.root / STUDIES / study_id)

    def action_leave(self) -> None:
        self.dismiss(None)
