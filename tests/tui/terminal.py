"""The console as people have it: a process of its own on a pseudo terminal. Import it as `tui.terminal`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")
LIMIT_S = 120.0
OF_ANOTHER = ("NO_COLOR", "TEXTUAL_COLOR_SYSTEM", "COLUMNS", "LINES")  # xdist sets a size
ROOT = Path(__file__).parents[2]
TOKEN = re.compile(
    r"\x1b\[(?P<numbers>[0-?]*)[ -/]*(?P<end>[@-~])|\x1b[\]P^_].*?(?:\x07|\x1b\\)|\x1b.|(?P<text>[^\x1b]+)", re.DOTALL
)
COLOUR = re.compile(rb"\x1b\[(?:[0-9;]*;)?(?:[34][0-9]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")


class Terminal:
    """Runs `lreg-tui` and keeps what it shows. Use it in a `with` block: at its end the process is gone."""

    def __init__(
        self,
        runs: Path,
        folder: Path,
        *options: str,
        columns: int = 80,
        lines: int = 24,
        environment: Mapping[str, str] | None = None,
        hang_up: str = "signal",
        program: Sequence[str] = ("-m", "lreg_tui.app"),
    ) -> None:
        """`folder` is where it runs, and where it keeps what it remembers. `program`: Python's, where it is another.

        `hang_up`, what one does to it: "signal", as in most terminals; "ignored", as under nohup; "untold", where the
        terminal does not control the process and the signal is for others.
        """
        self.sent = b""  # everything that came from the process
        self._given = ""  # of which this begins in the middle of a character or of a code
        self._columns, self._lines = columns, lines
        self._screen = [[" "] * columns for _ in range(lines)]
        self._place = (0, 0)  # line and column of the cursor
        command = [sys.executable, *program, "--runs-dir", str(runs), *options]
        plain = {name: value for name, value in os.environ.items() if name not in OF_ANOTHER}
        variables = {**plain, "TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONPATH": str(ROOT)}
        variables |= {"XDG_STATE_HOME": str(folder), **(environment or {})}
        self.pid, self.main_end = pty.fork()
        if not self.pid:
            with contextlib.suppress(OSError):
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
                os.chdir(folder)
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
                if hang_up == "untold":
                    fcntl.ioctl(0, termios.TIOCNOTTY)  # sends the signal once
                if hang_up != "ignored":  # also where the tests run under nohup
                    signal.signal(signal.SIGHUP, signal.SIG_DFL)
                os.execve(sys.executable, command, variables)
            os._exit(127)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self._reap(0)
        self.hang_up()

    @property
    def text(self) -> str:
        """What is on the screen."""
        return "\n".join("".join(line).rstrip() for line in self._screen)

    def press(self, *keys: str) -> None:
        for key in keys:
            os.write(self.main_end, key.encode())

    def resize(self, columns: int, lines: int) -> None:
        self._columns, self._lines = columns, lines
        self._screen = [[" "] * columns for _ in range(lines)]
        fcntl.ioctl(self.main_end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def until(self, condition: Callable[[], Value], limit_s: float = LIMIT_S) -> Value:
        """Read what the process sends until a condition holds; return what it gave."""
        deadline = time.monotonic() + limit_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"waited too long; on the screen:\n{self.text}"
            self._read()
        return found

    def shows(self, *texts: str) -> None:
        self.until(lambda: all(text in self.text for text in texts))

    def has_ended(self) -> bool:
        return not self.pid or self._reap(os.WNOHANG)

    def hang_up(self) -> None:
        """Close the terminal, as a connection that is lost does."""
        if self.main_end >= 0:
            os.close(self.main_end)
            self.main_end = -1

    def _reap(self, how: int) -> bool:
        if os.waitpid(self.pid, how)[0]:
            self.pid = 0
        return not self.pid

    def _read(self) -> None:
        if self.main_end < 0 or not select.select([self.main_end], [], [], 0.02)[0]:
            return
        try:
            data = os.read(self.main_end, 2**16)
        except OSError:  # the process has closed its end
            return
        self.sent += data
        self._take(data)

    def _take(self, data: bytes) -> None:
        """Draw what is whole, and keep the rest for the next time."""
        text = self._given + data.decode("utf-8", "surrogateescape")
        done = 0
        for token in TOKEN.finditer(text):
            if token["text"] is not None and token.end() == len(text) and "\udc80" <= text[-1] <= "\udcff":
                break
            self._draw(token)
            done = token.end()
        self._given = text[done:].encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")

    def _draw(self, token: re.Match[str]) -> None:
        line, column = self._place
        if token["end"] == "H":
            numbers = [int(number or 1) for number in (token["numbers"] or "1;1").split(";")]
            self._place = numbers[0] - 1, numbers[-1] - 1
        elif token["end"] == "J":
            self._screen = [[" "] * self._columns for _ in range(self._lines)]
        for character in token["text"] or "":
            if character == "\n":
                line += 1
            elif character == "\r":
                column = 0
            elif unicodedata.category(character) != "Cc":
                if line < self._lines and column < self._columns:
                    self._screen[line][column] = character
                column += 1
            self._place = line, column
