"""Memory that a call takes at its peak."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from engine.kernels.arrays import forget_arrays

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(call: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that a call takes beyond what was taken before it; None where this cannot be told (macOS)."""
    forget_arrays()  # what it keeps for the next truncation would not be counted
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if not _resets():
        call()
        return None
    before = _resident("VmRSS")
    call()
    return max(0, _resident("VmHWM") - before)


def _resets() -> bool:
    """Let the process's peak begin anew, and give freed memory back, so that it is counted when it is taken again."""
    if sys.platform != "linux":
        return False
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in every C library
    if trim is not None:
        trim(0)
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return True


def _resident(name: str) -> int:
    line = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return int(line[1]) * 1024 if line else 0


def process_peak_bytes() -> int:
    """The most that this process had in memory; on Linux since `peak_bytes` was called last."""
    if sys.platform == "linux":
        return _resident("VmHWM")  # ru_maxrss there begins with the parent's
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # bytes there, KiB elsewhere
