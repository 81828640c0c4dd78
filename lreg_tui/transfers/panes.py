"""RequestForm: what a transfer evaluation is asked for, a line each; JobPane: the transfer jobs of the store, and what
the one under the cursor has found so far.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import DataTable, Static

from engine.evaluation.transfer_plan import BASELINE_NAMES
from engine.runs.kinds import TRANSFER
from engine.runs.reader import CHECKPOINTS
from lreg_tui.runs import actions
from lreg_tui.runs.feed import RunRow
from lreg_tui.runs.run_files import WHAT
from lreg_tui.system.keys import key_of
from lreg_tui.text import present
from lreg_tui.text.present import clean
from lreg_tui.text.sheets import Sheet
from lreg_tui.transfers.transfer_request import JobSummary, TransferRequest, read_job, read_results
from lreg_tui.widgets.dialog import PromptScreen
from lreg_tui.widgets.keyed_table import KeyedTable
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.pick_list import Choice, PickList
from lreg_tui.widgets.sheet_view import SheetView
from lreg_tui.widgets.threads import off_the_loop

NEXT_KEY = re.compile(r"\s+(?=[\w.]+\s*=)")  # between "task.classes=[8, 9]" and the next key


@dataclass(frozen=True)
class RequestField:
    """A line of the form. `empty` stands where nothing is chosen or typed."""

    key: str
    label: str
    help: str
    kind: str = "text"  # text, pick (several of a list), pick one, or toggle
    empty: str = ""
    value: str = ""


FIELDS = (
    RequestField("runs", "runs", "Whose frozen learned optimizers are evaluated.", "pick", "none: enter picks some"),
    RequestField(
        "targets",
        "targets",
        "What fresh optimizees are trained on; more than one is fine. `all` is the papers' 3 x 3.",
        "pick",
        "as the first run was meta-trained",
    ),
    RequestField("steps", "inner steps", "How long each optimizee is trained.", empty="as meta-trained"),
    RequestField(
        "seeds", "seeds", "Optimizees of every evaluation. Seed k is the same start for everybody.", value="5"
    ),
    RequestField("radii", "radii", "Sharpness radii, as 0.01, 0.05, 0.1.", empty="as in the preset"),
    RequestField(
        "scales", "scales", "Factors of the updates, as 0.5, 0.7, 1, 1.4, 2, 2.8; 1 is always there.", value="1"
    ),
    RequestField("weight_decays", "weight decays", "Constant, as 0, 1e-4, 1e-3: a grid with every scale.", value="0"),
    RequestField("sam", "SAM", "Radii of SAM around the frozen optimizer, as 0.05: headroom.", empty="without"),
    RequestField(
        "marks", "measure at", "Inner steps at which is measured beside the last, as 50, 100, 200.", empty="a few"
    ),
    RequestField("checkpoint", "checkpoint", "Which checkpoint of the runs.", "pick one"),
    RequestField(
        "untrained", "untrained", "Also the meta-parameters that the runs began with: the control.", "toggle", "no"
    ),
    RequestField(
        "baselines", "baselines", "Hand-designed optimizers, tuned for every task; kept for later.", "pick", "none"
    ),
    RequestField(
        "sets",
        "also set",
        "Keys of [task] or [evaluation], as evaluation.examples=500 task.classes=[8,9].",
        empty="nothing",
    ),
    RequestField("device", "device", "auto, cpu, cuda, cuda:N or mps.", empty="auto"),
)
BY_KEY = {field.key: field for field in FIELDS}
LABELS = 17  # columns before the values
AS_TRAINED = "  as meta-trained"
REMEMBERED = ("steps", "seeds", "radii", "scales", "weight_decays", "sam", "marks", "device")


class RequestForm(KeyedTable):
    """The form as a whole. `request`, `run_ids` and `device` are what it says."""

    HELP_TITLE = "Request"
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("open", "select_cursor", "change", "type, choose, or turn over a value"),
    ]
    DEFAULT_CSS = """
    RequestForm { height: auto; max-height: 100%; }
    """

    @dataclass
    class Changed(Message):
        """The form says something else than before."""

    def __init__(self, run_ids: Sequence[str] = (), typed: Mapping[str, object] | None = None) -> None:
        """`typed`: what `typed` was the last time."""
        super().__init__(show_header=False)
        before = {key: value for key, value in (typed or {}).items() if isinstance(value, str) and key in REMEMBERED}
        self.values = {field.key: field.value for field in FIELDS if field.kind == "text"} | before
        self.picked: dict[str, tuple[str, ...]] = {
            "runs": tuple(run_ids),
            "checkpoint": ("best",),
            "untrained": (),
            "baselines": (),
        }
        self.usual_targets: tuple[str, ...] = ()  # what the runs were meta-trained on; others may be picked
        self.first_targets: tuple[str, ...] = ()  # the first of the runs, with all the keys of its preset
        self.choices: dict[str, Sequence[Choice]] = {
            "checkpoint": [Choice(name, help=WHAT[name]) for name in CHECKPOINTS],
            "baselines": [Choice(name) for name in BASELINE_NAMES],
        }
        self.problems: Mapping[str, str] = {}

    def on_mount(self) -> None:
        self.lay_out([Text("field"), Text("value")])

    def on_resize(self) -> None:
        self._fill()

    # -- what it says ------------------------------------------------------------------------------------------------

    @property
    def run_ids(self) -> tuple[str, ...]:
        return self.picked["runs"]

    @property
    def device(self) -> str:
        return self.typed["device"] or "auto"

    @property
    def targets(self) -> tuple[str, ...]:
        return self.picked.get("targets", self.usual_targets)

    @property
    def request(self) -> TransferRequest:
        values = {key: value.strip() for key, value in self.values.items() if key not in ("device", "sets")}
        return TransferRequest(
            **values | {"steps": values["steps"] or "0"},
            to=() if set(self.targets) == set(self.first_targets) else self.targets,
            checkpoint=self.picked["checkpoint"][0],
            untrained=bool(self.picked["untrained"]),
            baselines=self.picked["baselines"],
            sets=tuple(filter(None, NEXT_KEY.split(self.values["sets"].strip()))),
        )

    @property
    def typed(self) -> dict[str, str]:
        """What is worth being found again the next time."""
        return {key: self.values[key].strip() for key in REMEMBERED}

    # -- what it is told ---------------------------------------------------------------------------------------------

    def offer(self, key: str, choices: Sequence[Choice]) -> None:
        self.choices[key] = choices
        self._fill()

    def pick(self, key: str, values: Sequence[str]) -> None:
        self.picked[key] = tuple(values)
        self._changed()

    def type(self, key: str, value: str) -> None:
        self.values[key] = value
        self._changed()

    def _changed(self) -> None:
        self._fill()
        self.post_message(self.Changed())

    def complain(self, problems: Mapping[str, str]) -> None:
        """Show what is wrong, field by field, and nothing elsewhere."""
        self.problems = problems
        self._fill()

    def _fill(self) -> None:
        self.show({field.key: [Text(field.label, "dim"), self._value(field)] for field in FIELDS})

    def _chosen(self, key: str) -> tuple[str, ...]:
        return self.targets if key == "targets" else self.picked[key]

    def _value(self, field: RequestField) -> Text:
        if field.kind == "text":
            words = self.values[field.key]
        else:
            names = {choice.value: choice.name for choice in self.choices.get(field.key, ())}
            words = ", ".join(names.get(value, value) for value in self._chosen(field.key))
        suffix = AS_TRAINED if field.key == "targets" and words and not self.request.to else ""
        room = max(8, self.size.width - LABELS - len(suffix))
        line = Text(present.shorten(clean(words or field.empty, 200), room), "" if words else "dim")
        line.append(suffix, "dim")
        problem = self.problems.get(field.key)
        return line.append(f"  ✗ {clean(problem, 300)}", "bold red") if problem else line

    # -- keys --------------------------------------------------------------------------------------------------------

    @on(DataTable.RowSelected)
    def _change(self, event: DataTable.RowSelected) -> None:
        event.stop()
        field = BY_KEY[self.key]
        if field.kind == "toggle":
            self.pick(field.key, () if self.picked[field.key] else ("yes",))
        elif field.kind == "text":
            before = self.values[field.key]
            prompt = PromptScreen(field.label, before, note=field.help, changed=lambda text: self.type(field.key, text))
            self.app.push_screen(prompt, lambda text: self.type(field.key, before if text is None else text))
        else:
            choices, several = self.choices.get(field.key, ()), field.kind == "pick"
            asked_list = PickList(field.label, choices, self._chosen(field.key), several=several)
            self.app.push_screen(asked_list, lambda values: None if values is None else self.pick(field.key, values))


COLUMNS = ("state", "done", "ETA", "started", "what")
BEFORE_TITLE = 43  # columns of a terminal that all but the last take
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
        self.table = KeyedTable()
        self.rows: dict[str, RunRow] = {}
        self.jobs: dict[str, JobSummary] = {}
        self.results: dict[str, tuple[int, Sequence[Sheet]]] = {}  # at how many evaluations, and what was found
        self._reading: set[str] = set()  # what is being read, so that a slow disk is asked once

    def compose(self) -> ComposeResult:
        yield self.table
        yield Static(id="job-progress", markup=False)
        yield SheetView(NO_JOB, id="job-results")

    def on_mount(self) -> None:
        self.table.lay_out([Text(column) for column in COLUMNS])
        self.set_interval(AGES_EVERY_S, self._list)  # ages grow, also of jobs of which nothing new is told

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
        room = max(8, self.size.width - BEFORE_TITLE)
        title = Text(READING, "dim") if job is None else Text(present.shorten(present.clean(job.title), room))
        return [
            present.state_text(row.state),
            Text(f"{row.step}/{row.total}" if row.total else present.NOTHING, justify="right"),
            Text("" if row.eta_s is None else present.duration(row.eta_s)),
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
        if job is not None and (plan := job.plan) is not None:
            tasks = {f"{task['dataset']}/{task['optimizee']}" for task in plan.tasks}
            where = {"task": tasks.pop() if len(tasks) == 1 else None, "step": plan.protocol.inner_steps}
            run_ids = tuple(Path(run).name for run in plan.runs)
            self.app.open_compare(run_ids, tab="results", **where)  # type: ignore[attr-defined]


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
    if row.eta_s is not None:
        line.append(f"  ETA {present.duration(row.eta_s)}")
    if row.state == "finished":
        line.append(f"  finished: {key_of('compare')} compares its runs", "bold")
    elif row.state in actions.RESUMABLE:
        line.append(f"  {row.state}: {key_of('resume')} resumes it", "bold")
    words = job.problem if job and job.problem else row.message
    return line.append(f"\n{present.clean(words, 300)}", "dim") if words else line
