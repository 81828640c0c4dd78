"""Slurm: a study's runs as array jobs of a cluster, handed over through submitit. Needs a shared file system.

What is known of the runs is in their folders; what is queued, Slurm tells (`engine.study.schedule.slurm_queue`).
Nothing that matters is kept here, so a scheduler may be killed at any moment, and its jobs go on without it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import LregError, Problem, SettingsError, printable
from engine.base.settings import show
from engine.runs.reader import RunReader
from engine.runs.writer import Run
from engine.study.schedule import executors, slurm_queue
from engine.study.schedule.slurm_queue import TAKEN, SlurmJob, SlurmQueue, SlurmUnavailable

if TYPE_CHECKING:
    from engine.study.schedule.job import Schedule

MOST = 1000  # jobs at once, as many as an array may have where the cluster does not say otherwise
WARN_S = 120  # before a job's time is up its worker is asked to write a checkpoint
LOOK_EVERY_S = 4.0
AGAIN_S = 60.0  # until jobs that Slurm did not take are handed over again
NEEDED = ("sbatch", "squeue", "scancel", "scontrol", "srun")
SETUP = "LREG_SLURM_SETUP"  # variable of the environment
COUNT = (r"0*[1-9]\d{0,5}", "an integer >= 1 and < 1000000")
FORMS = {  # what each option looks like, and what is said of others
    "partition": (r"[\w.+-]+(,[\w.+-]+)*", "names of partitions, as gpu or short,long"),
    "time": (
        r"(\d{1,4}-\d{1,2}|\d{1,7})(:\d{1,2}){0,2}",
        "a time limit as Slurm has it: MINUTES, HH:MM:SS, D-HH, D-HH:MM",
    ),
    "gpus": (r"([A-Za-z][\w.-]*:)?\d{1,4}", "a number of GPUs, perhaps of a kind: 1, a100:1"),
    "cpus": COUNT,
    "mem": (r"\d{1,9}[KMGT]?", "an amount of memory, as 8G or 4000M"),
    "array": COUNT,
}


def executor(schedule: Schedule, folder: Path, data_dir: Path | None) -> Slurm:
    """The executor of a study's schedule. Raises LregError where options do not fit, or something is missing."""
    options, device = SlurmOptions.of(schedule.slurm), schedule.devices
    check_there()
    if not str(folder).isprintable():  # it would not stay on one line of the job's script: its rest would be run
        raise LregError(
            f"{printable(str(folder))}: found a line break or the like in its name; allowed: none for Slurm"
        )
    if device not in ("auto", "cpu", "cuda"):
        raise LregError(f"--devices: found {printable(device)}; allowed with --executor slurm: auto, cpu, cuda")
    if device == "auto" and options.wants_gpus:
        device = "cuda"  # and no run that falls back to the CPU
    return Slurm(options, folder, jobs=schedule.jobs, device=device, threads=schedule.threads, data_dir=data_dir)


