"""Steer runs: stop, pause, continue."""

from __future__ import annotations

import signal
from typing import Annotated

from engine.base.status import LIVE
from engine.jobs import spawn
from engine.runs.store import RunReader
from lreg_tui.cli import output
from lreg_tui.cli.options import AsJson, RunsDir, flag
from lreg_tui.cli.references import RunOrJobReference, find_run
from lreg_tui.text import present

ANSWER_LIMIT_S = 60.0  # how long pause and continue wait for the unit of work at hand


def stop(
    reference: RunOrJobReference,
    wait: Annotated[bool, flag("--wait/--no-wait", "Wait until the run has stopped.")] = True,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Finish the truncation, write a checkpoint, and end the run's process.

    A transfer evaluation keeps what it has measured; a study stops all its runs. `lreg resume` goes on with each.
    """
    reader = find_run(reference, runs_dir)
    spawn.request(reader, signal.SIGTERM, "stop")
    if wait:
        spawn.wait_for(reader, ())
    _report(reader, as_json, "" if wait else "stopping")


def pause(reference: RunOrJobReference, runs_dir: RunsDir = None, as_json: AsJson = False) -> None:
    """Let a run rest after this truncation; its process stays, with its memory."""
    _ask(find_run(reference, runs_dir), signal.SIGUSR1, "pause", "paused", as_json)


def continue_(reference: RunOrJobReference, runs_dir: RunsDir = None, as_json: AsJson = False) -> None:
    """End a pause."""
    _ask(find_run(reference, runs_dir), signal.SIGUSR2, "continue", "running", as_json)


def _ask(reader: RunReader, number: signal.Signals, purpose: str, state: str, as_json: bool) -> None:
    spawn.request(reader, number, purpose)
    status = spawn.wait_for(reader, (state,), ANSWER_LIMIT_S)
    late = f"asked to {purpose}; it will soon" if status.state not in (state, "finished") else ""
    _report(reader, as_json, late if status.state in LIVE else "")


def _report(reader: RunReader, as_json: bool, note: str) -> None:
    reader.check_there()
    status = reader.status()
    if as_json:
        output.emit({"run": reader.id, "state": status.state, "step": status.step, "total": status.total})
    else:
        at = f" at {reader.kind.unit} {status.step}/{status.total}" if status.total else ""
        print(present.clean(f"{reader.id}: {note or status.state}{at}"))
