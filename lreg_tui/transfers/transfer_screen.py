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
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from engine.base.errors import LregError
from engine.base.status import LIVE
from engine.evaluation.transfer_plan import GRID, Plan
from engine.jobs.transfer_job import TransferJob
from engine.runs.kinds import TRANSFER
from engine.runs.store import RunReader
from lreg_tui.runs.acting import ActingScreen
from lreg_tui.runs.feed import RunRow
from lreg_tui.runs.messages import RunsChanged
from lreg_tui.system import launch
from lreg_tui.text import present
from lreg_tui.transfers.job_pane import JobPane
from lreg_tui.transfers.request_form import RequestForm, own_targets
from lreg_tui.transfers.transfer_check import Asked, Checked, check
from lreg_tui.transfers.transfer_request import asked_by
from lreg_tui.widgets.key_footer import KeyFooter
from lreg_tui.widgets.pick_list import Choice
from lreg_tui.widgets.threads import off_the_loop, stop_if_gone

PATIENCE_S = 0.05
WIDE = 120  # columns from which request and jobs stand side by side


class TransferScreen(ActingScreen, inherit_bindings=False):
    """Request and jobs. Leaving never stops a job."""

    CSS_PATH = "transfer_screen.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "f5,ctrl+l", "start", "start", key_display="F5", tooltip="start the evaluations that the form asks for"
        ),
        Binding("f6", "switch", "request/jobs", key_display="F6", tooltip="between the form and the jobs"),
        Binding("escape", "leave", "back", tooltip="to the screen before; jobs go on"),
    ]

    def __init__(self, run_ids: Sequence[str] = ()) -> None:
        super().__init__()
        self.given = tuple(run_ids)
        self.checked: Checked | None = None
        self._is_starting = False
        self._started: list[RunReader] = []  # jobs, of which the feed may not know yet
        self._filled: dict[str, str] = {}  # what a job had the form say, which nobody has typed

    def compose(self) -> ComposeResult:
        yield Static(id="transfer-title", markup=False)
        with Horizontal(id="transfer-panes"):
            with Vertical(id="request"):
                rows = [row for row in self._rows() if row.id in self.given and "transfer" in row.kind.actions]
                run_ids = [run_id for run_id in self.given if any(row.id == run_id for row in rows)]
                yield RequestForm(run_ids, own_targets(rows), self.lreg.remembered.view("transfer"))
                with Vertical(id="request-words"):
                    yield Static(id="request-help", markup=False)
                    yield Static(id="request-summary", markup=False)
                    yield Static(id="request-problem", markup=False)
            yield JobPane()
        yield KeyFooter()

    def on_mount(self) -> None:
        self._offer_runs()
        self._offer_targets()
        pane = self.query_one(JobPane)
        pane.show_rows(self._rows())
        self.query_one(RequestForm).action_leap(0)
        given_jobs = [run_id for run_id in self.given if run_id in pane.rows]
        if given_jobs:
            pane.select(given_jobs[0])
            self._take_up(pane.rows[given_jobs[0]])
            self.action_switch()
        else:
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
        form = self.query_one(RequestForm)
        form.offer("runs", choices)
        first = next((row for row in runs if form.run_ids[:1] == (row.id,)), None)
        form.own_targets = own_targets([first] if first else [])

    @work(group="take up", exclusive=True)
    async def _take_up(self, job: RunRow) -> None:
        """Ask in the form for what a job was asked for."""
        paths = {row.id: row.path for row in self._rows() if "transfer" in row.kind.actions}
        try:
            readers, request, device = await off_the_loop(lambda: asked_by(RunReader(job.path), paths))
        except LregError as error:
            self.tell(str(error), "error")
            self._check()
            return
        run_ids = [reader.id for reader in readers]
        first = [row for row in self._rows() if row.id in run_ids[:1]]
        form = self.query_one(RequestForm)
        if form.is_whole:
            form.fill(run_ids, own_targets(first), request, device)
            self._filled = form.typed

    @work(group="targets")
    async def _offer_targets(self) -> None:
        from engine.presets import catalog

        try:
            known = await off_the_loop(catalog.load)
        except LregError as error:
            self.tell(str(error), "error")
            return
        names = [f"{dataset}/{optimizee}" for dataset in known.datasets for optimizee in known.optimizees]
        grid = Choice("all", help="the papers' 3 x 3 grid: nine targets")
        choices = [grid, *(Choice(name, help="of the papers' grid" if name in GRID else "") for name in names)]
        if (form := self.query_one(RequestForm)).is_whole:
            form.offer("targets", choices)

    # -- checking while typing ---------------------------------------------------------------------------------------

    @property
    def asked(self) -> Asked:
        form = self.query_one(RequestForm)
        return Asked(form.run_ids, form.request, form.device)

    def _readers(self, asked: Asked) -> list[RunReader]:
        paths = {row.id: row.path for row in self._rows()}
        return [RunReader(paths[run_id]) for run_id in asked.run_ids if run_id in paths]

    @on(RequestForm.Changed)
    def _form_changed(self) -> None:
        form = self.query_one(RequestForm)
        rows = {row.id: row for row in self._rows()}
        own = own_targets([rows[run_id] for run_id in form.run_ids[:1] if run_id in rows])
        if own != form.own_targets and set(form.picked["targets"]) <= {*form.own_targets}:
            form.own_targets = own
            form.pick("targets", own_targets([rows[run_id] for run_id in form.run_ids if run_id in rows]))
        form.own_targets = own
        self._check()

    @on(RequestForm.Explained)
    def _explain(self, event: RequestForm.Explained) -> None:
        self.query_one("#request-help", Static).update(event.help)

    @work(exclusive=True, group="check")
    async def _check(self) -> None:
        await asyncio.sleep(PATIENCE_S)  # another key cancels this
        stop_if_gone()
        if not self.query_one(RequestForm).is_whole:
            return
        asked = self.asked
        readers = self._readers(asked)
        checked = await off_the_loop(lambda: check(asked, readers))
        form = self.query_one(RequestForm)
        if form.is_whole and asked == self.asked:  # the user may have typed on, or be quitting
            self._show(checked)

    def _show(self, checked: Checked) -> None:
        self.checked = checked
        typed = self.query_one(RequestForm).typed
        if checked.plan is not None and typed != self._filled:
            self.lreg.remember("transfer", **typed)
        self.query_one(RequestForm).complain(checked.problems)
        self.query_one("#request-problem", Static).update(present.clean(checked.problems.get("", ""), 300))
        self.query_one("#request-summary", Static).update(checked.summary())

    # -- keys --------------------------------------------------------------------------------------------------------

    def subjects(self) -> Sequence[RunRow]:
        selected = self.query_one(JobPane).selected
        return [selected] if selected is not None else []

    def action_start(self) -> None:
        if not self._is_starting:
            self._is_starting = True
            self._start()

    @work(group="start")
    async def _start(self) -> None:
        try:
            await self._start_asked()
        finally:
            self._is_starting = False

    async def _start_asked(self) -> None:
        """Make a job of what the form says, and start it. What is wrong is said where it stands."""
        asked = self.asked
        readers = self._readers(asked)
        checked = await off_the_loop(lambda: check(asked, readers))
        self._show(checked)
        if checked.plan is None:
            self.tell("not started: see the lines in the form", "error")
            return
        plan, live = checked.plan, [RunReader(row.path) for row in self._rows() if row.kind is TRANSFER and row.is_live]
        self.tell("starting …")
        try:
            same = await off_the_loop(lambda: same_of([*self._started, *live], plan))
            if same is not None:
                self.tell(f"{same.id} is at just this already", "warning")
                reader = same
            else:
                reader = await off_the_loop(lambda: self._launch(plan, asked.device))
        except LregError as error:
            self.tell(str(error), "error")
            return
        finally:
            self.lreg.feed.look_now()
        self._started.append(reader)
        self.query_one(JobPane).select(reader.id)
        if not self.has_class("-jobs"):
            self.action_switch()

    def _launch(self, plan: Plan, device: str) -> RunReader:
        launch.check_transfer(plan, device, self.lreg.data_dir)
        job = TransferJob.start(self.lreg.store.root, plan, argv=sys.argv, device=device, data_dir=self.lreg.data_dir)
        reader = RunReader(job.path)
        launch.start_detached(reader, data_dir=self.lreg.data_dir)
        return reader

    def action_switch(self) -> None:
        """Between request and jobs."""
        self.toggle_class("-jobs")
        if self.has_class("-jobs"):
            self.set_focus(self.query_one(JobPane).query_one("DataTable"))
        else:
            self.query_one(RequestForm).action_leap(0)
        self._say_title()

    def action_leave(self) -> None:
        self.dismiss()

    def on_runs_changed(self, message: RunsChanged) -> None:
        self.query_one(JobPane).show_rows(message.rows)
        self._offer_runs()
        self._say_title()
        if self.checked is None or (self.checked.plan is None and "runs" in self.checked.problems):
            self._check()


def same_of(jobs: Iterable[RunReader], plan: Plan) -> RunReader | None:
    """The one of these jobs that is at just this plan. Reads files: not for the loop."""
    wanted = json.loads(plan.dumps())
    return next((job for job in jobs if job.state in LIVE and job.plan() == wanted), None)
