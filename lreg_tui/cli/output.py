"""Where output goes: stdout for what was asked for, stderr for talk; `--json` prints JSON lines and nothing else."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lreg_tui.text import present, sheets

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table

    from engine.runs.store import RunReader

PIPE_WIDTH = 200  # without a terminal nothing is cut or wrapped to a screen
GAP = 2  # between two columns
LINE_EVERY_S, SAME_LINE_EVERY_S = 10.0, 60.0  # of what changes, without a terminal
PLAIN = {"±": "+-", "–": "-", "…": "...", "─": "-", "━": "-", "×": "x"}  # where an encoding has no such character


def _in_plain_characters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(PLAIN.get(character, "?") for character in lost), error.end


codecs.register_error("lreg.plain", _in_plain_characters)


def never_fail_to_encode() -> None:
    """Let stdout and stderr replace what their encoding lacks: no figure is worth a run's exit code."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # None where there is no stream, or an odd one
        if reconfigure is not None:
            with contextlib.suppress(OSError, ValueError, LookupError):
                reconfigure(errors="lreg.plain")


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console


def bar(done: float, total: float, width: int) -> RenderableType:
    from rich.progress_bar import ProgressBar

    return ProgressBar(total=max(total, 1), completed=done, width=min(32, width))


def grid(columns: int = 2) -> Table:
    """Columns without lines. Names come first and are not broken; what follows is wrapped, never cut."""
    from rich.table import Table

    table = Table.grid(padding=(0, GAP))
    for index in range(columns):
        table.add_column(overflow="fold", no_wrap=index < columns - 1)
    return table


def lined(texts: Sequence[str], numbers: Sequence[str] = ()) -> Table:
    """An empty table with a line below its headings: columns of text, which are wrapped, then columns of numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for heading in texts:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def print_sheet(sheet: sheets.Sheet, console: Console) -> None:
    """Print a sheet, complete at the console's width and in its encoding."""

    def plain(text: str) -> str:
        return text.encode(console.encoding, "lreg.plain").decode(console.encoding)

    for part in sheets.tables(sheets.translated(sheet, plain), console):
        console.print(part)


class Display:
    """Something that changes: redrawn in place on a terminal; elsewhere a line is printed now and then."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._printed = (0.0, "", "")  # when a line was printed, the state then, the line

    def show(self, state: str, frame: Callable[[], RenderableType], line: Callable[[], str]) -> None:
        """A line is printed at once where the state is another one."""
        if self.console.is_terminal:
            self._draw(frame())
            return
        when, state_before, before = self._printed
        elapsed = time.monotonic() - when
        if state != state_before or elapsed >= LINE_EVERY_S:
            text = present.clean(line(), 4000)
            if text != before or elapsed >= SAME_LINE_EVERY_S:
                self.console.print(text, markup=False, soft_wrap=True)
                self._printed = time.monotonic(), state, text

    def _draw(self, frame: RenderableType) -> None:
        from rich.live import Live

        if self._live is None:
            self._live = Live(frame, console=self.console, auto_refresh=False)
            self._live.start()
        self._live.update(frame, refresh=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()


def emit(value: dict[str, Any]) -> None:
    """One line of JSON on stdout, at once."""
    from engine.base.files import strict

    print(json.dumps(strict(value), allow_nan=False), flush=True)


def say(text: str) -> None:
    """A line for people on stderr."""
    print(present.clean(text), file=sys.stderr, flush=True)


def print_lines(console: Console, *lines: str) -> None:
    """Lines that a terminal wraps, so that they can be copied; empty ones are left out."""
    for line in filter(None, lines):
        console.print(present.text(line), soft_wrap=True)


def tell_started(kind: str, reader: RunReader, as_json: bool) -> None:
    if as_json:
        emit({kind: reader.id, "path": str(reader.path)})
    else:
        print(present.clean(reader.id))
        say(f"started; watch it with: lreg watch {reader.id}")


def say_damaged(files: int) -> None:
    subject = "1 damaged transfer file is" if files == 1 else f"{files} damaged transfer files are"
    say(f"{subject} left out")


def complain(error: Exception) -> None:
    """An error for the user: each of its lines on a line of its own."""
    for line in str(error).splitlines() or [type(error).__name__]:
        print(f"error: {present.clean(line, 2000)}", file=sys.stderr, flush=True)
