"""JobPane: transfer jobs of the store, and what the one under the cursor has found so far.

The screen around it is an ActingScreen: it steers the job.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import DataTable, Static
from textual.widgets.data_table import RowDoesNotExist

from engine.runs.kinds import TRANSFER
from lreg_tui.runs import actions
from lreg_tui.runs.feed import RunRow
from lreg_tui.text import present
from lreg_tui.text.sheets import Sheet
from lreg_tui.transfers.transfer_jobs import Job, read_job, read_results
from lreg_tui.widgets.sheet_view import SheetView
from lreg_tui.widgets.threads import off_the_loop

COLUMNS = ("state", "done", "ETA", "started", "what")
AGES_EVERY_S = 20.0
BAR = 24  # columns of the progress bar
NO_JOB = "No transfer job yet. Fill in the request, and start it with F5."
READING = "reading …"
DAMAGED = Text("damaged plan", "red")


class JobPane(Vertical):
    """Newest job first. Keys act on the job under the cursor; leaving changes nothing for it."""

    DEFAULT_CSS = """
    JobPane { height: 1fr; padding: 0 1; }
    JobPane DataTable {
        height: auto; max-height: 35%; background: $background; overflow-x: hidden; scrollbar-size-vertical: 1;
    }
    JobPane #job-progress { height: auto; margin: 1 0; }
    JobPane SheetView { height: 1fr; padding: 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "screen.stop_run", "stop", tooltip="finish what is at hand, and end"),
        Binding("u", "screen.pause_run", "pause", tooltip="pause the job: the same key lets it go on"),
        Binding("u", "screen.continue_run", "continue", tooltip="let the paused job go on"),
        Binding("R", "screen.resume_run", "resume", tooltip="go on with what is missing"),
        Binding("c", "compare", "compare", tooltip="compare the job's runs"),
        Binding("D", "screen.delete_run", "delete", tooltip="delete the job; what it has measured stays with the runs"),
        Binding("U,ctrl+z", "screen.undo", "undo delete", key_display="U", tooltip="bring the job deleted last back"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.rows: dict[str, RunRow] = {}
        self.jobs: dict[str, Job] = {}
        self.results: dict[str, tuple[int, tuple[Sheet, ...]]] = {}  # at how many evaluations, and what was found
        self._reading: set[str] = set()  # what is being read, so that a slow disk is asked once
        self._wanted = ""  # the job to put the cursor on when it appears

    def compose(self) -> ComposeResult:
        yield DataTable(cursor_type="row", zebra_stripes=False, show_header=True, cell_padding=1)
        yield Static(id="job-progress", markup=False)
        yield SheetView(NO_JOB, id="job-results")

    def on_mount(self) -> None:
        table = self.query_one(DataTable)
        for column in COLUMNS:
            table.add_column(column, key=column)
        self.set_interval(AGES_EVERY_S, self._write_all)

    # -- what is listed ----------------------------------------------------------------------------------------------

    @property
    def selected(self) -> RunRow | None:
        table = self.query_one(DataTable)
        if not table.row_count:
            return None
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        return self.rows.get(key or "")

    def select(self, job_id: str) -> None:
        """Put the cursor on a job, now or when it appears."""
        self._wanted = job_id
        if job_id in self.rows:
            table = self.query_one(DataTable)
            table.move_cursor(row=table.get_row_index(job_id))
            self._wanted = ""

    def show_rows(self, rows: Iterable[RunRow]) -> None:
        """List these jobs, oldest given first; only cells that differ are drawn again."""
        before, current = self.rows, self.selected
        self.rows = {row.id: row for row in reversed(list(rows)) if row.kind is TRANSFER}
        if list(self.rows) != list(before):
            self._relist(current.id if current else "")
        for job_id, row in self.rows.items():
            if row != before.get(job_id):
                self._write(row)
        self._read_plans()
        if self._wanted:
            self.select(self._wanted)
        self._show_selected()

    def _relist(self, current: str) -> None:
        table = self.query_one(DataTable)
        table.clear()
        for row in self.rows.values():
            table.add_row(*self._cells(row), key=row.id)
        if current in self.rows:
            table.move_cursor(row=table.get_row_index(current))

    def _write_all(self) -> None:
        """Ages grow, also of jobs of which nothing new is told."""
        for row in self.rows.values():
            self._write(row)

    def _write(self, row: RunRow) -> None:
        table = self.query_one(DataTable)
        for column, cell in zip(COLUMNS, self._cells(row), strict=True):
            try:
                if table.get_cell(row.id, column) != cell:
                    table.update_cell(row.id, column, cell, update_width=True)
            except RowDoesNotExist:
                return

    def _cells(self, row: RunRow) -> list[Text]:
        job = self.jobs.get(row.id)
        return [
            present.state_text(row.state),
            Text(f"{row.step}/{row.total}" if row.total else present.NOTHING, justify="right"),
            Text(present.duration(row.eta_s) if row.is_live else ""),
            Text(f"{present.age(row.created)} ago"),
            Text(READING, "dim") if job is None else DAMAGED if job.problem else present.text(job.title),
        ]

    # -- the one under the cursor ------------------------------------------------------------------------------------

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        self._show_selected()

    def _show_selected(self) -> None:
        row = self.selected
        job = self.jobs.get(row.id) if row else None
        self.query_one("#job-progress", Static).update(_progress(row, job) if row else Text())
        step, sheets = self.results.get(row.id, (None, None)) if row else (None, None)
        self.query_one(SheetView).show(sheets or (), empty=_nothing_yet(row, job, sheets is not None))
        if row is not None and job is not None and not job.problem and step != row.step:
            self._read_results(row, job)
        self.refresh_bindings()

    @work(group="plans")
    async def _read_plans(self) -> None:
        """Read what jobs are to do, once for each."""
        paths = {job_id: row.path for job_id, row in self.rows.items() if job_id not in {*self.jobs, *self._reading}}
        if not paths:
            return
        self._reading |= {*paths}
        try:
            self.jobs |= await off_the_loop(lambda: {job_id: read_job(path) for job_id, path in paths.items()})
        finally:
            self._reading -= {*paths}
        for job_id in paths:
            if job_id in self.rows:
                self._write(self.rows[job_id])
        self._show_selected()

    @work(group="results")
    async def _read_results(self, row: RunRow, job: Job) -> None:
        """Read what the runs of a job hold of it. There may be more by then: it is looked at again."""
        key = f"results {row.id}"
        if key in self._reading:
            return
        self._reading.add(key)
        try:
            self.results[row.id] = row.step, await off_the_loop(lambda: read_results(job))
        finally:
            self._reading.discard(key)
        self._show_selected()

    # -- keys --------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self.selected is not None if action == "compare" else True

    def action_compare(self) -> None:
        row = self.selected
        job = self.jobs.get(row.id) if row else None
        if job is not None and job.run_ids:
            task = job.tasks[0] if len(job.tasks) == 1 else None
            self.app.open_compare(job.run_ids, tab="results", task=task, step=job.inner_steps)  # type: ignore[attr-defined]


def _nothing_yet(row: RunRow | None, job: Job | None, is_read: bool) -> str:
    if row is None:
        return NO_JOB
    if job is not None and job.problem:
        return present.clean(job.problem, 300)
    if job is None or not is_read:
        return READING
    return "No evaluation is complete yet." if row.is_live else "No evaluation was completed."


def _progress(row: RunRow, job: Job | None) -> Text:
    """How far a job is, and what it says."""
    full = round(BAR * row.progress)
    line = Text.assemble(
        ("━" * full, "bold"), ("─" * (BAR - full), "dim"), f"  {present.progress(row.step, row.total)}"
    )
    if row.is_live and row.eta_s is not None:
        line.append(f"  ETA {present.duration(row.eta_s)}")
    if row.state == "finished":
        line.append("  finished: c compares its runs", "bold")
    elif row.state in actions.RESUMABLE:
        line.append(f"  {row.state}: R resumes it", "bold")
    words = job.problem if job and job.problem else row.message
    return line.append(f"\n{present.clean(words, 300)}", "dim") if words else line
