"""What a run's process said: logs."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from engine.base.files import open_to_read
from engine.base.status import LIVE
from lreg_tui.cli.options import RunsDir, flag, number
from lreg_tui.cli.references import RunOrJobReference, find_run
from lreg_tui.text import present
from lreg_tui.text.log_file import with_local_time

POLL_S = 0.3
MOST_LINES = 1_000_000
LARGEST_READ = 2**26  # bytes of a log's end that are looked at at once


def logs(
    reference: RunOrJobReference,
    follow: Annotated[bool, flag("-f --follow", "Wait for more until the run ends.")] = False,
    lines: Annotated[int, number("-n --lines", "N", "How many of the last lines.", minimum=0, maximum=MOST_LINES)] = 50,
    runs_dir: RunsDir = None,
) -> None:
    """What a run's process said, with times by this machine's clock."""
    reader = find_run(reference, runs_dir)
    gained, offset = _gained(reader.log_path, 0)
    _print(gained[max(len(gained) - lines, 0) :])
    while follow:
        over = reader.state not in LIVE  # before the last look, so that it sees everything
        gained, offset = _gained(reader.log_path, offset)
        _print(gained)
        if over:
            reader.check_there()
            return
        time.sleep(POLL_S)


def _gained(path: Path, offset: int) -> tuple[Sequence[bytes], int]:
    """The whole lines of a log from an offset on, as far as they are looked at, and where they end."""
    try:
        with open_to_read(path, path.parent) as log:
            offset = max(offset, log.seek(0, os.SEEK_END) - LARGEST_READ)
            log.seek(offset)
            *whole, torn = log.read().split(b"\n")
            return whole, log.tell() - len(torn)
    except OSError:
        return [], offset


def _print(lines: Sequence[bytes]) -> None:
    if lines:
        text = present.clean_block(b"\n".join(lines).decode(errors="replace"))
        print("\n".join(map(with_local_time, text.split("\n"))), flush=True)
