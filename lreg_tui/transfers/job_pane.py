"""JobPane: transfer jobs of the store, and what the one under the cursor has found so far.

The screen around it is an ActingScreen: it steers the job.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.widgets import DataTable, Static

from engine.runs.kinds import TRANSFER
from lreg_tui.runs import actions
from lreg_tui.runs.feed import RunRow
from lreg_tui.system.keys import key_of
from lreg_tui.text import present
from lreg_tui.text.sheets import Sheet
from lreg_tui.transfers.transfer_jobs import JobSummary, read_job, read_results
from lreg_tui.widgets.keyed_table import KeyedTable
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.sheet_view import SheetView
from lreg_tui.widgets.threads import off_the_loop

COLUMNS = ("state", "done", "ETA", "started", "what")
AGES_EVERY_S = 20.0
NO_JOB = "No transfer job yet. Fill in the request, and start it with F5."
READING = "reading …"


class JobPane(Vertical):
    """Newest job first. Keys act on the job under the cursor; leaving changes nothing for it."""

    DEFAULT_CSS = """
    JobPane { height: 1fr; padding: 0 1; }
    JobPane KeyedTable { height: auto; max-height: 35%; }
    JobPane #job-progress { height: auto; margin: 1 0; }
    JobPane SheetView { height: 1fr; padding: 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("stop", "screen.stop_run", tooltip="finish what is at hand, and end"),
        bind("pause", "screen.pause_run", "pause", "pause the job: the same key lets it go on"),
        bind("pause", "screen.continue_run", "continue", "let the paused job go on"),
        bind("resume", "screen.resume_run", tooltip="go on with what is missing"),
        bind("compare", "compare", tooltip="compare the job's runs"),
        bind("delete", "screen.delete_run", tooltip="delete the job; what it has measured stays with the runs"),
        bind("undo", "screen.undo", tooltip="bring the job deleted last back"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, RunRow] = {}
        self.jobs: dict[str, JobSummary] = {}
        self.results: dict[str, tuple[int, Sequence[Sheet]]] = {}  # at how many evaluations, and what was found
        self._reading: set[str] = set()  # what is being read, so that a slow disk is asked once

    def compose(self) -> ComposeResult:
        yield KeyedTable()
        yield Static(id="job-progress", markup=False)
        yield SheetView(NO_JOB, id="job-results")

    def on_mount(self) -> None:
        self.table.lay_out([Text(column) for column in COLUMNS])
        self.set_interval(AGES_EVERY_S, self._list)  # ages grow, also of jobs of which nothing new is told

    @property
    def table(self) -> KeyedTable:
        return self.query_one(KeyedTable)

    @property
    def selected(self) -> RunRow | None:
        return self.rows.get(self.table.key)

    def show_rows(self, rows: Iterable[RunRow]) -> None:
        """List these jobs, oldest given first."""
        self.rows = {row.id: row for row in reversed(list(rows)) if row.kind is TRANSFER}
        self._list()
        self._read_plans()

    def _list(self) -> None:
        self.table.show({row.id: self._cells(row) for row in self.rows.values()})
        self._show_selected()

    def _cells(self, row: RunRow) -> list[Text]:
        job = self.jobs.get(row.id)
        title = Text(READING, "dim") if job is None else present.text(job.title)
        return [
            present.state_text(row.state),
            Text(f"{row.step}/{row.total}" if row.total else present.NOTHING, justify="right"),
            Text(present.duration(row.eta_s) if row.is_live else ""),
            Text(f"{present.age(row.created)} ago"),
            Text("damaged plan", "red") if job is not None and job.problem else title,
        ]

    # -- the one under the cursor ------------------------------------------------------------------------------------

    @on(DataTable.RowHighlighted)
    def _highlighted(self, event: DataTable.RowHighlighted) -> None:
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
        self._list()

    @work(group="results")
    async def _read_results(self, row: RunRow, job: JobSummary) -> None:
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


def _nothing_yet(row: RunRow | None, job: JobSummary | None, is_read: bool) -> str:
    if row is None:
        return NO_JOB
    if job is not None and job.problem:
        return present.clean(job.problem, 300)
    if job is None or not is_read:
        return READING
    return "No evaluation is complete yet." if row.is_live else "No evaluation was completed."


def _progress(row: RunRow, job: JobSummary | None) -> Text:
    """How far a job is, and what it says."""
    line = present.bar(row.progress).append(f"  {present.progress(row.step, row.total)}")
    if row.is_live and row.eta_s is not None:
        line.append(f"  ETA {present.duration(row.eta_s)}")
    if row.state == "finished":
        line.append(f"  finished: {key_of('compare')} compares its runs", "bold")
    elif row.state in actions.RESUMABLE:
        line.append(f"  {row.state}: {key_of('resume')} resumes it", "bold")
    words = job.problem if job and job.problem else row.message
    return line.append(f"\n{present.clean(words, 300)}", "dim") if words else line
