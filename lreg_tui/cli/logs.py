"""What a run's process said: logs."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from engine.base.files import open_to_read
from engine.base.status import LIVE
from lreg_tui.cli.options import RunOrJobReference, RunsDir, find_run, whole_number
from lreg_tui.text import present
from lreg_tui.text.log_file import with_local_time

POLL_S = 0.3
MOST_LINES = 1_000_000
LARGEST_TAIL = 2**26  # bytes of a log that are searched for its last lines


def logs(
    reference: RunOrJobReference,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Wait for more until the run ends.")] = False,
    lines: Annotated[str, typer.Option("-n", "--lines", metavar="N", help="How many of the last lines.")] = "50",
    runs_dir: RunsDir = None,
) -> None:
    """What a run's process said, with times by this machine's clock."""
    count = whole_number("--lines", lines, 0, MOST_LINES)
    reader = find_run(reference, runs_dir)
    offset = _print_tail(reader.log_path, count)
    while follow:
        over = reader.state not in LIVE  # before the last look, so that it sees everything
        offset = _print_from(reader.log_path, offset)
        if over:
            reader.check_there()
            return
        time.sleep(POLL_S)


def _print_tail(path: Path, lines: int) -> int:
    """Print the last whole lines of a log; return where they end."""
    try:
        with open_to_read(path, path.parent) as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LARGEST_TAIL))
            tail = deque(log, maxlen=lines + 1)
            end = log.tell()
    except OSError:
        return 0
    torn = tail[-1] if tail and not tail[-1].endswith(b"\n") else b""
    whole = list(tail)[:-1] if torn else list(tail)
    _print_log(b"".join(whole[-lines:] if lines else []))
    return end - len(torn)


def _print_from(path: Path, offset: int) -> int:
    try:
        with open_to_read(path, path.parent) as log:
            log.seek(offset)
            data = log.read()
    except OSError:
        return offset
    data = data[: data.rfind(b"\n") + 1]
    _print_log(data)
    return offset + len(data)


def _print_log(data: bytes) -> None:
    if data:
        lines = present.clean_block(data.decode(errors="replace")).split("\n")
        print("\n".join(map(with_local_time, lines)), flush=True)
