"""Cost of runs: how long their processes worked, on how many threads, by what their logs say; and logs in short."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from engine.base.files import read_limited

LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)Z (.*)")
PROCESS = re.compile(r"process \d{1,10}")  # what follows is its command, with the folders of its machine
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
    threads: set[int] = field(default_factory=set)  # that a process was given


def cost_of(*folders: Path) -> Cost:
    """What runs or transfer jobs have cost, pauses left out. A process that was killed counts up to its last line."""
    cost = Cost()
    for process in (process for folder in folders for process in _processes(folder)):
        seconds = min(process.seconds, LONGEST)
        cost.seconds += seconds
        cost.core_seconds += seconds * process.threads
        cost.gpu_seconds += seconds * (process.device != "cpu")
        cost.devices.add(process.device)
        cost.threads.add(process.threads)
    return cost


def log_in_short(folder: Path) -> str:
    """Those lines of a log that tell of its cost, without what they say beside."""
    lines: list[str] = []
    last = ""
    for at, text in _lines(folder):
        begins = PROCESS.match(text)
        if last and begins:  # where the process before it ended
            lines.append(last)
        if is_telling := begins or text in ("paused", "continued") or DEVICE.fullmatch(text):
            lines.append(f"{at:%Y-%m-%dT%H:%M:%S}Z {begins[0] if begins else text}\n")
        last = "" if is_telling else f"{at:%Y-%m-%dT%H:%M:%S}Z ...\n"
    return "".join([*lines, last])


@dataclass
class _Process:
    """One process by its log."""

    last: datetime
    seconds: float = 0.0
    device: str = "cpu"
    threads: int = 1
    is_paused: bool = False


def _lines(folder: Path) -> Iterator[tuple[datetime, str]]:
    """The lines of a log that have a time."""
    try:
        lines = read_limited(folder / "log.txt", LARGEST, folder).decode(errors="replace").splitlines()
    except OSError:
        return
    for match in filter(None, map(LINE.fullmatch, lines)):
        with contextlib.suppress(ValueError):
            yield datetime.fromisoformat(match[1]), match[2]


def _processes(folder: Path) -> list[_Process]:
    processes: list[_Process] = []
    for at, text in _lines(folder):
        if not processes or text.startswith("process "):
            processes.append(_Process(at))
        process = processes[-1]
        process.seconds += 0.0 if process.is_paused else max(0.0, (at - process.last).total_seconds())
        process.last = at
        process.is_paused = (process.is_paused or text == "paused") and text != "continued"
        if facts := DEVICE.fullmatch(text):
            process.device, process.threads = facts[1], min(int(facts[3]), 4096)
    return processes
