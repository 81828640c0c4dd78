"""What transfer jobs are to do, and what is there of it, as the console lists it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.base.errors import LregError, RunError
from engine.base.files import read_json
from engine.base.settings import check_table, schema_of
from engine.evaluation.transfer_plan import Plan, Planned, TransferSettings
from engine.presets.preset import from_mapping
from engine.runs.reader import LARGEST_TRANSFER, RunReader
from engine.runs.results import rows
from lreg_tui.runs import actions, run_files
from lreg_tui.text.sheets import Sheet

ALWAYS = ("dataset", "optimizee", "batch_size")  # keys of a task that a transfer file always names


@dataclass(frozen=True)
class Seen:
    """What is kept of a transfer file: what it is an evaluation of, its seeds, and its row at the last inner step."""

    label: str
    task: Mapping[str, Any]
    protocol: Mapping[str, Any]
    seeds: frozenset[int]
    row: Mapping[str, Any] | None


def found(plan: Plan) -> list[tuple[Planned, Seen | None]]:
    """Every evaluation of a plan with what a file of its run holds of it; None where there is no whole one.

    The meta-parameters are not compared, which would take torch: of a run that was resumed since then, older
    evaluations count here, and are measured again by the job.
    """
    files = {run: list(_files(Path(run) / "transfer")) for run in plan.runs}
    tasks = [facts_of(task) for task in plan.tasks]
    protocol = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(plan.protocol).items()}
    seeds = frozenset(range(plan.settings.seeds))
    result = []
    for item in plan.evaluations():
        task = next(facts for facts, table in zip(tasks, plan.tasks, strict=True) if table is item.task)
        planned = (item.label, task, protocol)
        fits = (
            seen
            for seen in files[item.run or plan.runs[0]]
            if (seen.label, seen.task, seen.protocol) == planned and seeds <= seen.seeds
        )
        result.append((item, next(fits, None)))
    return result


def _files(folder: Path) -> Iterator[Seen]:
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
def _read(path: Path, *_: int) -> Seen:
    """What matters of a file that may hold anything."""
    evaluation = read_json(path, LARGEST_TRANSFER, path.parent.parent)
    task, protocol, seeds = (evaluation.get(key) for key in ("task", "protocol", "seeds"))
    numbers = [seed.get("seed") for seed in seeds if isinstance(seed, dict)] if isinstance(seeds, list) else []
    results = rows([evaluation])
    return Seen(
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


def read_results(job: Job) -> tuple[Sheet, ...]:
    """A table for every task of which some evaluation is there."""
    if job.plan is None:
        return ()
    try:
        return tuple(result_sheets(job.plan, found(job.plan), job.names))
    except LregError:  # a task of another version: the job itself says so
        return ()


def result_sheets(
    plan: Plan, found: Sequence[tuple[Planned, Seen | None]], names: Mapping[str, str]
) -> Iterator[Sheet]:
    """A table for every task of which some evaluation is there, at its last inner step."""
    for task in plan.tasks:
        own = [(item, seen) for item, seen in found if item.task is task and seen is not None and seen.row is not None]
        if not own:
            continue
        results = [{**seen.row, "label": _label(item, names)} for item, seen in own if seen.row]
        yield run_files.result_sheet(results, f"{task['dataset']}/{task['optimizee']}")


def _label(item: Planned, names: Mapping[str, str]) -> str:
    return f"{names[item.run]}: {item.label}" if item.run and len(names) > 1 else item.label
