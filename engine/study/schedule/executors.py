"""Executors: where a study's runs and transfer jobs compute. `Local`: on this machine, as detached workers.

An executor remembers nothing that matters: the state of the runs is in their folders.
"""

from __future__ import annotations

import math
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import LregError
from engine.base.status import HELD, Status
from engine.jobs import spawn
from engine.runs.reader import RunReader
from engine.study.schedule import inputs, memory, slurm
from engine.study.schedule.executor import THREADS, Executor, Start, ask_to_stop

if TYPE_CHECKING:
    from engine.study.schedule.job import Schedule

MEMORY = "memory_bytes"  # of a run's metrics
SETTLE_S = 10.0  # after a start, before a run that has not said how large it is counts as large as it is by then


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
        taken = [memory.resident(self._pid(reader, status)) for reader, status in zip(busy, statuses, strict=True)]
        has_settled = time.monotonic() - self._started_at >= SETTLE_S
        for status, size in zip(statuses, taken, strict=True):
            told = status.latest.get(MEMORY, 0.0)  # on a GPU it says what it takes there
            told = int(told) if math.isfinite(told) else 0
            is_known, in_memory = told or has_settled, max(told, size) if status.device == "cpu" else size
            self._largest = max(self._largest, in_memory if is_known else 0)
        if not self._largest:
            return 0 if busy and not has_settled else 1
        free = memory.free() - sum(self._largest - size for size in taken if size < self._largest)
        return max(0 if busy else 1, int(free // self._largest))

    def _pid(self, reader: RunReader, status: Status) -> int:
        """The process of a run; before it has taken it, the status names whoever made the folder."""
        child = self._children.get(reader.path)
        return child[0].pid if child else status.pid if status.state in HELD and status.is_of_this_host else 0

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


def of(schedule: Schedule, folder: Path, presets: Iterable[Mapping[str, Any]], data_dir: Path | None) -> Executor:
    """The executor that a study's schedule names. Raises LregError where there is none, or a device is not there."""
    if schedule.executor == "slurm":
        return slurm.executor(schedule, folder, data_dir)
    if schedule.executor != "local":
        raise LregError(f"--executor: found {schedule.executor!r}; allowed: local, slurm")
    return local(schedule.devices, schedule.jobs, schedule.threads, presets, data_dir)


def local(devices: str, jobs: int, threads: int, presets: Iterable[Mapping[str, Any]], data_dir: Path | None) -> Local:
    """The executor on this machine. 0 and auto: one run on each GPU; without one, as many as the cores keep busy."""
    names = inputs.device_names(devices)
    names = names if names == ["cpu"] else inputs.devices(names)
    each = threads or max((preset.get("threads", 0) for preset in presets), default=0) or THREADS
    return Local(names, jobs or (len(names) if names != ["cpu"] else max(1, cores() // each)), threads, data_dir)


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
