"""What transfer jobs are to do, and what is there of it, as the console lists it; and its form, checked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.text import Text

from engine.base.errors import LregError, Problem, RunError, SettingsError
from engine.base.files import read_json
from engine.base.settings import check_table, schema_of
from engine.evaluation.transfer_plan import Plan, Planned, TransferSettings
from engine.presets.preset import from_mapping
from engine.runs.reader import LARGEST_TRANSFER, RunReader
from engine.runs.results import rows
from lreg_tui.presets.preset_edit import words_of
from lreg_tui.runs import actions, run_files
from lreg_tui.text import present
from lreg_tui.text.sheets import Sheet
from lreg_tui.transfers import transfer_request
from lreg_tui.transfers.transfer_request import TransferRequest

ALWAYS = ("dataset", "optimizee", "batch_size")  # keys of a task that a transfer file always names


@dataclass(frozen=True)
class SeenEvaluation:
    """What is kept of a transfer file: what it is an evaluation of, its seeds, and its row at the last inner step."""

    label: str
    task: Mapping[str, Any]
    protocol: Mapping[str, Any]
    seeds: frozenset[int]
    row: Mapping[str, Any] | None


def found(plan: Plan) -> list[tuple[Planned, SeenEvaluation | None]]:
    """Every evaluation of a plan with what a file of its run holds of it; None where there is no whole one.

    The meta-parameters are not compared, which would take torch: of a run that was resumed since then, older
    evaluations count here, and are measured again by the job.
    """
    files = {run: list(_files(Path(run) / "transfer")) for run in plan.runs}
    tasks = {id(task): facts_of(task) for task in plan.tasks}
    protocol = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(plan.protocol).items()}
    seeds = frozenset(range(plan.settings.seeds))

    def seen(item: Planned) -> SeenEvaluation | None:
        planned = (item.label, tasks[id(item.task)], protocol)
        listed = files[item.run or plan.runs[0]]
        return next((s for s in listed if (s.label, s.task, s.protocol) == planned and seeds <= s.seeds), None)

    return [(item, seen(item)) for item in plan.evaluations()]


def _files(folder: Path) -> Iterator[SeenEvaluation]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.endswith(".json") and entry.name[0] != ".":
            with suppress(OSError):
                status = entry.stat()
                yield _read(Path(entry.path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2**14)  # of each file by what it was when it was read; only what is shown of it is kept
def _read(path: Path, *_: int) -> SeenEvaluation:
    """What matters of a file that may hold anything."""
    evaluation = read_json(path, LARGEST_TRANSFER, path.parent.parent)
    task, protocol, seeds = (evaluation.get(key) for key in ("task", "protocol", "seeds"))
    numbers = [seed.get("seed") for seed in seeds if isinstance(seed, dict)] if isinstance(seeds, list) else []
    results = rows([evaluation])
    return SeenEvaluation(
        label=str(evaluation.get("label")),
        task=task if isinstance(task, dict) else {},
        protocol=protocol if isinstance(protocol, dict) else {},
        seeds=frozenset(number for number in numbers if isinstance(number, int)),
        row=results[-1] if results else None,
    )


def facts_of(task: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved [task] table as a transfer file tells it: without what is the default."""
    usual = from_mapping({"task": {key: task[key] for key in ALWAYS}}).tasks[0]
    told = {key: value for key, value in task.items() if key in ALWAYS or value != usual.get(key)}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in told.items()}


def plan_of(job: RunReader) -> Plan:
    """The plan of a transfer job. Raises RunError where it is damaged, or of another version."""
    plan = Plan.from_json(job.plan())
    try:
        _, problems = check_table(asdict(plan.settings), schema_of(TransferSettings))
        if problems:
            raise ValueError(str(problems[0]))
        for task in plan.tasks:
            facts_of(task)
    except (LregError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"plan.json: no plan that can be shown ({str(error).splitlines()[0]})") from None
    return plan


@dataclass(frozen=True)
class JobSummary:
    """What a job is to do, in a line and as a plan; `problem` says why there is none."""

    title: str
    plan: Plan | None = None
    names: Mapping[str, str] = field(default_factory=dict)  # of its runs, by path
    problem: str = ""

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(Path(run).name for run in self.plan.runs) if self.plan is not None else ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """Each as dataset/optimizee."""
        tasks = self.plan.tasks if self.plan is not None else ()
        return tuple(dict.fromkeys(f"{task['dataset']}/{task['optimizee']}" for task in tasks))

    @property
    def inner_steps(self) -> int | None:
        return self.plan.protocol.inner_steps if self.plan is not None else None


