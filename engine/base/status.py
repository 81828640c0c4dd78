"""status.json: how far a run is, and whether the process that said so still lives."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

STATES = ("queued", "running", "paused", "stopped", "finished", "failed")
LIVE = ("queued", "running", "paused")  # a process ought to be there
HELD = ("running", "paused")  # ... and hold the run's lock
STOPPING = "stopping"  # what people are told of a run that is held and was asked to stop
INTERRUPTED = 130  # the exit code after a checkpoint
EXIT_CODES = {"finished": 0, "failed": 1, "stopped": INTERRUPTED}
HEARTBEAT_S = 1.0
SILENT_AFTER_S = 10.0  # without a heartbeat, a process of this host must show that it holds the lock
LOST_AFTER_S = 120.0  # without a heartbeat, a process on another host counts as gone
LARGEST_SKEW_S = 86400.0  # between the clocks of two hosts; an older heartbeat is that of a copy
START_TOLERANCE_S = 2.0  # process start times are known to the clock tick


def process_started(pid: int) -> float | None:
    """When the process started, unix seconds; None if there is no such process (or only its corpse)."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (psutil.Error, ValueError, OverflowError, TypeError):
        return None


@dataclass(frozen=True)
class Status:
    """status.json. `latest` holds the newest value of every metric, so that lists of runs need not read metrics.

    A value that is not finite, with which training has diverged, is null in the file and NaN here.
    """

    state: str = "queued"
    pid: int = 0
    process_started: float = 0.0
    host: str = ""
    controllable: bool = False  # the process listens to the signals of stop, pause and continue
    stopping: bool = False  # ... and was told to stop: it finishes what is at hand
    heartbeat: float = 0.0
    step: int = 0
    total: int = 0
    eta_s: float | None = None
    message: str = ""
    processes: int = 1  # that share the run; `pid` is the one that holds it
    device: str = ""  # what the run computes on, once that is known: cpu, cuda:0
    latest: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Status:
        """Take what fits; leave unknown keys and wrong types."""
        default = cls()
        fitting = {key: value for key, value in values.items() if _fits(key, value, default)}
        latest = {str(key): as_figure(value) for key, value in fitting.get("latest", {}).items()}
        fitting["latest"] = {key: value for key, value in latest.items() if value is not None}
        return cls(**fitting)

    def of_this_process(self) -> Status:
        """The same run in the hands of the process that asks."""
        started = process_started(os.getpid()) or time.time()
        host = socket.gethostname()
        return replace(self, pid=os.getpid(), process_started=started, host=host, controllable=False, stopping=False)

    @property
    def told(self) -> str:
        """The state, as people are told it."""
        return STOPPING if self.stopping and self.state in HELD else self.state

    @property
    def is_of_this_host(self) -> bool:
        return self.host in ("", socket.gethostname())

    @property
    def process_is_gone(self) -> bool:
        """True if there ought to be a process of this host, and it no longer exists, or nothing is known of it."""
        if self.state not in LIVE or not self.is_of_this_host:
            return False
        started = process_started(self.pid)
        return started is None or abs(started - self.process_started) > START_TOLERANCE_S

    def is_lost(self, silent_s: float) -> bool:
        """True if there ought to be a process on another host, and nothing was written for so many seconds."""
        if self.state not in LIVE or self.is_of_this_host:
            return False
        return silent_s > LOST_AFTER_S or time.time() - self.heartbeat > LARGEST_SKEW_S

    @property
    def is_silent(self) -> bool:
        """True if a process of this host ought to hold the run and has not said so for a while."""
        return self.state in HELD and self.is_of_this_host and time.time() - self.heartbeat > SILENT_AFTER_S


def _fits(key: str, value: Any, default: Status) -> bool:
    if key == "eta_s":
        return is_number(value, True)
    if key in ("pid", "step", "total", "processes"):
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    if key in ("process_started", "heartbeat"):
        return is_number(value)
    return key in Status.__dataclass_fields__ and isinstance(value, type(getattr(default, key)))


def is_number(value: Any, allow_none: bool = False) -> bool:
    """True for a finite number that a float can hold."""
    if value is None:
        return allow_none
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e308


def as_figure(value: Any) -> float | None:
    """A recorded value as a number, which may be NaN (so null is read) or infinite; None for what is no number."""
    if value is None or value != value:
        return math.nan  # always this one: values that are compared by identity first are equal then
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        float(value)
    except OverflowError:  # a whole number that no float can hold
        return None
    return value
