"""How busy the machine is: processor, memory, disk, GPUs."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from lreg_tui.system import launch

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


def measure_gpus() -> tuple[Gpu, ...]:
    """Every GPU that nvidia-smi knows, in its order; none where it is not there."""
    if shutil.which("nvidia-smi") is None:
        return ()
    command = ["nvidia-smi", f"--query-gpu={','.join(GPU_QUERY)}", "--format=csv,noheader,nounits"]
    return parse_gpus(launch.output_of(command, GPU_LIMIT_S))


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """The lines that nvidia-smi prints: MiB, MiB, percent, degrees; [N/A] where it cannot tell."""
    found = [[_number(word) for word in line.split(",")] for line in text.splitlines()]
    return tuple(
        Gpu(used and used * MIB, total and total * MIB, None if busy is None else busy / 100, temperature)
        for used, total, busy, temperature in (words for words in found if len(words) == len(GPU_QUERY))
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
