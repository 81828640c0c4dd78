"""Transfer jobs: what they are to do, and which of their evaluations are there already. Reads files, each once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.base.errors import LregError, RunError
from engine.base.files import read_json
from engine.base.metrics import Metric, result_metrics
from engine.base.settings import check_table, schema_of
from engine.evaluation.transfer_plan import Plan, Planned, TransferSettings
from engine.presets.preset import from_mapping
from engine.runs.reader import LARGEST_TRANSFER, RunReader
from engine.runs.results import rows
from lreg_tui.runs import actions
from lreg_tui.text import present
from lreg_tui.text.sheets import Entry, Sheet

ALWAYS = ("dataset", "optimizee", "batch_size")  # keys of a task that a transfer file always names


@dataclass(frozen=True)
class Seen:
    """What is kept of a transfer file: what it is an evaluation of, its seeds, and its row at the last inner step."""

    label: str
    task: Mapping[str, Any]
    protocol: Mapping[str, Any]
    seeds: frozenset[int]
    row: Mapping[str, Any] | None


class TransferFiles:
    """Transfer files of runs, each read once. Threads take turns."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._known: dict[Path, tuple[tuple[int, int], Seen]] = {}

    def found(self, plan: Plan) -> list[tuple[Planned, Seen | None]]:
        """Every evaluation of a plan with what a file of its run holds of it; None where there is no whole one.

        The meta-parameters are not compared, which would take torch: of a run that was resumed since then, older
        evaluations count here, and are measured again by the job.
        """
        with self._guard:
            folders = {run: list(self._files(Path(run) / "transfer")) for run in plan.runs}
        tasks = {index: facts_of(task) for index, task in enumerate(plan.tasks)}
        protocol = {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(plan.protocol).items()
        }
        seeds = frozenset(range(plan.settings.seeds))
        result = []
        for item in plan.evaluations():
            task = tasks[next(index for index, table in enumerate(plan.tasks) if table is item.task)]
            wanted = (item.label, task, protocol)
            there = folders[item.run or plan.runs[0]]
            fits = [seen for seen in there if (seen.label, seen.task, seen.protocol) == wanted and seeds <= seen.seeds]
            result.append((item, fits[0] if fits else None))
        return result

    def _files(self, folder: Path) -> Iterator[Seen]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            return
        for entry in entries:
            if entry.name.endswith(".json") and entry.name[0] != ".":
                yield from self._read(Path(entry.path))

    def _read(self, path: Path) -> Iterator[Seen]:
        try:
            status = path.stat()
        except OSError:
            return
        stamp = (status.st_mtime_ns, status.st_size)
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            known = self._known[path] = stamp, _seen(read_json(path, LARGEST_TRANSFER, path.parent.parent))
        yield known[1]


def _seen(evaluation: Mapping[str, Any]) -> Seen:
    """What matters of a file that may hold anything."""
    task, protocol, seeds = (evaluation.get(key) for key in ("task", "protocol", "seeds"))
    numbers = [seed.get("seed") for seed in seeds if isinstance(seed, dict)] if isinstance(seeds, list) else []
    found = rows([evaluation])
    return Seen(
        label=str(evaluation.get("label")),
        task=task if isinstance(task, dict) else {},
        protocol=protocol if isinstance(protocol, dict) else {},
        seeds=frozenset(number for number in numbers if isinstance(number, int)),
        row=found[-1] if found else None,
    )


def facts_of(task: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved [task] table as a transfer file tells it: without what is the default."""
    usual = from_mapping({"task": {key: task[key] for key in ALWAYS}}).tasks[0]
    found = {key: value for key, value in task.items() if key in ALWAYS or value != usual.get(key)}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


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
class Job:
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


def read_job(path: Path) -> Job:
    try:
        plan = plan_of(RunReader(path))
    except LregError as error:
        return Job(path.name, problem=str(error).splitlines()[0])
    names = {run: actions.called(RunReader(run)) for run in plan.runs}
    tasks = list(dict.fromkeys(item.task_name for item in plan.evaluations()))
    more = f" +{len(tasks) - 2}" if len(tasks) > 2 else ""
    return Job(f"{', '.join(names.values())} on {', '.join(tasks[:2])}{more}", plan, names)


def read_results(job: Job, files: TransferFiles) -> tuple[Sheet, ...]:
    """A table for every task of which some evaluation is there."""
    if job.plan is None:
        return ()
    try:
        return tuple(result_sheets(job.plan, files.found(job.plan), job.names))
    except LregError:  # a task of another version: the job itself says so
        return ()


def result_sheets(
    plan: Plan, evaluations: Sequence[tuple[Planned, Seen | None]], names: Mapping[str, str]
) -> Iterator[Sheet]:
    """A table for every task of which some evaluation is there, at its last inner step."""
    for task in plan.tasks:
        pairs = ((item, seen.row if seen is not None else None) for item, seen in evaluations if item.task is task)
        items = [(item, row) for item, row in pairs if row is not None]
        if not items:
            continue
        measured = (name for _, row in items for name, value in row.items() if isinstance(value, dict))
        metrics = result_metrics(name for name in measured if name != "task")
        radius = items[0][1]["sharpness"]["radius"]
        columns = [present.label(metric.name, radius).replace(" at ", "\nat ") for metric in metrics]
        rows = [(_label(item, names), _entries(row, metrics)) for item, row in items]
        name = f"{task['dataset']}/{task['optimizee']} after {plan.protocol.inner_steps} inner steps"
        yield Sheet(name, "optimizer", columns, rows)


def _label(item: Planned, names: Mapping[str, str]) -> str:
    return f"{names[item.run]}: {item.label}" if item.run and len(names) > 1 else item.label


def _entries(row: Mapping[str, Any], metrics: Sequence[Metric]) -> list[Entry]:
    first, *others = (present.interval(row.get(m.name, {}), m.unit == "share", "±") for m in metrics)
    if row["diverged"]:
        return [Entry(f"{first}\n{row['diverged']} of {row['seeds']} diverged", style="red"), *map(Entry, others)]
    return [Entry(text) for text in (first, *others)]
