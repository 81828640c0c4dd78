"""Which evaluations of a plan are there already, and what they found. Reads transfer files, each once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
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
        _check(asdict(plan.settings))
        for task in plan.tasks:
            facts_of(task)
    except (LregError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"plan.json: no plan that can be shown ({str(error).splitlines()[0]})") from None
    return plan


def _check(settings: Mapping[str, Any]) -> None:
    _, problems = check_table(settings, schema_of(TransferSettings))
    if problems:
        raise ValueError(str(problems[0]))
