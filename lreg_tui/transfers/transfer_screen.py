"""TransferScreen: choose what frozen learned optimizers are evaluated on, start it, watch it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from engine.base.errors import LregError
from engine.base.status import LIVE
from engine.evaluation.transfer_plan import GRID, Plan
from engine.jobs import spawn
from engine.jobs.transfer_job import TransferJob, check_writable
from engine.runs.kinds import TRANSFER
from engine.runs.store import RunReader
from engine.study.schedule import inputs
from lreg_tui.runs.acting import ActingScreen
from lreg_tui.runs.console_base import RunsChanged
from lreg_tui.runs.feed import RunRow
from lreg_tui.text import present
from lreg_tui.transfers.panes import BY_KEY, JobPane, RequestForm
from lreg_tui.transfers.transfer_request import CheckedRequest, check
from lreg_tui.widgets.keys import KeyFooter, bind
from lreg_tui.widgets.pick_list import Choice
from lreg_tui.widgets.threads import off_the_loop, stop_if_gone, unless_busy

PATIENCE_S = 0.05
WIDE = 120  # columns from which request and jobs stand side by side


class TransferScreen(ActingScreen, inherit_bindings=False):
    """Request and jobs. Leaving never stops a job."""

    CSS_PATH = "transfer_screen.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-low"), (24, "-high")]
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("start", "start", "start", "start the evaluations that the form asks for"),
        bind("other_view", "switch", "request/jobs", "between the form and the jobs"),
        bind("back", "leave", tooltip="to the screen before; jobs go on"),
    ]

    def __init__(self, run_ids: Sequence[str] = ()) -> None:
        super().__init__()
        self.given = tuple(run_ids)
        self.checked: CheckedRequest | None = None
        self._started: list[RunReader] = []  # jobs, of which the feed may not know yet
        self.pane = JobPane()

    def compose(self) -> ComposeResult:
        yield Static(id="transfer-title", markup=False)
        with Horizontal(id="transfer-panes"):
            with Vertical(id="request"):
                rows = {row.id: row for row in self._rows() if "transfer" in row.kind.actions}
                run_ids = [run_id for run_id in self.given if run_id in rows]
                self.form = RequestForm(run_ids, self.lreg.remembered.view("transfer"))
                yield self.form
                with Vertical(id="request-words"):
                    yield Static(id="request-help", markup=False)
                    yield Static(id="request-summary", markup=False)
                    yield Static(id="request-problem", markup=False)
            yield self.pane
        yield KeyFooter()

    def on_mount(self) -> None:
        self._offer_runs()
        self._offer_targets()
        self.pane.show_rows(self._rows())
        self.form.focus()
        given_jobs = [run_id for run_id in self.given if run_id in self.pane.rows]
        if given_jobs:
            self.pane.table.select(given_jobs[0])
            self.action_switch()
        self._check()
        self._say_title()

    def _rows(self) -> tuple[RunRow, ...]:
        return self.lreg.feed.rows

    def _say_title(self) -> None:
        live = sum(row.is_live for row in self._rows() if row.kind is TRANSFER)
        jobs = f"jobs ({live} live)" if live else "jobs"
        parts: list[tuple[str, str]] = [("transfer evaluation   ", "bold")]
        if self.size.width < WIDE:
            on_jobs = self.has_class("-jobs")
            chosen, other = "bold underline", "dim"
            parts += [("request", other if on_jobs else chosen), ("  ", ""), (jobs, chosen if on_jobs else other)]
        elif live:
            parts += [(jobs, "dim")]
        self.query_one("#transfer-title", Static).update(Text.assemble(*parts))

    def on_resize(self) -> None:
        self._say_title()

    # -- what the form offers ----------------------------------------------------------------------------------------

    def _offer_runs(self) -> None:
        runs = [row for row in reversed(self._rows()) if "transfer" in row.kind.actions]
        choices = [Choice(row.id, row.name, f"{row.state} {row.task} {row.optimizer} {row.id}") for row in runs]
        self._know_targets()
        self.form.offer("runs", choices)

    def _know_targets(self) -> None:
        """What the runs that are picked were meta-trained on."""
        rows = [row for row in map(self.lreg.row, self.form.run_ids) if row is not None]
        self.form.usual_targets, self.form.first_targets = own_targets(rows), own_targets(rows[:1])

    @work(group="targets")
    async def _offer_targets(self) -> None:
        from engine.presets import catalog

        try:
            loaded = await off_the_loop(catalog.load)
        except LregError as error:
            self.tell(str(error), "error")
            return
        names = [f"{dataset}/{optimizee}" for dataset in loaded.datasets for optimizee in loaded.optimizees]
        grid = Choice("all", help="the papers' 3 x 3 grid: nine targets")
        choices = [grid, *(Choice(name, help="of the papers' grid" if name in GRID else "") for name in names)]
        self.form.offer("targets", choices)

    # -- checking while typing ---------------------------------------------------------------------------------------

    def _readers(self) -> list[RunReader]:
        paths = {row.id: row.path for row in self._rows()}
        return [RunReader(paths[run_id]) for run_id in self.form.run_ids if run_id in paths]

    @on(RequestForm.Changed)
    def _form_changed(self) -> None:
        self._know_targets()
        self._check()

    @on(RequestForm.RowHighlighted)
    def _explain(self) -> None:
        """What the field under the cursor is for, or all that is wrong with it: its line may be too short for that."""
        key, line = self.form.key, self.query_one("#request-help", Static)
        problem = self.form.problems.get(key)
        line.set_class(problem is not None, "-wrong")
        line.update(present.clean(problem or (BY_KEY[key].help if key else ""), 300))

    @work(exclusive=True, group="check")
    async def _check(self) -> None:
        await asyncio.sleep(PATIENCE_S)  # another key cancels this
        stop_if_gone()
        await self._checked()

    async def _checked(self) -> CheckedRequest:
        """Check what the form says, and show what came of it."""
        readers, request, device = self._readers(), self.form.request, self.form.device
        checked = await off_the_loop(lambda: check(readers, request, device))
        if (request, device) == (self.form.request, self.form.device):  # the user may have gone on
            self._show(checked)
        return checked

    def _show(self, checked: CheckedRequest) -> None:
        self.checked = checked
        if checked.plan is not None:
            self.lreg.remember("transfer", **self.form.typed)
        self.form.complain(checked.problems)
        self._explain()
        self.query_one("#request-problem", Static).update(present.clean(checked.problems.get("", ""), 300))
        self.query_one("#request-summary", Static).update(checked.summary())

    # -- keys --------------------------------------------------------------------------------------------------------

    def subjects(self) -> Sequence[RunRow]:
        return [self.pane.selected] if self.pane.selected is not None else []

    @work(group="start")
    @unless_busy
    async def action_start(self) -> None:
        """Make a job of what the form says, and start it. What is wrong is said where it stands."""
        try:
            device = self.form.device
            checked = await self._checked()
            if checked.plan is None:
                self.tell("not started: see the lines in the form", "error")
            else:
                await self._start_plan(checked.plan, device)
        except LregError as error:
            self.tell(str(error), "error")
        finally:
            self.lreg.feed.look_now()

    async def _start_plan(self, plan: Plan, device: str) -> None:
        live = [RunReader(row.path) for row in self._rows() if row.kind is TRANSFER and row.is_live]
        self.tell("starting …")
        reader = await off_the_loop(lambda: same_of([*self._started, *live], plan))
        if reader is not None:
            self.tell(f"{reader.id} is at just this already", "warning")
        else:
            reader = await off_the_loop(lambda: self._launch(plan, device))
        self._started.append(reader)
        self.pane.table.select(reader.id)
        if not self.has_class("-jobs"):
            self.action_switch()

    def _launch(self, plan: Plan, device: str) -> RunReader:
        check_writable(plan)
        inputs.check_run(plan.tasks, device, self.lreg.data_dir)
        job = TransferJob.start(self.lreg.store.root, plan, argv=sys.argv, device=device, data_dir=self.lreg.data_dir)
        reader = RunReader(job.path)
        spawn.start_detached(reader, data_dir=self.lreg.data_dir)
        return reader

    def action_switch(self) -> None:
        self.toggle_class("-jobs")
        self.set_focus(self.pane.table if self.has_class("-jobs") else self.form)
        self._say_title()

    def on_runs_changed(self, message: RunsChanged) -> None:
        self.pane.show_rows(message.rows)
        self._offer_runs()
        self._say_title()
        if self.checked is None or (self.checked.plan is None and "runs" in self.checked.problems):
            self._check()


def same_of(jobs: Iterable[RunReader], plan: Plan) -> RunReader | None:
    """The one of these jobs that is at just this plan. Reads files: not for the loop."""
    plan_values = json.loads(plan.dumps())
    return next((job for job in jobs if job.state in LIVE and job.plan() == plan_values), None)


def own_targets(rows: Sequence[RunRow]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for row in rows for name in row.task.split("+") if name))
