"""How busy the machine is, and what a process of it takes: processor, memory, disk, GPUs."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GPU_QUERY = ("memory.used", "memory.total", "utilization.gpu", "temperature.gpu")
GPU_LIMIT_S = 5.0  # a driver in trouble answers late or never
MIB = 2**20


@dataclass(frozen=True)
class Gpu:
    """One GPU; None where the driver does not tell. Bytes, share from 0 to 1, degrees Celsius."""

    memory_used: float | None
    memory_total: float | None
    busy: float | None
    temperature: float | None


@dataclass(frozen=True)
class Load:
    """Shares from 0 to 1, bytes. The disk is the one that holds the runs; 0 bytes: not known."""

    cpu: float
    cores: int
    memory_used: int
    memory_total: int
    disk_free: int = 0
    disk_total: int = 0
    gpus: tuple[Gpu, ...] = ()


def measure(runs: Path) -> Load:
    """The load now; of the processor, since this was called last. Takes up to a second where there are GPUs."""
    import psutil

    memory = psutil.virtual_memory()
    free, total = _disk(runs)
    cores = psutil.cpu_count() or 1
    return Load(
        psutil.cpu_percent() / 100, cores, memory.total - memory.available, memory.total, free, total, measure_gpus()
    )


def measure_gpus(which: str = "") -> tuple[Gpu, ...]:
    """Every GPU that nvidia-smi knows, in its order, or one of them; none where it is not there."""
    chosen = [f"--id={which}"] if which else []
    return parse_gpus(_nvidia_smi(f"--query-gpu={','.join(GPU_QUERY)}", *chosen))


def gpu_of(device: str) -> str:
    """What nvidia-smi calls the GPU that torch calls `device`, as cuda:1; "" for a device that is no GPU."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return ""
    visible = list(filter(None, os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")))
    number = int(index) if index.isdigit() else 0
    return visible[number] if number < len(visible) else str(number)


def gpu_memory_of_processes() -> dict[int, float]:
    """Bytes of GPU memory by process; of no process where the driver does not tell, as within a container."""
    memory: dict[int, float] = {}
    for line in _nvidia_smi("--query-compute-apps=pid,used_memory").splitlines():
        pid, _, used = line.partition(",")
        if pid.strip().isdigit() and (value := _number(used)) is not None:
            memory[int(pid)] = memory.get(int(pid), 0.0) + value * MIB
    return memory


def _nvidia_smi(*query: str) -> str:
    """What it prints; nothing where it is missing, fails, or takes too long."""
    command = ["nvidia-smi", *query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=GPU_LIMIT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """The lines that nvidia-smi prints: MiB, MiB, percent, degrees; [N/A] where it cannot tell."""
    lines = [[_number(word) for word in line.split(",")] for line in text.splitlines()]
    return tuple(
        Gpu(used and used * MIB, total and total * MIB, None if busy is None else busy / 100, temperature)
        for used, total, busy, temperature in (words for words in lines if len(words) == len(GPU_QUERY))
    )


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _disk(runs: Path) -> tuple[int, int]:
    """Free and total bytes where the runs lie, or will lie."""
    for folder in (runs, *runs.parents):
        try:
            usage = shutil.disk_usage(folder)
        except OSError:
            continue
        return usage.free, usage.total
    return 0, 0


@dataclass(frozen=True)
class ProcessLoad:
    """What a process takes. `cpu`: 1 is one core; bytes, and bytes per second, None where the system does not tell."""

    cpu: float
    memory: int
    read_per_s: float | None
    written_per_s: float | None


class ProcessMeter:
    """Looks at one process now and then; rates are those since the look before."""

    def __init__(self, pid: int | None = None) -> None:
        """`pid`: None is this process. Raises psutil.Error where there is no such process."""
        import psutil

        self._process = psutil.Process(pid)
        self._process.cpu_percent()  # the first one says nothing
        self._before = time.monotonic(), self._io()

    def look(self) -> ProcessLoad:
        """Raises psutil.Error where the process is gone."""
        (began, old), (now, new) = self._before, (time.monotonic(), self._io())
        self._before = now, new
        rates: list[float | None] = [None, None]
        if old is not None and new is not None and now > began:
            rates = [(after - before) / (now - began) for before, after in zip(old, new, strict=True)]
        return ProcessLoad(self._process.cpu_percent() / 100, self._process.memory_info().rss, *rates)

    def _io(self) -> tuple[int, int] | None:
        """Bytes read from disks and written there so far."""
        import psutil

        try:
            counters: Any = self._process.io_counters()  # not on every system, nor of everybody's processes
        except (AttributeError, NotImplementedError, psutil.Error):
            return None
        return counters.read_bytes, counters.write_bytes
