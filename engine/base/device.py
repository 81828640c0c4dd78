"""The device that tensors live on. torch is imported only when one is asked for."""

from __future__ import annotations

import ctypes
import os
import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.base.errors import LregError

if TYPE_CHECKING:
    import torch


NAMES = re.compile(r"auto|cpu|mps|cuda(:\d{1,4})?")  # of devices, whether or not they are there
ALLOWED = "auto, cpu, cuda, cuda:N, mps"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BLOCKS = (2**30, 2**25)  # bytes; the second is the most that older versions take


def prepare_process() -> None:
    """What computing on the CPU gains from in a process of lreg's own. To be called before torch is imported."""
    wait_politely()
    reuse_memory()


def reuse_memory() -> None:
    """Have glibc keep large blocks that are freed for the next ones, as it keeps small ones.

    Else each tensor of more than 32 MiB is new memory from the system, filled with zeros page by page: up to half of
    the time of convolutions and of optimizees side by side. Other allocators do without; who has set up glibc's is
    heard.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None and any(mallopt(M_MMAP_THRESHOLD, size) for size in KEPT_BLOCKS):
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def wait_politely() -> None:
    """Let torch's idle CPU threads wait for work a moment, then sleep.

    Without the moment every small operation pays for waking them, a quarter of meta-training's time on two idle cores.
    Were they to spin on, small operations would be ten to fifty times slower where other processes want the cores too.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # GNU's runtime, torch's on Linux: some ten microseconds


def pick_device(text: str, option: str = "--device") -> torch.device:
    """The device meant by auto, cpu, cuda, cuda:N or mps. Raises LregError, naming the option, when it is not there."""
    if not NAMES.fullmatch(text):
        raise LregError(f"{option}: found {text!r}; allowed: {ALLOWED}")
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    index = int(text.partition(":")[2] or 0)
    if text == "auto":
        return torch.device("cuda" if gpus else "cpu")
    if (text.startswith("cuda") and index >= gpus) or (text == "mps" and not has_mps):
        available = ["cpu", *(f"cuda:{number}" for number in range(gpus)), *(["mps"] if has_mps else [])]
        raise LregError(f"{option}: {text} is not on this machine; there is: {', '.join(available)}")
    return torch.device(text)


def wait_for(device: torch.device) -> None:
    """Until the device has done everything."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes, until the device is done with it."""
    wait_for(device)
    begin = time.perf_counter()
    call()
    wait_for(device)
    return time.perf_counter() - begin
