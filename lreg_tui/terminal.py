"""The terminal that the console runs on."""

from __future__ import annotations

import select
import sys


def has_hung_up() -> bool:
    """Whether the terminal is gone, its window closed or the connection to it lost."""
    if sys.__stdin__ is None or sys.__stdin__.closed:
        return True
    watch = select.poll()
    watch.register(sys.__stdin__, 0)  # a hang-up is told without being asked for
    return any(event & select.POLLHUP for _, event in watch.poll(0))
