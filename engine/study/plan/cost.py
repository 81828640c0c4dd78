"""Cost of runs: how long their processes worked, on how many threads, by what their logs say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from engine.base.files import read_limited

LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) (.*)")
DEVICE = re.compile(r"device (\S+), torch (\S+), (\d+) CPU threads")
LARGEST = 2**26  # bytes of a log
LONGEST = 366 * 86400.0  # seconds of one process; what is longer is a clock that was set


@dataclass(frozen=True)
class Cost:
    """Seconds that processes worked, times their CPU threads; and of those on an accelerator, times one."""

    seconds: float = 0.0
    core_seconds: float = 0.0
    gpu_seconds: float = 0.0
    devices: frozenset[str] = frozenset()

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds,
            self.core_seconds + other.core_seconds,
            self.gpu_seconds + other.gpu_seconds,
            self.devices | other.devices,
        )


def total(folders: Iterable[Path]) -> Cost:
    return sum(map(cost_of, folders), Cost())


def cost_of(folder: Path) -> Cost:
    """What a run or a transfer job has cost, pauses left out. A process that was killed counts up to its last line."""
    try:
        lines = read_limited(folder / "log.txt", LARGEST, folder).decode(errors="replace").splitlines()
    except OSError:
        return Cost()
    found, spell = Cost(), _Spell()
    for match in filter(None, map(LINE.fullmatch, lines)):
        at, said = _unix(match[1]), match[2]
        if at is None:
            continue
        if said.startswith("process "):
            found, spell = found + spell.cost(), _Spell()
        spell.take(at, said)
    return found + spell.cost()


class _Spell:
    """The work of one process."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.last = 0.0
        self.seconds = 0.0
        self.is_paused = False
        self.threads, self.device = 1, "cpu"

    def take(self, at: float, said: str) -> None:
        if self.began is not None and not self.is_paused:
            self.seconds += max(0.0, at - self.last)
        self.began, self.last = self.began or at, at
        self.is_paused = (self.is_paused or said == "paused") and said != "continued"
        if match := DEVICE.fullmatch(said):
            self.device, self.threads = match[1][:20], min(int(match[3][:5]), 4096)

    def cost(self) -> Cost:
        if self.began is None:
            return Cost()
        seconds = min(self.seconds, LONGEST)
        on_gpu = seconds if self.device != "cpu" else 0.0
        return Cost(seconds, seconds * self.threads, on_gpu, frozenset({self.device}))


def _unix(stamp: str) -> float | None:
    try:
        return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return None
