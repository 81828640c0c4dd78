"""What the console knows of studies, read from their folders, for a thread. Damage found there is told, not raised.

A study is the rows of its grid: one for each point of an arm, with a cell for each meta-seed.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.base.errors import LregError
from engine.base.status import LIVE
from engine.runs.reader import RunReader
from engine.runs.results import Mean, mean
from engine.runs.store import RunStore
from engine.study.plan.kept import report_file
from engine.study.plan.snapshot import DAMAGE, ENDED, Snapshot, Watcher
from engine.study.plan.state import MISSING, CellState, plan_of, winners
from lreg_tui.runs.feed import RunRow, row_of
from lreg_tui.runs.groups import value_text

IDLE_S = 10.0  # the runs of a study that nobody schedules are counted again after so long
WINNER, BEST = "winner", "best"  # of an arm that is complete; of one that is not


@dataclass(frozen=True)
class GridCell:
    """A run of a study."""

    run_id: str
    seed: int
    state: str
    value: float | None  # of the metric that winners are picked by
    done: float  # 0 to 1
    eta_s: float | None = None
    message: str = ""


@dataclass(frozen=True)
class GridRow:
    """A point of an arm with its runs, one for each meta-seed of the study; None where it has no such run."""

    arm: str
    point: str  # in words: "rho 0.05"
    brief: str  # ... its values alone
    number: int  # of the trial within the arm, from 1; 0: the study searches nothing
    cells: tuple[GridCell | None, ...]
    mean: Mean  # over the runs that have finished
    is_whole: bool  # every run has finished
    rank: str = ""  # WINNER or BEST of its arm
    best_so_far: float | None = None  # of this trial and those before it
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the point, by key path

    @property
    def key(self) -> tuple[str, str, int]:
        return (self.arm, self.point, self.number)


@dataclass(frozen=True)
class GridJob:
    """A transfer job of a study."""

    run_id: str
    arm: str
    state: str
    words: str
    run_ids: tuple[str, ...]


@dataclass(frozen=True)
class StudyLook:
    """A study as the console saw it last. `row`: its own folder, as a run's."""

    row: RunRow
    has_report: bool = False
    rows: tuple[GridRow, ...] = ()
    jobs: tuple[GridJob, ...] = ()
    total: int = 0  # runs and transfers there will be in the end, as far as can be told
    seeds: tuple[int, ...] = ()
    metric: str = ""
    is_search: bool = False
    problem: str = ""  # why there is nothing to see

    @property
    def cells(self) -> list[GridCell]:
        return [cell for row in self.rows for cell in row.cells if cell is not None]

    @property
    def counts(self) -> Mapping[str, int]:
        return Counter(cell.state for cell in self.cells)

    @property
    def progress(self) -> float:
        """0 to 1: of the runs and transfers."""
        jobs = sum(job.state in ENDED for job in self.jobs)
        done = sum(1.0 if cell.state in ENDED else cell.done for cell in self.cells) + jobs
        return min(1.0, done / self.total) if self.total else 0.0


def look_at(seen: Snapshot, row: RunRow, has_report: bool) -> StudyLook:
    """What the console shows of a study; `row`: its own folder."""
    jobs = tuple(
        GridJob(job.run.id, job.transfer.arm, job.state, job.transfer.words, tuple(r.id for r in job.transfer.runs))
        for job in seen.transfers
    )
    plan = seen.plan
    about = plan.seeds, plan.pick.metric, plan.search is not None
    return StudyLook(row, has_report, tuple(_rows(seen)), jobs, seen.total, *about)


def _rows(seen: Snapshot) -> Iterator[GridRow]:
    """Candidates in order. Of a search that is the order in which it asked for them."""
    leaders = winners(seen.candidates)
    best: dict[str, float] = {}
    numbers: Counter[str] = Counter()
    names = {arm.name: _short([axis.key for axis in arm.axes]) for arm in seen.plan.arms}
    searched = {arm.name for arm in seen.plan.arms if arm.axes and seen.plan.search is not None}
    for candidate in seen.candidates:
        arm, value = candidate.arm, candidate.value
        numbers[arm] += 1
        if value is not None:
            best[arm] = min(value, best.get(arm, value))
        cells = {cell.cell.seed: _cell(cell) for cell in candidate.cells}
        finished = [cell.value for cell in candidate.cells if cell.state == "finished"]
        is_winner = seen.winners.get(arm) is candidate
        leads = arm not in seen.winners and leaders.get(arm) is candidate
        yield GridRow(
            arm=arm,
            point="  ".join(f"{names[arm].get(key, key)} {value_text(v)}" for key, v in candidate.point.items()),
            brief=" ".join(map(value_text, candidate.point.values())),
            number=numbers[arm] if arm in searched else 0,
            cells=tuple(cells.get(seed) for seed in seen.plan.seeds),
            mean=mean(finished),
            is_whole=value is not None,
            rank=WINNER if is_winner else BEST if leads else "",
            best_so_far=best.get(arm),
            settings=candidate.point,
        )


def _cell(cell: CellState) -> GridCell:
    made = GridCell(cell.run.id, cell.cell.seed, cell.state, cell.value, float(cell.state == "finished"))
    if cell.state in (MISSING, "finished"):
        return made
    status = cell.run.recorded_status()
    done = min(1.0, status.step / status.total) if status.total else 0.0
    return replace(made, done=done, eta_s=status.eta_s if cell.state in LIVE else None, message=status.message)


def _short(keys: Sequence[str]) -> dict[str, str]:
    """Key paths as short as they can be told apart."""
    short = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-size:]) for size in range(1, len(parts) + 1)]
        short[key] = next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in keys) == 1), key)
    return short


# -- looking again and again -------------------------------------------------------------------------------------------


class WatchedStudy:
    """One study, looked at again and again; by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.reader = RunReader(path)
        self.seen: StudyLook | None = None  # by the newest look
        self.seen_at = -math.inf
        self._watcher: Watcher | None = None

    def look(self) -> StudyLook:
        self.seen, self.seen_at = self._look(), time.monotonic()
        return self.seen

    def _look(self) -> StudyLook:
        row = row_of(self.reader)
        report = report_file(self.reader.path).is_file()
        try:
            watcher = self._watcher = self._watcher or Watcher(plan_of(self.reader.path), self.reader.path)
            return look_at(watcher.look(), row, report)
        except DAMAGE as error:
            said = str(error).splitlines()[0] if isinstance(error, LregError) else f"damaged ({type(error).__name__})"
            return StudyLook(row, has_report=report, problem=said if "study.json" in said else f"study.json: {said}")


class StudyList:
    """The studies of a store, newest first. What takes time is `count`, one study after the other."""

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self.rows: tuple[RunRow, ...] = ()
        self._watched: dict[str, WatchedStudy] = {}

    def look(self) -> Sequence[str]:
        """Read how the studies are, and return those whose runs are to be counted."""
        self.rows = tuple(row_of(reader) for reader in reversed(self.store.studies()))
        self._watched = {row.id: self._watched.get(row.id) or WatchedStudy(row.path) for row in self.rows}
        due = time.monotonic() - IDLE_S
        return [row.id for row in self.rows if row.is_live or self._watched[row.id].seen_at <= due]

    def count(self, study_id: str) -> None:
        self._watched[study_id].look()

    def seen(self, study_id: str) -> StudyLook | None:
        return self._watched[study_id].seen if study_id in self._watched else None
