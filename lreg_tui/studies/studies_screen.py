"""StudiesScreen: the studies of the run store, a line each: how their runs are, and how long they will take."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import ModalScreen
from textual.widgets import DataTable, Static

from lreg_tui.presets import picking
from lreg_tui.runs.acting import ActingScreen
from lreg_tui.runs.feed import RunRow
from lreg_tui.studies.study_rows import StudyList, StudyLook
from lreg_tui.system.keys import key_of
from lreg_tui.text import present
from lreg_tui.text.present import clean
from lreg_tui.widgets.keyed_table import KeyedTable
from lreg_tui.widgets.keys import KeyFooter, bind
from lreg_tui.widgets.threads import off_the_loop, unless_busy

COLUMNS = ("study", "state", "done", "runs", "running", "failed", "ETA", "age", "to come")
FIRST_TO_GO = ("to come", "age", "running", "failed")  # of them, where there is no room
NAME = 19  # characters that there is always room for
OTHERS = 70  # that the other columns take
NOTHING = f"No study yet. {key_of('add')} picks one and starts it; so does lreg study on the command line."
RUNNING, FAILED = ("running", "paused", "queued"), ("failed", "crashed")


STEERING = (
    bind("stop", "stop_run", tooltip="stop the study: every run writes a checkpoint and ends"),
    bind("pause", "pause_run", "pause", "pause the study and its runs: the same key lets it go on"),
    bind("pause", "continue_run", "continue", "let the paused study go on"),
    bind("resume", "resume_run", tooltip="go on with what is left; what has failed is tried again"),
)


class SteeringScreen(ActingScreen, inherit_bindings=False):
    """Its subjects are the folders of studies, as rows."""

    STOPPING = (
        "Stop {} and all its runs?",
        f"Every run of it writes a checkpoint and ends; {key_of('resume')} goes on with them.",
    )

    def on_mount(self) -> None:
        self.set_interval(self.lreg.feed.interval, self.look)
        self.look()

    def on_screen_resume(self) -> None:
        self.look()

    @work(group="look")
    @unless_busy
    async def look(self) -> None:
        """Read what is there now, unless nobody sees it."""
        if self.is_current or isinstance(self.app.screen, ModalScreen):
            await self.read()

    async def read(self) -> None:
        """Read the folders, off the loop, and show what is new."""
        raise NotImplementedError

    def say(self, where: str, content: object) -> None:
        """Only what is different is drawn again."""
        line = self.query_one(f"#{where}", Static)
        if line.content != content:
            line.update(content)  # type: ignore[arg-type]

    def resume(self, path: Path) -> str:
        from lreg_tui.studies.launch_study import resume

        return resume(path, self.lreg.data_dir)

    def act(self, *args: Any, **how: Any) -> None:
        super().act(*args, **{"then": self.look, **how})


class StudiesScreen(SteeringScreen, inherit_bindings=False):
    """Newest first. Everything is read from folders, and leaving changes nothing."""

    CSS_PATH = "studies_screen.tcss"
    HELP_TITLE = "Studies"
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("open", "open", tooltip="the grid of its runs", priority=True),
        bind("add", "start", "new study", "pick a study and start it"),
        *STEERING,
        bind("copy", "copy_id", "copy id", "copy the id to the clipboard"),
        bind("back", "leave", tooltip="to the screen before; studies go on"),
    ]

    missing: Sequence[str] = ()  # columns that there is no room for

    def __init__(self) -> None:
        super().__init__(classes="-nothing")
        self.table = KeyedTable()

    def compose(self) -> ComposeResult:
        yield Static("studies", id="title", markup=False)
        yield self.table
        yield Static("looking …", id="instead", markup=False)
        yield Static(id="said", markup=False)
        yield KeyFooter()

    def on_resize(self) -> None:
        if self.rows:
            self._show()

    @cached_property
    def studies(self) -> StudyList:
        return StudyList(self.lreg.store)

    @property
    def rows(self) -> Sequence[RunRow]:
        return self.studies.rows

    @property
    def selected(self) -> RunRow | None:
        key = self.table.key if self.is_mounted else ""
        return next((row for row in self.rows if row.id == key), None)

    def subjects(self) -> Sequence[RunRow]:
        return [self.selected] if self.selected is not None else []

    # -- looking -----------------------------------------------------------------------------------------------------

    async def read(self) -> None:
        """How the studies are, then their runs one study after the other: what is known is shown meanwhile."""
        due = await off_the_loop(self.studies.look, "studies")
        self._show()
        for study_id in due:
            await off_the_loop(partial(self.studies.count, study_id), "studies")
            self._show()

    def _show(self) -> None:
        name_room = max(NAME, self.size.width - OTHERS)
        all_cells = {row.id: cells(row, self.studies.seen(row.id), name_room) for row in self.rows}
        widths = {name: 2 + max([len(name), *(len(each[name]) for each in all_cells.values())]) for name in COLUMNS}
        columns, self.missing = list(COLUMNS), []
        for name in FIRST_TO_GO:
            if sum(widths[column] for column in columns) >= self.size.width:
                columns.remove(name)
                self.missing.append(name)
        self.table.lay_out([Text(name, justify="right" if name in COLUMNS[2:] else "left") for name in columns])
        self.table.show({study_id: [cell[column] for column in columns] for study_id, cell in all_cells.items()})
        if self.has_class("-nothing") and self.rows:
            self.table.focus()
        self.set_class(not self.rows, "-nothing")
        self._tell_selected()

    @on(DataTable.RowHighlighted)
    def _tell_selected(self) -> None:
        live = sum(row.is_live for row in self.rows)
        title = Text.assemble(("studies", "bold"), f"  {len(self.rows)}", f", {live} live" if live else "")
        title.append(f"   no room for: {', '.join(self.missing)}" if self.missing else "", "dim")
        about, row = Text(), self.selected
        if row is not None:
            look = self.studies.seen(row.id)
            problem = look.problem if look is not None else ""
            about = Text.assemble((clean(row.id, 200), "dim"), "\n")
            about.append(clean(problem or row.message, 300), "bold red" if problem else "")
        for where, content in (("title", title), ("instead", Text(NOTHING)), ("said", about)):
            self.say(where, content)
        self.note_subjects()

    # -- keys --------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return bool(self.rows) if action == "open" else super().check_action(action, parameters)

    @on(DataTable.RowSelected)
    def action_open(self) -> None:
        if self.selected is not None:
            self.lreg.open_study(self.selected.path)

    @work(group="ask", exclusive=True)
    async def action_start(self) -> None:
        from lreg_tui.studies.launch_study import PickStudyScreen, launching

        offer = await PickStudyScreen.ask(self.app, lambda: picking.studies(Path()))
        if offer is None:
            return
        started = await self.app.push_screen_wait(launching(offer, self.lreg.store, self.lreg.data_dir))
        if started is not None:
            if started.was_there:
                self.app.notify(f"going on with {clean(started.path.name, 200)}", markup=False)
            self.table.select(started.path.name)
            self.look()
            self.lreg.open_study(started.path)


def cells(row: RunRow, look: StudyLook | None, name_room: int) -> dict[str, Text]:
    """What a study shows in each column. Its runs may not be counted yet."""
    state = Text("damaged", "bold red") if look is not None and look.problem else present.state_text(row.state)
    readable = look if look is not None and not look.problem else None
    counts = readable.counts if readable is not None else {}

    def count(*states: str, style: str = "") -> Text:
        number = sum(counts.get(state, 0) for state in states)
        return Text(str(number) if readable else "", style if number else "dim", justify="right")

    right = {
        "done": present.percent(readable.progress, 0) if readable else "",
        "runs": f"{counts.get('finished', 0)}/{len(readable.cells)}" if readable else "",
        "ETA": present.duration(row.eta_s) if row.eta_s is not None else "",
        "age": present.age(row.created),
    }
    return {
        "study": Text(clean(row.name, name_room), "bold"),
        "state": state,
        "running": count(*RUNNING, style="green"),
        "failed": count(*FAILED, style="bold red"),
        "to come": count("missing"),
        **{column: Text(words, justify="right") for column, words in right.items()},
    }