def read_job(path: Path) -> JobSummary:
    try:
        plan = plan_of(RunReader(path))
    except LregError as error:
        return JobSummary(path.name, problem=str(error).splitlines()[0])
    names = {run: actions.called(RunReader(run)) for run in plan.runs}
    tasks = list(dict.fromkeys(item.task_name for item in plan.evaluations()))
    more = f" +{len(tasks) - 2}" if len(tasks) > 2 else ""
    return JobSummary(f"{', '.join(names.values())} on {', '.join(tasks[:2])}{more}", plan, names)


def read_results(job: JobSummary) -> list[Sheet]:
    """A table for every task of which some evaluation is there, at its last inner step."""
    sheets: list[Sheet] = []
    try:
        done = found(job.plan) if job.plan is not None else []
    except LregError:  # a task of another version: the job itself says so
        return sheets
    for task in job.plan.tasks if job.plan is not None else ():
        rows = [
            {**seen.row, "label": _label(item, job)} for item, seen in done if item.task is task and seen and seen.row
        ]
        if rows:
            sheets.append(run_files.result_sheet(rows, f"{task['dataset']}/{task['optimizee']}"))
    return sheets


def _label(item: Planned, job: JobSummary) -> str:
    return f"{job.names[item.run]}: {item.label}" if item.run and len(job.names) > 1 else item.label


# -- what the form asks for ----------------------------------------------------------------------------------------

FIELD_OF = {"evaluation.radii": "radii", "baseline": "baselines", "to": "targets", "set": "sets"}
FIELDS = (*TransferRequest.__dataclass_fields__, "targets", "device")


@dataclass(frozen=True)
class CheckedRequest:
    """What came out of a look at a request: its plan, and how much of it is there; or problems by field."""

    plan: Plan | None = None
    done: int = 0
    problems: Mapping[str, str] = field(default_factory=dict)

    def summary(self) -> Text:
        """What there is to do, for people; empty where something is wrong."""
        if self.plan is None:
            return Text()
        plan = self.plan
        evaluations = present.count(len(list(plan.evaluations())), "evaluation")
        already = f", {self.done} of them there already" if self.done else ""
        facts = [present.count(len(plan.runs), "run"), present.count(len(plan.tasks), "task")]
        facts.append(f"{plan.settings.seeds} optimizees each, {plan.protocol.inner_steps} inner steps")
        radii = ", ".join(present.setting(radius) for radius in plan.protocol.radii)
        return Text.assemble((evaluations, "bold"), already, f": {'; '.join(facts)}; radii {radii}")


def check(readers: Sequence[RunReader], request: TransferRequest, device: str) -> CheckedRequest:
    """Plan a request, and look how much of it is there already. Reads files: not for the loop."""
    if not readers:
        return CheckedRequest(problems={"runs": "pick at least one run"})
    try:
        transfer_request.check_device(device)
        plan = transfer_request.plan(readers, request)
    except SettingsError as error:
        return CheckedRequest(problems=_by_field(error, request))
    except LregError as error:
        key = "runs" if isinstance(error, RunError) else ""
        return CheckedRequest(problems={key: str(error).splitlines()[0]})
    return CheckedRequest(plan, sum(seen is not None for _, seen in found(plan)))


def _by_field(error: SettingsError, request: TransferRequest) -> dict[str, str]:
    """Problems by the field of the form that they are about; those of no field by an empty word."""
    by_field: dict[str, str] = {}
    for problem in error.problems:
        key = _field_of(problem, request)
        words = words_of(problem) if key not in ("sets", "") else str(problem)
        by_field.setdefault(key, words if key or not problem.source else f"{problem.source}: {words}")
    return by_field


def _field_of(problem: Problem, request: TransferRequest) -> str:
    source, path = problem.source.split(" ")[0].removeprefix("--"), problem.path.removeprefix("--")
    if any(text.partition("=")[0].strip() == path for text in request.sets):
        return "sets"
    key = FIELD_OF.get(source) or FIELD_OF.get(path) or path
    return key if key in FIELDS else ""
