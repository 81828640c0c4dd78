"""The terminal that the console runs on."""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    import subprocess

INPUT_AND_OUTPUT = (0, 1)
LOOK_MS = 500  # how soon a hang-up is noticed where it wakes nobody who waits
HELPERS: WeakSet[subprocess.Popen[bytes]] = WeakSet()  # processes that work for this one only, and end with it


def end_with_it() -> None:
    """From now on this process ends as soon as its terminal is gone, whatever else it is at, with exit code 129.

    The signal for that may be ignored (under nohup) or be for others (a terminal that does not control this process).
    Nobody but a thread of its own can be relied on: what draws waits for what writes, and that for the terminal.
    """
    threading.Thread(target=_wait_and_end, name="hang-up", daemon=True).start()


def _wait_and_end() -> None:
    watch = select.poll()
    for descriptor in INPUT_AND_OUTPUT:
        watch.register(descriptor, 0)  # a hang-up is told without being asked for
    while not (events := watch.poll(LOOK_MS)):
        pass
    if not any(event & select.POLLHUP for _, event in events):
        return  # a system on which poll cannot say
    try:
        for helper in list(HELPERS):
            helper.kill()
    finally:
        os._exit(128 + signal.SIGHUP)  # nothing is tidied up, as by the signal: all that could wait for the terminal
