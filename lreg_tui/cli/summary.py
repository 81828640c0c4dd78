"""What a terminal is told of a run that is stopping, and at its end."""

from __future__ import annotations

import os
from dataclasses import replace

from engine.base.control import Control
from engine.base.status import LIVE
from engine.runs.results import run_rows
from engine.runs.store import RunReader
from lreg_tui.cli import output, results
from lreg_tui.cli.follow import end_event
from lreg_tui.text import present


def note_stopping(control: Control) -> str:
    return "stopping after this truncation; Ctrl-C again aborts at once" if control.stop else ""


def note_deaf(control: Control) -> None:
    """Say so where Ctrl-C does not reach this process."""
    if control.remark:
        output.say(control.remark)


def summarize(reader: RunReader, as_json: bool, *, reason_follows: bool = False, has_failed: bool = False) -> None:
    """The last words on a run: its result, its id, and what can be done next.

    With `reason_follows` a failure's reason is left to the error line that this process ends with. `has_failed`: it
    ended with an error, whatever the folder says, where that could perhaps not be written any more.
    """
    status = reader.status()
    if not reader.is_there or (has_failed and status.state in LIVE and status.pid == os.getpid()):
        status = replace(status, state="failed", message="")
    if as_json:
        if status.state == "finished":
            output.emit({"event": "result", "rows": run_rows(reader)})
        output.emit(end_event(status, reader))
        return
    if not reader.is_there:
        return
    console = output.console()
    if status.state == "finished" and (table := results.table(reader, console)) is not None:
        console.print(table)
    console.print(present.text(f"{status.state}: {reader.id}"), soft_wrap=True)
    silent = (*LIVE, "crashed", *(["failed"] if reason_follows else []))  # a crashed one's last words are out of date
    if status.message and status.state not in silent:
        console.print(present.text(status.message))
    console.print(present.text(str(reader.path), "dim"), soft_wrap=True)
    if status.state == "finished" and (seen := results.comparison_of(reader)):
        console.print(present.text(f"its results: {seen}"), soft_wrap=True)
    if status.state in ("stopped", "crashed") and not has_failed:
        console.print(present.text(f"go on with: lreg resume {reader.id}"), soft_wrap=True)
