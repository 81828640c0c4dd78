"""StudiesScreen: the studies of the run store, a line each: how their runs are, and how long they will take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import DataTable, Static

from lreg_tui.runs.feed import RunRow
from lreg_tui.studies.folders import StudyList
from lreg_tui.studies.steering import STEERING, SteeringScreen
from lreg_tui.studies.study_rows import StudyLook
from lreg_tui.text import present
from lreg_tui.text.present import clean
from lreg_tui.widgets.key_footer import KeyFooter
from lreg_tui.widgets.threads import off_the_loop

COLUMNS = ("study", "state", "done", "runs", "running", "failed", "ETA", "age", "to come")
WIDE = 90  # columns of a terminal from which the last of them fits, too
RIGHT = COLUMNS[2:]
NAME = 19  # characters, at most
NOTHING = "No study yet. n picks one and starts it; so does lreg study on the command line."
RUNNING, FAILED = ("running", "paused", "queued"), ("failed", "crashed")


class StudiesScreen(SteeringScreen, inherit_bindings=False):
    """Newest first. Everything is read from folders, and leaving changes nothing."""

    HELP_TITLE = "Studies"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "open", key_display="⏎", tooltip="the grid of its runs", priority=True),
        Binding("n", "start", "start", tooltip="pick a study and start it"),
        *STEERING,
        Binding("y", "copy_id", "copy id", tooltip="copy the id to the clipboard"),
        Binding("escape", "leave", "back", tooltip="to the screen before; studies go on"),
    ]
    DEFAULT_CSS = """
    StudiesScreen {
        #title { height: 1; padding: 0 1; background: $panel; text-wrap: nowrap; text-overflow: ellipsis; }
        DataTable {
            height: 1fr; margin-top: 1; background: $background; background-tint: transparent;
            overflow-x: hidden; scrollbar-size: 1 1;
            &:focus { background-tint: transparent; }
            & > .datatable--header { background: $background; color: $text-muted; text-style: none; }
            & > .datatable--cursor, &:focus > .datatable--cursor { background: $primary 30%; text-style: none; }
        }
        #instead { display: none; height: 1fr; padding: 1 2; color: $text-muted; }
        &.-nothing DataTable { display: none; }
        &.-nothing #instead { display: block; }
        #said { height: 2; padding: 0 1; background: $surface; text-wrap: nowrap; text-overflow: ellipsis; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self._list: StudyList | None = None
        self._is_looking = False
        self.columns: Sequence[str] = ()
        self._wanted = ""  # the study to put the cursor on when it appears

    def compose(self) -> ComposeResult:
        yield Static("studies", id="title", markup=False)
        yield DataTable[Text](cursor_type="row", cell_padding=1, cursor_foreground_priority="renderable")
        yield Static("looking …", id="instead", markup=False)
        yield Static(id="said", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        self._list = StudyList(self.lreg.store)
        self._lay_out()
        self.add_class("-nothing")
        self.set_interval(self.lreg.feed.interval, self.look)
        self.look()

    def on_resize(self) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        """The columns that fit."""
        columns = COLUMNS if self.size.width >= WIDE else COLUMNS[:-1]
        if columns != self.columns:
            self.columns = columns
            self._wanted = self.selected.id if self.selected is not None else self._wanted
            self.table.clear(columns=True)
            for column in columns:
                self.table.add_column(Text(column, justify="right" if column in RIGHT else "left"), key=column)
            if self.rows:
                self._show()

    @property
    def table(self) -> DataTable[Text]:
        return self.query_one(DataTable)

    @property
    def rows(self) -> Sequence[RunRow]:
        return self._list.rows if self._list is not None else ()

    @property
    def selected(self) -> RunRow | None:
        if not self.is_mounted or not self.table.row_count:
            return None
        key = self.table.coordinate_to_cell_key(self.table.cursor_coordinate).row_key.value
        return next((row for row in self.rows if row.id == key), None)

    def subjects(self) -> Sequence[RunRow]:
        return [self.selected] if self.selected is not None else []

    # -- looking -----------------------------------------------------------------------------------------------------

    def on_screen_resume(self) -> None:
        self.look()

    @work(group="look")
    async def look(self) -> None:
        """Read how the studies are, then count their runs one by one: what is known is shown meanwhile."""
        if self._is_looking or not (self.is_current or isinstance(self.app.screen, ModalScreen)):
            return
        found = self._list
        assert found is not None
        self._is_looking = True
        try:
            due = await off_the_loop(found.look, "studies")
            self._show()
            for study_id in due:
                await off_the_loop(lambda study_id=study_id: found.count(study_id), "studies")  # type: ignore[misc]
                self._show()
        finally:
            self._is_looking = False

    def _show(self) -> None:
        assert self._list is not None
        table, ids = self.table, [row.id for row in self.rows]
        if ids != [key.value for key in table.rows]:
            current = self._wanted or (self.selected.id if self.selected is not None else "")
            table.clear()
            for row in self.rows:
                found = cells(row, self._list.looks.get(row.id))
                table.add_row(*(found[column] for column in self.columns), key=row.id)
            if current in ids:
                table.move_cursor(row=ids.index(current))
                self._wanted = ""
        for row in self.rows:
            found = cells(row, self._list.looks.get(row.id))
            for column in self.columns:
                if table.get_cell(row.id, column) != found[column]:
                    table.update_cell(row.id, column, found[column], update_width=True)
        if self.has_class("-nothing") and ids:
            table.focus()
        self.set_class(not ids, "-nothing")
        self._tell_selected()

    def _tell_selected(self) -> None:
        live = sum(row.is_live for row in self.rows)
        title = Text.assemble(("studies", "bold"), f"  {len(self.rows)}", f", {live} live" if live else "")
        said = Text(NOTHING)
        row = self.selected
        look = self._list.looks.get(row.id) if self._list is not None and row is not None else None
        about = Text() if row is None else Text(clean(row.id, 200), "dim")
        if look is not None and look.problem:
            about.append(f"\n{clean(look.problem, 300)}", "bold red")
        elif row is not None:
            about.append(f"\n{clean(row.message, 300)}")
        for where, what in (("title", title), ("instead", said), ("said", about)):
            shown = self.query_one(f"#{where}", Static)
            if shown.content != what:
                shown.update(what)
        self.note_subjects()

    def on_data_table_row_highlighted(self) -> None:
        self._tell_selected()

    # -- keys --------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return bool(self.rows) if action == "open" else super().check_action(action, parameters)

    def on_data_table_row_selected(self) -> None:
        self.action_open()

    def action_open(self) -> None:
        if self.selected is not None:
            self.lreg.open_study(self.selected.path)

    @work(group="ask", exclusive=True)
    async def action_start(self) -> None:
        from lreg_tui.studies.launch_study import LaunchStudyScreen
        from lreg_tui.studies.pick_study import PickStudyScreen

        offer = await self.app.push_screen_wait(PickStudyScreen(self.lreg.feed.rows))
        if offer is None:
            return
        started = await self.app.push_screen_wait(LaunchStudyScreen(offer, self.lreg.store, self.lreg.data_dir))
        if started is not None:
            if started.was_there:
                self.app.notify(f"going on with {clean(started.path.name, 200)}", markup=False)
            self._wanted = started.path.name
            self._looked()
            self.lreg.open_study(started.path)

    def action_leave(self) -> None:
        self.dismiss()


def cells(row: RunRow, look: StudyLook | None) -> dict[str, Text]:
    """What a study shows in each column. Its runs may not be counted yet."""
    state = Text("damaged", "bold red") if look is not None and look.problem else present.state_text(row.state)
    known = look is not None and not look.problem
    counts = look.counts if look is not None else {}

    def count(*states: str, style: str = "") -> Text:
        found = sum(counts.get(state, 0) for state in states)
        return Text(str(found) if known else "", style if found else "dim", justify="right")

    right = {
        "done": present.percent(look.progress, 0) if look is not None and known else "",
        "runs": f"{counts.get('finished', 0)}/{len(look.cells)}" if look is not None and known else "",
        "ETA": present.duration(row.eta_s) if row.eta_s is not None else "",
        "age": present.age(row.created),
    }
    return {
        "study": Text(clean(row.name, NAME), "bold"),
        "state": state,
        "running": count(*RUNNING, style="green"),
        "failed": count(*FAILED, style="bold red"),
        "to come": count("missing"),
        **{column: Text(words, justify="right") for column, words in right.items()},
    }
