"""Starting studies from the console: what can be picked, how long it may take, the start itself, and going on with one.

These wait for disks and processes: not for the console's loop.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli

from engine import document as documents
from engine.errors import LregError, RunError
from engine.files import read_limited
from engine.runs import RunReader, RunStore
from engine.status import LIVE
from engine.study.job import Schedule, StudyJob, new_stamp, unfinished
from engine.study.plan import ArmPlan, StudyPlan
from lreg_tui import actions, launch
from lreg_tui.feed import RunRow
from lreg_tui.present import duration

TABLES = ("arm", "axes", "transfer", "search", "pick")  # one of which a study has, and no preset


@dataclass(frozen=True)
class Offer:
    """A study that can be started; `reference` is what `lreg study` is given. It may have been written by strangers."""

    group: str
    reference: str
    name: str
    about: str


@dataclass(frozen=True)
class Size:
    """What a study asks for. `seconds`: of computing, as far as runs of the store tell; None: they do not."""

    plan: StudyPlan
    runs: int
    transfers: int
    seconds: float | None = None
    unknown: tuple[str, ...] = ()  # arms of which no run tells how fast they are

    @property
    def estimate(self) -> str:
        """How long its runs may take, in words."""
        if self.seconds is None:
            return "no run here tells how long that takes"
        without = f", without {', '.join(self.unknown)}" if self.unknown else ""
        return f"about {duration(self.seconds)} of meta-training, one run at a time, as fast as the runs here{without}"


def offers(folder: Path) -> Iterator[Offer]:
    """The shipped studies, small ones first, and those in a folder."""
    from engine.study.document import shipped_studies

    for name, path in sorted(shipped_studies().items(), key=lambda item: (item[0] != "smoke", item[0])):
        yield Offer("shipped", name, name, str((_values(path) or {}).get("description", "")))
    for path in sorted(folder.glob("*.toml")):
        values = _values(path)
        if path.name != "pyproject.toml" and values is not None and any(table in values for table in TABLES):
            yield Offer("in this folder", str(path), path.name, str(values.get("description", "")))


def _values(path: Path) -> dict[str, Any] | None:
    try:
        return tomli.loads(read_limited(path, documents.LARGEST_FILE).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None


def size_of(reference: str, rows: Sequence[RunRow]) -> Size:
    """What a study asks for; `rows`: runs that tell how fast its own may be. Raises LregError with what is wrong."""
    from engine.study.document import load_study
    from engine.study.transfers import expected

    plan = load_study(reference)
    runs = sum(_points(plan, arm) for arm in plan.arms) * len(plan.seeds)
    seconds, unknown = _seconds(plan, rows)
    return Size(plan, runs, expected(plan, runs), seconds, unknown)


def _points(plan: StudyPlan, arm: ArmPlan) -> int:
    if plan.search is not None:
        return plan.search.trials if arm.axes else 1
    return math.prod(len(axis.values) for axis in arm.axes)


def _seconds(plan: StudyPlan, rows: Sequence[RunRow]) -> tuple[float | None, tuple[str, ...]]:
    """Time of computing, from the inner steps per second of the newest run of the same kind; arms without one."""
    rates = {}
    for row in rows:
        if rate := row.latest.get("inner_steps_per_s"):
            rates[row.task, row.optimizer, frozenset(row.penalties)] = rate
    known, unknown = [], []
    for arm in plan.arms:
        rate = rates.get(_kind(arm.preset))
        if rate:
            known.append(_points(plan, arm) * len(plan.seeds) * _inner_steps(arm.preset["meta"]) / rate)
        else:
            unknown.append(arm.name)
    return (sum(known) if known else None), tuple(unknown)


def _kind(preset: Mapping[str, Any]) -> tuple[str, str, frozenset[str]]:
    """What decides most of a run's speed, as the lists of runs name it."""
    tasks = preset["task"] if isinstance(preset["task"], (list, tuple)) else [preset["task"]]
    named = "+".join(f"{task['dataset']}/{task['optimizee']}" for task in tasks)
    return named, preset["optimizer"]["kind"], frozenset(preset["penalty"])


def _inner_steps(meta: Mapping[str, Any]) -> float:
    """Of all optimizees of a run; the stages of a curriculum count alike."""
    steps = meta["inner_steps"]
    stages = steps if isinstance(steps, (list, tuple)) else [steps]
    return float(meta["epochs"] * meta["meta_batch"] * sum(stages) / len(stages))


def start(reference: str, store: RunStore, name: str, jobs: int, data_dir: Path | None) -> tuple[str, bool]:
    """As `lreg study --detach` does it: go on with this study if it is there unfinished, else begin it.

    Returns its id, and whether it was there. Raises LregError with the reason.
    """
    from engine.study import inputs, transfers
    from engine.study.document import load_study

    plan = load_study(reference, [f"name={json.dumps(name)}"] if name else (), new_stamp(store))
    found, _ = unfinished(store, plan)
    if found is None:
        inputs.check(transfers.tasks(plan), data_dir)
        job = StudyJob.start(store.root, plan, argv=sys.argv, data_dir=data_dir)
    elif (state := found.state) in LIVE:
        raise RunError(f"study {found.id} is {state}")
    else:
        job = StudyJob(found.path)
    job.set_schedule(Schedule(jobs=jobs))
    _launch(job.path, data_dir)
    return job.path.name, found is not None


def resume(path: Path, data_dir: Path | None = None) -> str:
    """Go on with a study as it was scheduled last; what has failed is tried again."""
    reader = RunReader(path)
    if (state := reader.state) not in actions.RESUMABLE:
        raise RunError(f"{actions.called(reader)} is {state}: nothing to resume")
    StudyJob(path).set_schedule(replace(Schedule.of(path), retry_failed=True))
    _launch(path, data_dir)
    return f"{actions.called(reader)} goes on"


def _launch(path: Path, data_dir: Path | None) -> None:
    from lreg_tui import study_worker

    try:
        launch.start_detached(RunReader(path), data_dir=data_dir, module=study_worker.MODULE)
    except OSError as error:
        raise LregError(f"{error.filename or path}: {error.strerror}") from None
