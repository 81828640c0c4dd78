"""The real console on a terminal of its own, for `console_speed.py`."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ESCAPES = re.compile(rb"\x1b(\[[0-9;:?<=>]*[a-zA-Z~]|[()][A-Z0-9]|\][^\x07\x1b]*(\x07|\x1b\\)|.)")


class Terminal:
    """The console on a pty. All it sends is read at once and kept, with the time at which it came."""

    def __init__(self, runs: Path, width: int = 80, height: int = 24, *options: str) -> None:
        self.pieces: list[tuple[float, bytes]] = []
        self.came = threading.Condition()
        main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        settings = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "XDG_STATE_HOME": str(runs.parent / "state")}
        command = [sys.executable, "-m", "lreg_tui.app", "--runs-dir", str(runs), *options]
        self.began = time.perf_counter()
        usual = {**os.environ}
        usual.pop("PYTHONDONTWRITEBYTECODE", None)  # as users have it: compiled once
        self.child = subprocess.Popen(
            command, stdin=side, stdout=side, stderr=side, env={**usual, **settings}, start_new_session=True
        )
        os.close(side)
        self.main = main
        self.process = psutil.Process(self.child.pid)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.main, 2**16)
            except OSError:  # the console has closed its side
                return
            if not data:
                return
            with self.came:
                self.pieces.append((time.perf_counter(), data))
                self.came.notify_all()

    def wait(self, condition: Any, limit_s: float = 120.0) -> bool:
        with self.came:
            return bool(self.came.wait_for(condition, limit_s))

    def text(self, start: int = 0) -> str:
        return ESCAPES.sub(b"", b"".join(data for _, data in self.pieces[start:])).decode(errors="replace")

    def until(self, text: str, start: int = 0, limit_s: float = 120.0) -> float:
        """Seconds from the start of the console until a text was sent."""
        if not self.wait(lambda: text in self.text(start), limit_s):
            raise SystemExit(f"the console did not show {text!r}: {self.text(start)[-2000:]}")
        return self.pieces[-1][0] - self.began

    def press(self, keys: str) -> None:
        os.write(self.main, keys.encode())

    def answer(self, key: str) -> float:
        """Seconds from a key press to the first byte that was sent after it."""
        start, pressed = len(self.pieces), time.perf_counter()
        self.press(key)
        self.wait(lambda: len(self.pieces) > start, 5.0)
        return self.pieces[start][0] - pressed if len(self.pieces) > start else 5.0

    def sent(self, seconds: float) -> int:
        """Bytes that are sent in so many seconds."""
        start = len(self.pieces)
        time.sleep(seconds)
        return sum(len(data) for _, data in self.pieces[start:])

    @property
    def memory(self) -> float:
        """MB that the process holds."""
        return float(self.process.memory_info().rss) / 1e6

    @property
    def peak(self) -> float:
        found = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{self.child.pid}/status").read_text())
        return int(found[1]) * 1024 / 1e6 if found else 0.0

    @property
    def cpu(self) -> float:
        """Seconds of processor time used so far."""
        used = self.process.cpu_times()
        return float(used.user + used.system)

    @property
    def bytes_read(self) -> int:
        """From all files so far, and from the terminal."""
        return int(self.process.io_counters().read_chars)

    def reads_much(self) -> bool:
        """As when it reads a long run: other files are small."""
        before = self.bytes_read
        time.sleep(0.3)
        return self.bytes_read - before > 1e6

    def has_torch(self) -> int:
        return Path(f"/proc/{self.child.pid}/maps").read_text().count("torch")

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self.main)


@contextmanager
def console(runs: Path, *size_and_options: Any) -> Iterator[Terminal]:
    shutil.rmtree(runs.parent / "state", ignore_errors=True)
    terminal = Terminal(runs, *size_and_options)
    try:
        yield terminal
    finally:
        terminal.close()
