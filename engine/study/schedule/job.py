"""Study job: a study's folder, in `.studies` of the run store: a run's, with study.json in place of a preset."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

from engine.base.errors import RunError
from engine.base.files import read_json, refused, write_atomic
from engine.jobs.job import Job
from engine.runs.reader import RunReader
from engine.runs.store import STUDIES, RunStore
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


class StudyJob(Job):
    """The folder of a study, for its one scheduler."""

    kind: ClassVar[str] = "study"
    home: ClassVar[str] = STUDIES
    document: ClassVar[str] = "study.json"
    kept: ClassVar[str] = "what its runs have done"

    @classmethod
    def start(
        cls,
        store_dir: Path,
        plan: StudyPlan,
        *,
        argv: Sequence[str] = (),
        data_dir: str | os.PathLike[str] | None = None,
    ) -> StudyJob:
        """Make the folder of a new study. Raises RunError where it cannot be made."""
        return cls._make(store_dir, plan.name, plan.dumps(), stamp=plan.stamp, argv=argv, data_dir=data_dir)

    def set_schedule(self, schedule: Schedule) -> None:
        """Note how its runs are to be given out, for the scheduler that is started next.

        Threads that were noted before stay, where none are asked for: their number is in how sums are rounded. Raises
        RunError where a scheduler is at work, which has taken its own schedule, or where nothing can be written.
        """
        self._acquire()
        try:
            threads = schedule.threads or Schedule.of(self.path).threads
            replace(schedule, threads=threads).write(self.path)
        except OSError as error:
            raise refused(error, f"{error.filename or self.path}: cannot write there") from None
        finally:
            self._release()


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
    same = [(reader, is_same) for reader, is_same in _of_name(store, plan) if reader.state != "finished"]
    first = next((index for index, (_, is_same) in enumerate(same) if is_same), None)
    return (same[first][0], first > 0) if first is not None else (None, bool(same))


def finished(store: RunStore, plan: StudyPlan) -> RunReader | None:
    """The newest study of this very plan that has finished."""
    return next((reader for reader, is_same in _of_name(store, plan) if is_same and reader.state == "finished"), None)


def _of_name(store: RunStore, plan: StudyPlan) -> Iterator[tuple[RunReader, bool]]:
    """The studies of a plan's name, the newest first, and whether they are of that very plan."""
    kept = StudyPlan.from_json(json.loads(plan.dumps()))  # as it comes out of a folder: tuples have become lists
    for reader in reversed(store.studies()):
        with contextlib.suppress(RunError):
            other = plan_of(reader.path)
            if other.name == plan.name:
                yield reader, replace(other, stamp=plan.stamp).dumps() == kept.dumps()
