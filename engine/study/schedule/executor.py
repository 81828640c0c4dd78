"""Executor: what a scheduler needs to know of the place where its runs compute."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from engine.base.errors import LregError
from engine.base.status import LIVE
from engine.jobs import spawn
from engine.runs.reader import RunReader

THREADS = 2  # of a run on the CPU, where neither the study nor its presets say
Start = tuple[RunReader, str]
"""A run whose folder is made, and the device that `slots` gave for it."""


class Executor(Protocol):
    """A place where runs and transfer jobs compute."""

    def slots(self, busy: Sequence[RunReader]) -> list[str]:
        """The device of every run that may be started now, beside the busy ones: live, or handed over (`pending`)."""

    def start(self, starts: Sequence[Start]) -> None:
        """Hand runs over, all those that can be started now together. Returns at once. Raises LregError."""

    def pending(self) -> set[Path]:
        """Paths of the runs that were handed over (by a scheduler before this one, too) and that no worker holds yet.

        Whatever their folders say, they are not to be started again.
        """

    def why(self, reader: RunReader) -> str:
        """What is known of a run that was handed over and is gone; empty: nothing."""

    def stop(self, readers: Iterable[RunReader]) -> None:
        """Ask the workers of live runs to write a checkpoint and end, take back what is pending. Returns at once.

        May be called again while they are at it.
        """


def ask_to_stop(reader: RunReader) -> None:
    """A worker on this machine, if there is one."""
    if reader.recorded_status().state in LIVE:
        with contextlib.suppress(LregError):  # it has ended by itself, or computes on another host
            spawn.request(reader, signal.SIGTERM, "stop")
