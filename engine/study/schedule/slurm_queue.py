"""Slurm's queue: the jobs of one study, and which run each of them is for.

Before jobs are handed over, a file in the study's folder names their runs, and the jobs are called after that file. So
whoever is killed when, the next scheduler knows what is queued from the names of the jobs. Job ids are kept nowhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType

from engine.base.errors import LregError, printable
from engine.base.files import make_folder, open_to_append, read_json, write_atomic
from engine.base.status import INTERRUPTED
from engine.jobs import spawn
from engine.runs.reader import RunReader
from engine.runs.writer import Run

FOLDER = "slurm"  # in the study's
ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
    *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
)
TAKEN = ("PREEMPTED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL")  # ended, though neither the run nor a person wanted that
LISTED = ("--noheader", "--array", "--states=all", "--format=%F|%K|%T|%j")
ANSWER_LIMIT_S = 60.0
WARNING = signal.SIGUSR2
TOO_SHORT = "its Slurm job's time was up before it got any further: --slurm-time is too short for it"


class SlurmUnavailable(LregError):
    """Slurm does not answer, or refuses."""


@dataclass(frozen=True)
class SlurmJob:
    """A job of the queue, as Slurm names it: 12, or 12_3 in an array."""

    id: str
    state: str

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


class SlurmQueue:
    """The jobs of a study, handed over by any of its schedulers."""

    def __init__(self, folder: Path) -> None:
        self.study = folder
        self.folder = folder / FOLDER

    def note(self, runs: Sequence[Path]) -> str:
        """Keep which runs the jobs of an array that is about to be handed over are for. Returns the jobs' name."""
        name = secrets.token_hex(4)
        make_folder(self.folder)
        relative = [os.path.relpath(path, self.study) for path in runs]  # the folder may have another name elsewhere
        write_atomic(self.folder / f"{name}.json", json.dumps({"runs": relative}, indent=1) + "\n")
        return f"{self.study.name}.{name}"

    def jobs(self) -> dict[Path, SlurmJob]:
        """By run: the job that has not ended, else the last that Slurm knows. Raises SlurmUnavailable."""
        jobs: list[tuple[bool, int, Path, SlurmJob]] = []
        runs_of = lru_cache(self._runs_of)
        for line in ask("squeue", *LISTED, f"--user={os.getuid()}"):
            number, index, state, name = line.split("|", 3)
            runs, job = runs_of(name.strip()), SlurmJob(number, state)
            if index.isdigit():
                runs, job = runs[int(index) : int(index) + 1], SlurmJob(f"{number}_{index}", state)
            if len(runs) == 1:  # else no array; or what is left of one that was cancelled, which is no job
                jobs.append((not job.has_ended, int(number), runs[0], job))
        return {path: job for *_, path, job in sorted(jobs, key=lambda item: item[:2])}

    def _runs_of(self, name: str) -> list[Path]:
        study, _, token = name.rpartition(".")
        if study != self.study.name:
            return []
        relative = read_json(self.folder / f"{os.path.basename(token)}.json", below=self.study).get("runs", [])
        return [Path(os.path.normpath(self.study / path)) for path in relative]


def cancel(jobs: Iterable[SlurmJob]) -> None:
    """Take back those that have not begun. No filter by state: with one, 22.05 cancels whole arrays."""
    if ids := [job.id for job in jobs]:
        ask("scancel", "--quiet", *ids)


def ask_to_end(jobs: Iterable[SlurmJob]) -> None:
    """Let the workers of running jobs write a checkpoint and end; Slurm keeps that they are not to be queued again."""
    if ids := [job.id for job in jobs]:
        with contextlib.suppress(SlurmUnavailable):  # one of them has ended just now
            ask("scontrol", "update", f"JobId={','.join(ids)}", "Requeue=0")
        ask("scancel", "--quiet", "--signal=TERM", *ids)


def ask(*command: str) -> list[str]:
    """What a command of Slurm prints, by line. Raises SlurmUnavailable."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=ANSWER_LIMIT_S)
    except FileNotFoundError:
        raise SlurmUnavailable(f"--executor slurm: there is no {command[0]} on this machine") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise SlurmUnavailable(f"{command[0]}: no answer ({type(error).__name__})") from None
    if done.returncode:
        complaints = done.stderr.strip().splitlines() or [f"{command[0]}: exit code {done.returncode}"]
        raise SlurmUnavailable(printable(complaints[-1]))
    return done.stdout.splitlines()


def compute(path: str, device: str, data_dir: str | None, threads: int) -> int:
    """Do a run or a transfer job as far as this job's time goes. Returns its worker's exit code; or exits with it."""
    reader = RunReader(path)
    command = spawn.worker_command(reader, device=device, data_dir=Path(data_dir) if data_dir else None)
    before = _reached(reader)
    code, signal_number = _work(reader, command, threads)
    if code not in (0, INTERRUPTED):
        sys.exit(code if code > 0 else 128 - code)  # so that Slurm says that the job has failed
    if code == 0 or signal_number is None:  # it is finished, or a person has stopped it
        return code
    if signal_number == WARNING and _reached(reader) == before:
        _give_up(reader)  # it would be the same again, for ever
        return code
    # the id of an array's last job alone would mean the whole array
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID", "")
    try:
        if ask("squeue", "--noheader", f"--jobs={job}", "--format=%T") == ["RUNNING"]:
            ask("scontrol", "requeue", job)
    except SlurmUnavailable as error:  # it has at least its checkpoint
        print(error, file=sys.stderr)
    return code


def _work(reader: RunReader, command: list[str], threads: int) -> tuple[int, int | None]:
    """The worker's exit code, and the signal that it was last asked to stop with.

    It stays in this job's session, so that nothing of it outlives the job.
    """
    signals: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def stop(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if child is not None:
            child.terminate()

    for number in (signal.SIGTERM, WARNING):
        signal.signal(number, stop)
    with open_to_append(reader.log_path) as log:
        environment = spawn.environment(threads)
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    if signals:  # before there was a process to pass it on to
        child.terminate()
    return child.wait(), signals[-1] if signals else None


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
