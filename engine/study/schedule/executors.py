"""Executors: where a study's runs and transfer jobs compute. `Local`: on this machine, as detached workers.

An executor remembers nothing that matters: the state of the runs is in their folders.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from engine.base.errors import LregError
from engine.base.files import read_limited
from engine.base.status import HELD, LIVE, Status
from engine.jobs import spawn
from engine.runs.reader import RunReader
from engine.study.schedule import inputs

THREADS = 2  # of a run on the CPU, where neither the study nor its presets say
Start = tuple[RunReader, str]
"""A run whose folder is made, and the device that `slots` gave for it."""
MEMORY = "memory_bytes"  # of a run's metrics
SETTLE_S = 10.0  # after a start, before a run that has not said how large it is counts as large as it is by then
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


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


class Local:
    """This machine: as many detached workers at once as it has room for.

    Workers outlive their scheduler. The next one finds them in the run folders and counts them.
    """

    def __init__(self, devices: Sequence[str], jobs: int, threads: int = 0, data_dir: Path | None = None) -> None:
        """`jobs` at once, on the devices in turn; `threads` for each whose preset does not say, 0: a fair share."""
        self.devices = tuple(devices)
        self.jobs = jobs
        self.threads = threads or max(1, cores() // jobs)
        self.data_dir = data_dir
        self._children: dict[Path, tuple[subprocess.Popen[bytes], str, int]] = {}  # device, size of the log before
        self._reasons: dict[Path, str] = {}
        self._largest = 0  # bytes that a run has said it takes
        self._started_at = -SETTLE_S

    def slots(self, busy: Sequence[RunReader]) -> list[str]:
        """Free places, the least loaded devices first; none where memory is short."""
        self._reap()
        load = Counter({device: 0 for device in self.devices})
        for reader in busy:
            child = self._children.get(reader.path)
            device = child[1] if child else reader.recorded_status().device
            load[device if device in load else self.devices[0]] += 1
        free: list[str] = []
        for _ in range(min(self.jobs - len(busy), self._room(busy))):
            free.append(min(self.devices, key=lambda device: load[device]))
            load[free[-1]] += 1
        return free

    def _room(self, busy: Sequence[RunReader]) -> int:
        """How many more runs fit into memory, if each takes as much as the biggest that was seen so far.

        Those that have just begun are still to grow to that size. Before any has said how large it is, runs are
        started one by one. One at a time goes always.
        """
        statuses = [reader.recorded_status() for reader in busy]
        taken = [resident(self._pid(reader, status)) for reader, status in zip(busy, statuses, strict=True)]
        has_settled = time.monotonic() - self._started_at >= SETTLE_S
        for status, size in zip(statuses, taken, strict=True):
            told = status.latest.get(MEMORY, 0.0)  # on a GPU it says what it takes there
            told = int(told) if math.isfinite(told) else 0
            is_known, in_memory = told or has_settled, max(told, size) if status.device == "cpu" else size
            self._largest = max(self._largest, in_memory if is_known else 0)
        if not self._largest:
            return 0 if busy and not has_settled else 1
        free = free_memory() - sum(self._largest - size for size in taken if size < self._largest)
        return max(0 if busy else 1, int(free // self._largest))

    def _pid(self, reader: RunReader, status: Status) -> int:
        """The process of a run; before it has taken it, the status names whoever made the folder."""
        if child := self._children.get(reader.path):
            return child[0].pid
        return status.pid if status.state in HELD and status.is_of_this_host else 0

    def start(self, starts: Sequence[Start]) -> None:
        self._started_at = time.monotonic()
        for reader, device in starts:
            before = spawn.log_size(reader)
            child = spawn.start_worker(reader, device=device, data_dir=self.data_dir, threads=self.threads)
            self._children[reader.path] = (child, device, before)
            self._reasons.pop(reader.path, None)

    def pending(self) -> set[Path]:
        self._reap()
        return {path for path, (child, _, _) in self._children.items() if not spawn.holds(child, RunReader(path))}

    def why(self, reader: RunReader) -> str:
        return self._reasons.get(reader.path, "")

    def stop(self, readers: Iterable[RunReader]) -> None:
        waiting = self.pending()
        for reader in readers:
            if reader.path in waiting:
                self._children[reader.path][0].terminate()
            else:
                ask_to_stop(reader)

    def _reap(self) -> None:
        """Forget the children that have died, so that nothing is left of them; note what they said."""
        for path, (child, _, before) in list(self._children.items()):
            if (code := child.poll()) is not None:
                del self._children[path]
                reader = RunReader(path)
                if code and not spawn.holds(child, reader):
                    self._reasons[path] = str(spawn.died(code, reader, before))


def local(devices: str, jobs: int, threads: int, presets: Iterable[Mapping[str, Any]], data_dir: Path | None) -> Local:
    """The executor on this machine. 0 and auto: one run on each GPU; without one, as many as the cores keep busy."""
    names = inputs.device_names(devices)
    names = names if names == ["cpu"] else inputs.devices(names)
    each = threads or max((preset.get("threads", 0) for preset in presets), default=0) or THREADS
    return Local(names, jobs or (len(names) if names != ["cpu"] else max(1, cores() // each)), threads, data_dir)


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int:
    """Bytes that can still be taken: of the machine, and under every limit above this process."""
    import psutil

    return max(0, min([psutil.virtual_memory().available, *_left_by_cgroups()]))


def resident(pid: int) -> int:
    """Bytes of a process of this host; 0 where it is not known."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss) if pid else 0
    except (psutil.Error, ValueError, OverflowError):
        return 0


def _left_by_cgroups() -> Iterator[int]:
    """What each limit leaves, of this process's group and of those around it. Linux has them, in two versions.

    Files that need not stay in memory count as free.
    """
    for line in _text(OWN_CGROUPS).splitlines():  # 0::/group of version 2; 7:cpu,memory:/group of version 1
        controllers, _, group = line.partition(":")[2].partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        root, (limit, used, cache) = (CGROUPS / "memory", V1) if controllers else (CGROUPS, V2)
        inside = PurePosixPath(group.lstrip("/"))
        # a container sees its own group as the root, whatever it is called outside
        for folder in (root / path for path in (inside, *inside.parents) if ".." not in path.parts):
            most, taken = (_text(folder / name).strip() for name in (limit, used))
            pairs = (line.split() for line in _text(folder / "memory.stat").splitlines())
            cached = next((pair[1] for pair in pairs if pair[:1] == [cache] and len(pair) == 2), "0")
            if all(text.isdecimal() for text in (most, taken, cached)):  # "max" is no number
                yield int(most) - int(taken) + int(cached)


def _text(path: Path) -> str:
    try:
        return read_limited(path).decode(errors="replace")
    except OSError:
        return ""
