"""Which evaluations of a plan are there already, and what they found. Reads transfer files, each once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
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
