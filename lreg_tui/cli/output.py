"""Where output goes: stdout for what was asked for, stderr for talk; `--json` prints JSON lines and nothing else."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from lreg_tui.text import present

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from engine.runs.store import RunReader

PIPE_WIDTH = 200  # without a terminal nothing is cut or wrapped to a screen
GAP = 2  # between two columns
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

    found = Console(stderr=stderr, highlight=False)
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = PIPE_WIDTH
    return found


def can_show(character: str, encoding: str) -> bool:
    try:
        character.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def grid(columns: int = 2) -> Table:
    """Columns without lines. Names come first and are not broken; what follows is wrapped, never cut."""
    from rich.table import Table

    found = Table.grid(padding=(0, GAP))
    for index in range(columns):
        found.add_column(overflow="fold", no_wrap=index < columns - 1)
    return found


def emit(value: dict[str, Any]) -> None:
    """One line of JSON on stdout, at once."""
    from engine.base.files import strict

    print(json.dumps(strict(value), allow_nan=False), flush=True)


def say(text: str) -> None:
    """A line for people on stderr."""
    print(present.clean(text), file=sys.stderr, flush=True)


def tell_started(kind: str, reader: RunReader, as_json: bool) -> None:
    """What was started in the background: a run, a transfer, a study."""
    if as_json:
        emit({kind: reader.id, "path": str(reader.path)})
    else:
        print(present.clean(reader.id))
        say(f"started; watch it with: lreg watch {reader.id}")


def say_damaged(files: int) -> None:
    what = "1 damaged transfer file is" if files == 1 else f"{files} damaged transfer files are"
    say(f"{what} left out")


def complain(error: Exception) -> None:
    """An error for the user: each of its lines on a line of its own."""
    for line in str(error).splitlines() or [type(error).__name__]:
        print(f"error: {present.clean(line, 2000)}", file=sys.stderr, flush=True)
