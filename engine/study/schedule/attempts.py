"""Attempts: which of a study's runs are to be started, and which are left as they are."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

from engine.base.status import LIVE
from engine.runs.reader import RunReader

MOST_TRIES = 3  # of a run that crashes again and again without getting any further

START = "start"
BUSY = "busy"
FINISHED = "finished"
FAILED = "failed"  # for good
LEFT = "left"  # stopped by a person while this scheduler was at work, who will have had a reason


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
