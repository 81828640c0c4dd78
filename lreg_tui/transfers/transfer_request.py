"""What a transfer evaluation is asked for, as text: the options of `lreg transfer`, and the console's form, checked.

Both become plans here, so that both mean and refuse the same. What jobs are to do, and what is there of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.text import Text

from engine.base.device import ALLOWED, NAMES
from engine.base.errors import LregError, PresetError, Problem, RunError, SettingsError
from engine.base.files import read_json
from engine.base.settings import check_table, schema_of, show
from engine.evaluation.transfer_plan import MOST_STEPS, Plan, Planned, TransferSettings, make, marks_within
from engine.presets.document import Document, override
from engine.presets.preset import from_mapping
from engine.runs.reader import LARGEST_TRANSFER, RunReader
from engine.runs.results import rows
from lreg_tui.presets.preset_edit import words_of
from lreg_tui.presets.toml_edit import number
from lreg_tui.runs import actions, run_files
from lreg_tui.text import present
from lreg_tui.text.sheets import Sheet

TABLES = ("task", "evaluation")  # of a preset, that --set may change here


@dataclass(frozen=True)
class TransferRequest:
    """Numbers and lists are text as it was typed. No target: what the first run was meta-trained on."""

    to: tuple[str, ...] = ()
    steps: str = "0"
    seeds: str = "5"
    marks: str = ""
    radii: str = ""
    scales: str = "1"
    weight_decays: str = "0"
    sam: str = ""
    checkpoint: str = "best"
    untrained: bool = False
    baselines: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()


def plan(readers: Sequence[RunReader], request: TransferRequest) -> Plan:
    """The plan of a request. Raises PresetError, whose problems are named after the options, or RunError."""
    return make(readers, request.to, settings_of(request), changes_of(request))


def settings_of(request: TransferRequest) -> TransferSettings:
    """Checked; problems are named after the options. Raises PresetError.

    Of several numbers of steps the largest counts, and the others are marks: one unroll passes them all. So do the
    optimizees of the largest of several numbers of seeds hold all others.
    """
    steps, marks, seeds = (_numbers(text) for text in (request.steps, request.marks, request.seeds))
    if len(steps) > 1 and all(isinstance(count, int) and 0 < count < MOST_STEPS for count in steps):
        last = max(steps)
        marks = [*(marks or marks_within(last)), *(count for count in steps if count != last)]
        steps = [last]
    table = {
        "steps": steps[0] if len(steps) == 1 else steps,
        "seeds": max(seeds) if seeds and all(isinstance(count, int) for count in seeds) else request.seeds,
        "marks": marks,
        "scales": _numbers(request.scales) or [1.0],
        "weight_decays": _numbers(request.weight_decays) or [0.0],
        "sam": _numbers(request.sam),
        "checkpoint": request.checkpoint,
        "untrained": request.untrained,
        "baselines": list(dict.fromkeys(request.baselines)),
    }
    values, problems = check_table(table, schema_of(TransferSettings), "")
    if problems:
        names = {"baselines": "--baseline", "weight_decays": "--weight-decays"}
        raise PresetError([Problem(names.get(p.path, f"--{p.path}"), p.found, p.allowed, p.hint) for p in problems])
    return TransferSettings(**values)


def changes_of(request: TransferRequest) -> Mapping[str, Any]:
    """The tables that --set and --radii ask for. Raises PresetError."""
    from engine.presets import catalog

    document = Document({}, [])
    problems = override(document, request.sets, catalog.load())
    foreign = [key for key in document.values if key not in TABLES]
    problems += [
        Problem(key, "a table that a transfer evaluation has no use for", ", ".join(TABLES), source="--set")
        for key in foreign
    ]
    if problems:
        raise PresetError(problems)
    changes: dict[str, Any] = document.values
    if request.radii:
        changes.setdefault("evaluation", {})["radii"] = _numbers(request.radii)
    return changes


def unique(readers: Iterable[RunReader]) -> list[RunReader]:
    """Each run once, in the order given."""
    return list({reader.path: reader for reader in readers}.values())


def _numbers(text: str) -> list[Any]:
    return [number(part.strip()) for part in text.split(",") if part.strip()]


ALWAYS = ("dataset", "optimizee", "batch_size")  # keys of a task that a transfer file always names


@dataclass(frozen=True)
class SeenEvaluation:
    """What is kept of a transfer file: what it is an evaluation of, its seeds, and its row at the last inner step."""

    label: str
    task: Mapping[str, Any]
    protocol: Mapping[str, Any]
    seeds: frozenset[int]
    row: Mapping[str, Any] | None


def measured(plan: Plan) -> list[tuple[Planned, SeenEvaluation | None]]:
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
        done = measured(job.plan) if job.plan is not None else []
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
        if not NAMES.fullmatch(device):  # if it is there, only torch can tell
            raise SettingsError([Problem("--device", show(device), ALLOWED)])
        planned = plan(readers, request)
    except SettingsError as error:
        return CheckedRequest(problems=_by_field(error, request))
    except LregError as error:
        key = "runs" if isinstance(error, RunError) else ""
        return CheckedRequest(problems={key: str(error).splitlines()[0]})
    return CheckedRequest(planned, sum(seen is not None for _, seen in measured(planned)))


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
