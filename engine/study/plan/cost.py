"""Cost of runs: how long their processes worked, on how many threads, by what their logs say."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from engine.base.files import read_limited

LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)Z (.*)")
DEVICE = re.compile(r"device (\S{1,20}), torch (\S+), (\d{1,5}) CPU threads")
LARGEST = 2**26  # bytes of a log
LONGEST = 366 * 86400.0  # seconds of one process; what is longer is a clock that was set


@dataclass
class Cost:
    """Seconds that processes worked, times their CPU threads; and of those on an accelerator, times one."""

    seconds: float = 0.0
    core_seconds: float = 0.0
    gpu_seconds: float = 0.0
    devices: set[str] = field(default_factory=set)


def cost_of(*folders: Path) -> Cost:
    """What runs or transfer jobs have cost, pauses left out. A process that was killed counts up to its last line."""
    cost = Cost()
    for process in (process for folder in folders for process in _processes(folder)):
        seconds = min(process.seconds, LONGEST)
        cost.seconds += seconds
        cost.core_seconds += seconds * process.threads
        cost.gpu_seconds += seconds * (process.device != "cpu")
        cost.devices.add(process.device)
    return cost


@dataclass
class _Process:
    """One process by its log."""

    last: datetime
    seconds: float = 0.0
    device: str = "cpu"
    threads: int = 1
    is_paused: bool = False


def _processes(folder: Path) -> list[_Process]:
    try:
        lines = read_limited(folder / "log.txt", LARGEST, folder).decode(errors="replace").splitlines()
    except OSError:
        return []
    processes: list[_Process] = []
    for match in filter(None, map(LINE.fullmatch, lines)):
        try:
            at, text = datetime.fromisoformat(match[1]), match[2]
        except ValueError:
            continue
        if not processes or text.startswith("process "):
            processes.append(_Process(at))
        process = processes[-1]
        process.seconds += 0.0 if process.is_paused else max(0.0, (at - process.last).total_seconds())
        process.last = at
        process.is_paused = (process.is_paused or text == "paused") and text != "continued"
        if facts := DEVICE.fullmatch(text):
            process.device, process.threads = facts[1], min(int(facts[3]), 4096)
    return processes