class Slurm:
    """A cluster: everything that can be started is handed over at once, and Slurm does it when there is room."""

    def __init__(
        self,
        options: SlurmOptions,
        folder: Path,
        *,
        jobs: int = 0,
        device: str = "auto",
        threads: int = 0,
        data_dir: Path | None = None,
    ) -> None:
        """`folder`: the study's; `jobs`: how many to hand over at most, 0: as many as an array takes."""
        self.options = options
        self.study = folder
        self.most = min(jobs or MOST, MOST)
        self.device = device
        self.cpus = int(options.cpus or threads or executors.THREADS)
        self.threads = threads or self.cpus
        self.data_dir = data_dir
        self.queue = SlurmQueue(folder)
        self._jobs: dict[Path, SlurmJob] = {}
        self._over: list[Path] = []  # to be handed over
        self._has_taken = False  # any of what this scheduler handed over
        self._answers = True
        self._looked_at = -LOOK_EVERY_S
        self._again_at = 0.0

    def slots(self, busy: Sequence[RunReader]) -> list[str]:
        """None while Slurm does not answer, or has not taken what it was given."""
        return [self.device] * (self.most - len(busy)) if self._answers and not self._over else []

    def start(self, starts: Sequence[executors.Start]) -> None:
        """Hand runs over, as one array. What Slurm does not take is handed over again later; but not the first time."""
        self._over += [reader.path for reader, _ in starts]
        self._hand_over()

    def pending(self) -> set[Path]:
        """Runs whose jobs have not ended, or are still to be handed over, and that are not finished."""
        self._look()
        self._over = [path for path in self._over if path not in self._jobs or self._jobs[path].has_ended]
        if self._over and self._answers and time.monotonic() >= self._again_at:
            self._hand_over()
        queued = [path for path, job in self._jobs.items() if not job.has_ended]
        return {path for path in (*self._over, *queued) if RunReader(path).recorded_status().state != "finished"}

    def why(self, reader: RunReader) -> str:
        job = self._jobs.get(reader.path)
        return f"Slurm job {job.id}: {job.state}; its output is in {self.queue.folder}" if job else ""

    def stop(self, readers: Iterable[RunReader]) -> None:
        to_stop = {reader.path: reader for reader in readers}
        self._over = [path for path in self._over if path not in to_stop]
        self._look(now=True)
        jobs = {path: job for path, job in self._jobs.items() if path in to_stop and job.id and not job.has_ended}
        with self._unless_silent():
            slurm_queue.cancel(job for job in jobs.values() if job.state == "PENDING")
            slurm_queue.ask_to_end(job for job in jobs.values() if job.state not in ("PENDING", "COMPLETING"))
        for path in to_stop.keys() - jobs.keys():  # workers that an executor on this machine has started
            executors.ask_to_stop(to_stop[path])
        self._looked_at = -LOOK_EVERY_S

    # -- what Slurm says ---------------------------------------------------------------------------------------------

    def _look(self, now: bool = False) -> None:
        """Ask for the queue, if it is time to."""
        if not now and time.monotonic() - self._looked_at < LOOK_EVERY_S:
            return
        before = self._jobs
        with self._unless_silent():
            self._jobs = self.queue.jobs()
        self._looked_at = time.monotonic()
        # a job that Slurm has just ended, though neither the run nor a person wanted that, goes on in another
        self._over += [
            path
            for path, job in self._jobs.items()
            if path in before
            and not before[path].has_ended
            and job.state in TAKEN
            and RunReader(path).recorded_status().state == "stopped"
        ]

    @contextlib.contextmanager
    def _unless_silent(self) -> Iterator[None]:
        """While Slurm does not answer, what it said last holds: nothing is started twice. At first it must answer."""
        try:
            yield
        except SlurmUnavailable as error:
            if self._looked_at < 0:
                raise
            if self._answers:
                Run(self.study).log(f"Slurm does not answer, it is asked again: {error}")
            self._answers = False
        else:
            self._answers = True

    # -- what Slurm is given -----------------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            self._submit(self._over)
        except (OSError, FailedJobError, FailedSubmissionError) as error:
            lines = str(error).splitlines() or [type(error).__name__]
            reason = printable(next((line.strip() for line in lines[::-1] if "error:" in line), lines[-1]))
            if not self._has_taken:
                self._over = []
                raise LregError(f"Slurm does not take the jobs: {reason}") from None
            Run(self.study).log(f"Slurm does not take {len(self._over)} jobs, they are handed over again: {reason}")
            self._again_at = time.monotonic() + AGAIN_S
            return
        self._has_taken = True
        self._jobs |= {path: SlurmJob("", "PENDING") for path in self._over}  # should Slurm not answer now
        self._over = []
        self._look(now=True)

    def _submit(self, runs: Sequence[Path]) -> None:
        from submitit import SlurmExecutor

        name = self.queue.note(runs)
        with _outside_of_jobs(), contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises
            slurm = SlurmExecutor(self.queue.folder)
            slurm.update_parameters(**self._parameters(name, len(runs)))
            data_dir = str(self.data_dir.absolute()) if self.data_dir else None
            tasks = [(str(path), self.device, data_dir, self.threads) for path in runs]
            slurm.map_array(slurm_queue.compute, *zip(*tasks, strict=True))

    def _parameters(self, name: str, jobs: int) -> dict[str, Any]:
        """For submitit; what is None stays out of the script."""
        options, minutes = self.options, self.options.minutes
        warn_s = min(WARN_S, minutes * 60 // 4) if minutes else WARN_S
        warning = slurm_queue.WARNING.name.removeprefix("SIG")
        return {
            "job_name": name,
            "partition": options.partition or None,
            "time": minutes,
            "gpus_per_node": options.gpus or None,
            "cpus_per_task": self.cpus,
            "mem": options.mem or None,
            "array_parallelism": int(options.array or jobs),
            "setup": [*setup_lines(), *_finding_this_engine()],
            "srun_args": [f"--cpus-per-task={self.cpus}"],  # since 22.05 srun does not take it from the job
            "wckey": None,
            "additional_parameters": {"requeue": True, "signal": f"{warning}@{warn_s}", "chdir": self.queue.folder},
        }


def _finding_this_engine() -> list[str]:
    """Lines of shell after which Python finds this very engine, and no file of the current folder for a library."""
    root = Path(__file__).parents[3]
    installed = root.name.endswith("-packages")
    path = [] if installed else [f"export PYTHONPATH={shlex.quote(str(root))}${{PYTHONPATH:+:$PYTHONPATH}}"]
    return ["export PYTHONSAFEPATH=1", *path]


@contextlib.contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """A scheduler that is a Slurm job itself: what it was given is not for the jobs that it hands over."""
    inside = "SLURM_JOB_ID" in os.environ
    inherited = [name for name in os.environ if inside and name.startswith(("SLURM_", "SLURMD_", "SRUN_"))]
    hidden = {name: os.environ.pop(name) for name in inherited if name != "SLURM_CONF"}
    try:
        yield
    finally:
        os.environ.update(hidden)


@dataclass(frozen=True)
class SlurmOptions:
    """What Slurm is asked for; empty: what the cluster gives by itself."""

    partition: str = ""
    time: str = ""
    gpus: str = ""  # of one node
    cpus: str = ""  # default: as many as a run has threads
    mem: str = ""
    array: str = ""  # how many jobs of an array run at once

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> SlurmOptions:
        """From what was typed or kept. Raises SettingsError with every problem."""
        problems = []
        for key, value in values.items():
            form, allowed = FORMS.get(key, ("", ""))
            if not form:
                problems.append(Problem(key, "an unknown key", ", ".join(FORMS)))
            elif not isinstance(value, str) or not re.fullmatch(form, value, re.ASCII):
                problems.append(Problem(f"--slurm-{key}", show(value), allowed))
        if problems:
            raise SettingsError(problems)
        return cls(**values)

    @property
    def minutes(self) -> int | None:
        """The time limit, rounded up; None: that of the partition."""
        if not self.time:
            return None
        days, _, clock = self.time.rpartition("-")
        parts = [int(part) for part in clock.split(":")]
        if not days and len(parts) < 3:  # minutes, or minutes and seconds
            parts.insert(0, 0)
        hours, minutes, seconds = (*parts, 0, 0)[:3]
        return int(days or 0) * 1440 + hours * 60 + minutes + math.ceil(seconds / 60)

    @property
    def wants_gpus(self) -> bool:
        return bool(self.gpus) and int(self.gpus.rpartition(":")[2]) > 0


def setup_lines() -> list[str]:
    """Lines of shell that every job begins with: module load, export.

    They come from this process's environment and are never kept in a study's folder: whoever resumes a folder that a
    stranger has made must not run the stranger's commands. Raises SettingsError for what would be a line of Slurm's.
    """
    lines = os.environ.get(SETUP, "").splitlines()
    wrong = [line for line in lines if line.lstrip().startswith("#SBATCH") or "\0" in line]
    if wrong:
        raise SettingsError([Problem("--slurm-setup", show(wrong[0]), "a line of shell, no option of Slurm's")])
    return lines


def check_there() -> None:
    """Raise LregError where this machine cannot hand over jobs."""
    if importlib.util.find_spec("submitit") is None:
        raise LregError("--executor slurm needs submitit, which is not installed: pip install submitit")
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        raise LregError(f"--executor slurm: no {', '.join(missing)} on this machine; it is to be one that submits jobs")
