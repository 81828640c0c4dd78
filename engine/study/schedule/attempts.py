"""Attempts: which of a study's runs are to be started, and which are left as they are."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from pathlib import Path
from statistics import fmean

from engine.base.status import LIVE
from engine.runs.reader import RunReader
from engine.study.plan.kept import cost_of
from engine.study.plan.snapshot import ENDED, Snapshot, WorkItem
from engine.study.plan.state import CellState

MOST_TRIES = 3  # of a run that crashes again and again without getting any further
START = "start"
BUSY = "busy"
FINISHED = "finished"
FAILED = "failed"  # for good
LEFT = "left"  # stopped by a person while this scheduler was at work, who will have had a reason
LEAST_SHARE = 0.05  # of a piece done, from which its own ETA tells of others
Kind = tuple[str, str]
"""Runs, transfers or baselines; and the arm: a reference arm's transfers take many times as long as others'."""


class Attempts:
    """What one scheduler has tried. What came before it is in the run folders; a new scheduler tries anew."""

    def __init__(
        self,
        retry_failed: bool = False,
        forgiven: Collection[Path] = (),
        why: Callable[[RunReader], str] = lambda run: "",
    ) -> None:
        """`forgiven`: runs that the scheduler before this one has asked to stop, and that are about to; `why`: what is
        known of a worker that is gone."""
        self.began = time.time()
        self.retry_failed = retry_failed
        self.reasons: dict[Path, str] = {}  # why a run is not tried again
        self._forgiven = set(forgiven)
        self._why = why
        self._first_seen: dict[Path, float] = {}  # heartbeats, by the clocks of the runs' hosts
        self._tries: dict[Path, tuple[int, int]] = {}  # how often it was started, and the step from which

    def verdict(self, run: RunReader, state: str, pending: Collection[Path]) -> str:
        """What to do about a run in this state; `pending` must have been looked up before the state."""
        status = run.recorded_status()
        first_seen = self._first_seen.setdefault(run.path, status.heartbeat)
        # last written to since this scheduler began; also where the clock of the run's host is behind this one's: else
        # what fails at once would be started for ever
        in_my_time = status.heartbeat >= self.began or status.heartbeat != first_seen
        is_mine = state == "queued" and status.pid == os.getpid()  # made here: its worker died before it took it
        if run.path in pending or (state in LIVE and not is_mine and run.path not in self.reasons):
            return BUSY
        if run.path in self.reasons:
            return FAILED
        if state == "finished":
            return FINISHED
        if state == "failed":
            return START if self.retry_failed and not in_my_time else FAILED
        if state == "stopped" and in_my_time and run.path not in self._forgiven:
            return LEFT
        count, step = self._tries.get(run.path, (0, -1))
        if count >= MOST_TRIES and status.step <= step:
            self.give_up(run, f"its process ended {count} times at step {step}: {self._why(run) or 'see its log'}")
            return FAILED
        return START

    def started(self, run: RunReader) -> None:
        """Count a start."""
        self._forgiven.discard(run.path)
        step = run.recorded_status().step
        count, before = self._tries.get(run.path, (0, -1))
        self._tries[run.path] = (count + 1 if step <= before else 1, step)

    def give_up(self, run: RunReader, reason: str) -> None:
        self.reasons[run.path] = reason


class EtaEstimator:
    """Remembers what has been taken, so that a look costs little: logs of what has finished are read once."""

    def __init__(self) -> None:
        self._taken: dict[Path, float] = {}  # seconds of a process
        self._at_once = 1

    def eta(self, seen: Snapshot) -> float | None:
        """Seconds left, with as many at work as now; None while nothing tells how long anything takes.

        What of a kind nothing is known takes as long as others: transfers of which none has begun, as the runs.
        """
        taken: dict[Kind, list[float]] = {}
        for piece in seen.pieces:
            if (seconds := self._seconds(piece)) is not None:
                taken.setdefault(_kind(piece), []).append(seconds)
        if not taken:
            return None
        left = {piece.run.path: _left(piece, taken) for piece in seen.pieces if piece.state not in ENDED}
        to_come = (seen.total - len(seen.pieces)) * _usual(("transfer", ""), taken)
        self._at_once = sum(piece.state in LIVE for piece in seen.pieces) or self._at_once
        return max((sum(left.values()) + to_come) / self._at_once, *left.values(), 0.0)

    def _seconds(self, piece: WorkItem) -> float | None:
        """What a piece has taken, or will have by its own ETA; None where that cannot be told."""
        path = piece.run.path
        if piece.state == "finished":
            if path not in self._taken:
                self._taken[path] = cost_of(path).seconds
            return self._taken[path] or None
        status = piece.run.recorded_status() if piece.state == "running" else None
        if status is None or status.eta_s is None or status.step < LEAST_SHARE * status.total:
            return None
        return time.time() - status.process_started + status.eta_s


def _kind(piece: WorkItem) -> Kind:
    if isinstance(piece, CellState):
        return "run", piece.cell.arm
    return "baselines" if piece.transfer.is_baselines else "transfer", piece.transfer.arm


def _left(piece: WorkItem, taken: dict[Kind, list[float]]) -> float:
    reported = piece.run.recorded_status().eta_s if piece.state == "running" else None
    return _usual(_kind(piece), taken) if reported is None else reported


def _usual(kind: Kind, taken: dict[Kind, list[float]]) -> float:
    """What one of a kind takes; else one of its sort; else anything."""
    alike = taken.get(kind) or [seconds for other in taken if other[0] == kind[0] for seconds in taken[other]]
    return fmean(alike or [seconds for each in taken.values() for seconds in each])
