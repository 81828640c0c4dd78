"""What a Slurm job of a study runs: the worker of one run, and what is to be done when Slurm takes its place away.

Slurm sends SIGTERM when a job is preempted or cancelled, and WARNING when its time is nearly up. Either is passed on to
the worker, which writes a checkpoint and ends; then the job asks to be queued again, with the same command, unless
Slurm has already decided what becomes of it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from engine.base.errors import LregError
from engine.base.files import open_to_append
from engine.base.status import INTERRUPTED
from engine.jobs import spawn
from engine.runs.reader import RunReader
from engine.runs.writer import Run

WARNING = signal.SIGUSR2
ASK_LIMIT_S = 60.0
TOO_SHORT = "its Slurm job's time was up before it got any further: --slurm-time is too short for it"


def compute(path: str, device: str, data_dir: str | None, threads: int) -> int:
    """Do a run or a transfer job as far as this job's time goes. Returns its worker's exit code; or exits with it."""
    reader = RunReader(path)
    task = _Task(reader, spawn.worker_command(reader, device=device, data_dir=Path(data_dir) if data_dir else None))
    before = _reached(reader)
    code = task.wait(threads)
    if code not in (0, INTERRUPTED):
        sys.exit(code if code > 0 else 128 - code)  # so that Slurm says that the job has failed
    if code == 0 or task.asked is None:  # it is finished, or a person has stopped it
        return code
    if task.asked == WARNING and _reached(reader) == before:
        _give_up(reader)  # it would be the same again, for ever
    elif _job_state() == "RUNNING":  # else it is being cancelled, or is queued again already
        _queue_again()
    return code


class _Task:
    """The worker's process. `asked`: the signal that it was last asked to stop with."""

    def __init__(self, reader: RunReader, command: list[str]) -> None:
        self.log_path = reader.log_path
        self.command = command
        self.asked: int | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def wait(self, threads: int) -> int:
        """Start it, and wait until it ends. It stays in this job's session, so that nothing of it outlives the job."""
        for number in (signal.SIGTERM, WARNING):
            signal.signal(number, self._stop)
        with open_to_append(self.log_path) as log:
            self._child = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=spawn.environment(threads)
            )
        if self.asked is not None:  # before there was a process to pass it on to
            self._child.terminate()
        return self._child.wait()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        if self._child is not None:
            self._child.terminate()


def _reached(reader: RunReader) -> tuple[int, list[tuple[str, int]]]:
    """How far a run is; a transfer job notes the parts of an evaluation, too."""
    parts = sorted((path.name, path.stat().st_mtime_ns) for path in (reader.path / "partial").glob("*.json"))
    return reader.recorded_status().step, parts


def _job() -> str:
    """This very job: the id of an array's last job alone would mean the whole array."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID", "")


def _job_state() -> str:
    """What Slurm says of this job."""
    return _said(["squeue", "--noheader", f"--jobs={_job()}", "--format=%T"])


def _queue_again() -> None:
    print(f"asked to be queued again: {_said(['scontrol', 'requeue', _job()]) or 'done'}")


def _said(command: list[str]) -> str:
    """What a command of Slurm says, be it an error: a job that cannot be queued again has at least its checkpoint."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=ASK_LIMIT_S)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{command[0]}: {error}"
    return (done.stdout + done.stderr).strip()


def _give_up(reader: RunReader) -> None:
    try:
        with Run(reader.path) as run:
            run.log(TOO_SHORT)
            run.set_status(state="failed", message=TOO_SHORT)
    except LregError as error:  # somebody else has it now
        print(error, file=sys.stderr)
