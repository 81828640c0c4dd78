"""Shared by all tests."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
import zygote as forking

from engine.base.device import wait_politely

MOST_AT_ONCE = 8  # processes of pytest; each takes half a gigabyte, and of the tests some are long

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in the background: what it starts would be deaf to Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["TZ"] = "UTC"  # by whose clock times are shown
time.tzset()
wait_politely()  # before any test imports torch: tests often share their cores
os.fsync = forking.not_waiting
if "PYTEST_XDIST_WORKER" in os.environ:  # each process of pytest, and what it starts, has one core
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many processes as there are cores; tests that are asked for by name run in this one."""
    if any("::" in argument for argument in config.args):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_AT_ONCE)


@pytest.fixture(scope="session")
def zygote() -> Iterator[str]:
    with forking.zygote() as address:
        yield address


@pytest.fixture
def forked(zygote: str) -> Iterator[None]:
    """Workers, and whatever else the engine starts, are forked from a process that has imported torch."""
    with forking.in_use(zygote):
        yield
