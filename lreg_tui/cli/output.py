"""Where output goes: stdout for what was asked for, stderr for talk; `--json` prints JSON lines and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from lreg_tui import present

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 200  # without a terminal nothing is cut or wrapped to a screen


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False)
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = PIPE_WIDTH
    return found


def emit(value: dict[str, Any]) -> None:
    """One line of JSON on stdout, at once."""
    from engine.files import strict

    print(json.dumps(strict(value), allow_nan=False), flush=True)


def say(text: str) -> None:
    """A line for people on stderr."""
    print(present.clean(text), file=sys.stderr, flush=True)


def complain(error: Exception) -> None:
    """An error for the user: each of its lines on a line of its own."""
    with contextlib.suppress(OSError):
        for line in str(error).splitlines() or [type(error).__name__]:
            print(f"error: {present.clean(line, 2000)}", file=sys.stderr, flush=True)


def close_stdout() -> None:
    """Nobody reads stdout any more: let what is still printed vanish, without a complaint at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
