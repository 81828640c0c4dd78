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
from engine.study.schedule.slurm_queue import NoAnswer, ask

WARNING = signal.SIGUSR2
TOO_SHORT = "its Slurm job's time was up before it got any further: --slurm-time is too short for it"


def compute(path: str, device: str, data_dir: str | None, threads: int) -> int:
    """Do a run or a transfer job as far as this job's time goes. Returns its worker's exit code; or exits with it."""
    reader = RunReader(path)
    command = spawn.worker_command(reader, device=device, data_dir=Path(data_dir) if data_dir else None)
    before = _reached(reader)
    code, asked = _work(reader, command, threads)
    if code not in (0, INTERRUPTED):
        sys.exit(code if code > 0 else 128 - code)  # so that Slurm says that the job has failed
    if code == 0 or asked is None:  # it is finished, or a person has stopped it
        return code
    if asked == WARNING and _reached(reader) == before:
        _give_up(reader)  # it would be the same again, for ever
        return code
    # the id of an array's last job alone would mean the whole array
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID", "")
    try:
        if ask("squeue", "--noheader", f"--jobs={job}", "--format=%T") == ["RUNNING"]:
            ask("scontrol", "requeue", job)
    except NoAnswer as error:  # it has at least its checkpoint
        print(error, file=sys.stderr)
    return code


def _work(reader: RunReader, command: list[str], threads: int) -> tuple[int, int | None]:
    """The worker's exit code, and the signal that it was last asked to stop with.

    It stays in this job's session, so that nothing of it outlives the job.
    """
    asked: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if child is not None:
            child.terminate()

    for number in (signal.SIGTERM, WARNING):
        signal.signal(number, stop)
    with open_to_append(reader.log_path) as log:
        environment = spawn.environment(threads)
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    if asked:  # before there was a process to pass it on to
        child.terminate()
    return child.wait(), asked[-1] if asked else None


def _reached(reader: RunReader) -> tuple[int, list[tuple[str, int]]]:
    """How far a run is; a transfer job notes the parts of an evaluation, too."""
    parts = sorted((path.name, path.stat().st_mtime_ns) for path in (reader.path / "partial").glob("*.json"))
    return reader.recorded_status().step, parts


def _give_up(reader: RunReader) -> None:
    try:
        with Run(reader.path) as run:
            run.log(TOO_SHORT)
            run.set_status(state="failed", message=TOO_SHORT)
    except LregError as error:  # somebody else has it now
        print(error, file=sys.stderr)
