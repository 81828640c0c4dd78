"""What a study's folder holds beside its plan: how its runs are given out; and which studies of a store there are."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from engine.base.errors import RunError
from engine.base.files import read_json, refused, write_atomic
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
        found, default = read_json(folder / SCHEDULE, below=folder), cls()
        names = [item.name for item in fields(cls)]
        fitting = {name: found[name] for name in names if type(found.get(name)) is type(getattr(default, name))}
        return cls(**fitting)


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

    A study whose runs failed for good is unfinished: they can be tried again.
    """
    others = False
    for reader in reversed(store.studies()):
        try:
            found = plan_of(reader.path)
        except RunError:
            continue
        if found.name != plan.name or reader.state == "finished":
            continue
        if _is_same(found, plan):
            return reader, others
        others = True
    return None, others


def finished(store: RunStore, plan: StudyPlan) -> RunReader | None:
    """The newest study of this very plan that has finished."""
    for reader in reversed(store.studies()):
        with contextlib.suppress(RunError):
            if reader.state == "finished" and _is_same(plan_of(reader.path), plan):
                return reader
    return None


def _is_same(found: StudyPlan, plan: StudyPlan) -> bool:
    return replace(found, stamp=plan.stamp).dumps() == _as_kept(plan)


def _as_kept(plan: StudyPlan) -> str:
    """The plan as it looks when it comes out of a folder, where tuples have become lists and back."""
    return StudyPlan.from_json(json.loads(plan.dumps())).dumps()
