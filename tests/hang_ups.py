"""Does the console end when its terminal goes? `python tests/hang_ups.py 100` tries so many times.

Each time at another of the MOMENTS, for each of the WAYS in which a process hears of it, beside `--busy` processes. One
that is still there after LIMIT_S counts as a failure and is killed.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from tui.terminal import Terminal

LIMIT_S = 2.0
START_S = 1.5  # until the first runs are listed
QUIT_S = 0.3
WAYS = ("signal", "ignored", "untold")


def starting(terminal: Terminal, share: float) -> None:
    """Before its first picture, or with that one unread."""
    time.sleep(share * START_S)


def idle(terminal: Terminal, share: float) -> None:
    terminal.shows("No runs yet")


def drawing(terminal: Terminal, share: float) -> None:
    """In the middle of one picture after the other."""
    terminal.shows("No runs yet")
    for turn in range(2 + int(8 * share)):
        already = len(terminal.sent)
        terminal.resize(190 + 10 * (turn % 2), 60)
        terminal.until(lambda already=already: len(terminal.sent) > already)


def unread(terminal: Terminal, share: float) -> None:
    """When the terminal takes no more and the pictures queue up, until the console itself waits."""
    terminal.shows("No runs yet")
    for turn in range(5 + int(60 * share)):
        terminal.resize(190 + 10 * (turn % 2), 60)
        time.sleep(0.02)


def quitting(terminal: Terminal, share: float) -> None:
    terminal.shows("No runs yet")
    terminal.press("q")
    time.sleep(share * QUIT_S)


def quitting_unread(terminal: Terminal, share: float) -> None:
    """When it waits for its last words to be taken."""
    unread(terminal, 0.1)
    while waiting(terminal) < 3000:
        time.sleep(0.01)
    terminal.press("\x11")  # ctrl+q
    time.sleep(share * QUIT_S)


def stopped(terminal: Terminal, share: float) -> None:
    """By its shell. One that its terminal does not control is woken by nobody, and cannot end."""
    terminal.shows("No runs yet")
    os.kill(terminal.pid, signal.SIGSTOP)
    process = psutil.Process(terminal.pid)
    terminal.until(lambda: process.status() == psutil.STATUS_STOPPED)


MOMENTS: tuple[Callable[[Terminal, float], None], ...] = (
    starting, idle, drawing, unread, quitting, quitting_unread, stopped,
)  # fmt: skip
CASES = [(way, moment) for way in WAYS for moment in MOMENTS if (way, moment) != ("untold", stopped)]


def waiting(terminal: Terminal) -> int:
    """Bytes that the console has sent and nobody has read."""
    return int(struct.unpack("i", fcntl.ioctl(terminal.main_end, termios.FIONREAD, b"\0" * 4))[0])


def seconds_to_end(folder: Path, way: str, moment: Callable[[Terminal, float], None], share: float) -> float:
    """Seconds from the hang-up to the end; infinity where it had to be killed. `share`, 0 to 1: how late it comes."""
    with Terminal(folder / "runs", folder, hang_up=way) as terminal:
        moment(terminal, share)
        terminal.hang_up()
        gone = time.monotonic()
        while not terminal.has_ended():
            if time.monotonic() > gone + LIMIT_S:
                return float("inf")
            time.sleep(0.005)
        return time.monotonic() - gone


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--busy", type=int, default=2, help="processes that compute meanwhile")
    parser.add_argument("--way", choices=WAYS, action="append")
    given = parser.parse_args()
    cases = [case for case in CASES if case[0] in (given.way or WAYS)]
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(given.busy)]
    took: dict[str, list[float]] = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(given.count):
                way, moment = cases[number % len(cases)]
                share = number // len(cases) / max(1, (given.count - 1) // len(cases))
                took.setdefault(f"{way:8}{moment.__name__}", []).append(
                    seconds_to_end(Path(folder), way, moment, share)
                )
    finally:
        for process in busy:
            process.kill()
    for case, seconds in took.items():
        print(f"{case:26}{len(seconds):4} times, longest {max(seconds):.3f} s")
    failures = sum(second > LIMIT_S for seconds in took.values() for second in seconds)
    print(f"{failures} of {given.count} did not end within {LIMIT_S:g} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
