"""What a study's folder holds beside its plan: how its runs are given out; and which studies of a store there are."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from engine.base.errors import RunError
from engine.base.files import read_json, refused, write_atomic
from engine.runs.kinds import STUDY
from engine.runs.reader import RunReader
from engine.runs.store import Run, RunStore
from engine.study.plan.plan import StudyPlan
from engine.study.plan.state import plan_of

SCHEDULE = "schedule.json"


@dataclass(frozen=True)
class Schedule:
    """How a study's runs are given out, as it was asked for last. Nothing here changes a figure but `threads`."""

    executor: str = "local"
    jobs: int = 0  # at once; 0: as many as there are GPUs, or as the cores keep busy
    devices: str = "auto"
    threads: int = 0
    retry_failed: bool = False
    slurm: dict[str, Any] = field(default_factory=dict, hash=False)  # options of that executor

    def write(self, folder: Path) -> None:
        write_atomic(folder / SCHEDULE, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def of(cls, folder: Path) -> Schedule:
        """What is noted in a study's folder, as far as it fits."""
        values, default = read_json(folder / SCHEDULE, below=folder), asdict(cls())
        return cls(**{key: values[key] for key in default if type(values.get(key)) is type(default[key])})


def set_schedule(study: Run, schedule: Schedule) -> None:
    """Note how a study's runs are to be given out, for the scheduler that is started next.

    Threads that were noted before stay, where none are asked for: their number is in how sums are rounded. Raises
    RunError where a scheduler is at work, which has taken its own schedule, or where nothing can be written.
    """
    with study.locked():
        threads = schedule.threads or Schedule.of(study.path).threads
        try:
            replace(schedule, threads=threads).write(study.path)
        except OSError as error:
            raise refused(error, f"{error.filename or study.path}: cannot write there") from None


def new_stamp(store: RunStore) -> str:
    """When a study is started, as its runs' ids begin: a second in which no other study of the store was started."""
    now = datetime.now(timezone.utc)
    taken = {reader.id[:15] for reader in store.studies()}
    while (stamp := f"{now:%Y%m%d-%H%M%S}") in taken:
        now += timedelta(seconds=1)
    return stamp


def unfinished(store: RunStore, plan: StudyPlan) -> tuple[RunReader | None, bool]:
    """The newest study of this very plan that has not finished; and whether there is one of its name, but another plan.

    A study whose runs failed for good is unfinished: they can be tried again. So is one of this plan with a part of its
    meta-seeds, where there is none of the whole: its runs are runs of this plan, unless a search has chosen them.
    """
    whole = [reader for reader, other in _of_name(store, plan) if _is_same(other, plan)]
    for reader in whole:
        if reader.state != "finished":
            return reader, False
    if not whole and plan.search is None:
        for reader, other in _of_name(store, plan):
            if set(other.seeds) < set(plan.seeds) and _is_same(replace(other, seeds=plan.seeds), plan):
                return reader, False
    return None, any(reader.state != "finished" for reader, other in _of_name(store, plan) if not _is_same(other, plan))


def finished(store: RunStore, plan: StudyPlan) -> RunReader | None:
    """The newest study of this very plan that has finished."""
    return next(
        (reader for reader, other in _of_name(store, plan) if _is_same(other, plan) and reader.state == "finished"),
        None,
    )


def add_seeds(study: Run, plan: StudyPlan) -> None:
    """Let a study be one of this plan, which has more meta-seeds; its runs keep their names. Raises RunError."""
    begun = plan_of(study.path)
    if begun.seeds != plan.seeds:
        with study.locked():
            write_atomic(study.path / STUDY.document, replace(plan, stamp=begun.stamp).dumps())
        study.set_status(state="stopped", message="more meta-seeds to do")


def _of_name(store: RunStore, plan: StudyPlan) -> Iterator[tuple[RunReader, StudyPlan]]:
    """The studies of a plan's name and their plans, the newest first."""
    for reader in reversed(store.studies()):
        with contextlib.suppress(RunError):
            other = plan_of(reader.path)
            if other.name == plan.name:
                yield reader, other


def _is_same(other: StudyPlan, plan: StudyPlan) -> bool:
    stored = StudyPlan.from_json(json.loads(plan.dumps()))  # as it comes out of a folder: tuples have become lists
    return replace(other, stamp=plan.stamp).dumps() == stored.dumps()
