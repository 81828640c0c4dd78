"""What is asked of Slurm for each job of a study: checked, whoever typed it."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from engine.base.errors import LregError, Problem, SettingsError
from engine.base.settings import show

NEEDED = ("sbatch", "squeue", "scancel", "scontrol", "srun")
LARGEST = 1_000_000
SETUP = "LREG_SLURM_SETUP"  # variable of the environment
_ALLOWED = {
    "partition": "names of partitions, as gpu or short,long",
    "time": "a time limit as Slurm has it: MINUTES, HH:MM:SS, D-HH, D-HH:MM",
    "gpus": "a number of GPUs, perhaps of a kind: 1, a100:1",
    "cpus": f"an integer >= 1 and <= {LARGEST}",
    "mem": "an amount of memory, as 8G or 4000M",
    "array": f"an integer >= 1 and <= {LARGEST}",
}
_FORMS = {
    "partition": r"[\w.+-]+(,[\w.+-]+)*",
    "gpus": r"([A-Za-z][\w.-]*:)?\d{1,4}",
    "cpus": r"\d{1,7}",
    "mem": r"\d{1,9}[KMGT]?",
    "array": r"\d{1,7}",
}
_TIMES = (  # days, hours, minutes, seconds
    r"(?P<m>\d{1,7})(:(?P<s>\d{1,2}))?",
    r"(?P<h>\d{1,5}):(?P<m>\d{1,2}):(?P<s>\d{1,2})",
    r"(?P<d>\d{1,4})-(?P<h>\d{1,2})(:(?P<m>\d{1,2})(:(?P<s>\d{1,2}))?)?",
)


@dataclass(frozen=True)
class Options:
    """What Slurm is asked for; empty: what the cluster gives by itself."""

    partition: str = ""
    time: str = ""
    gpus: str = ""  # of one node
    cpus: str = ""  # default: as many as a run has threads
    mem: str = ""
    array: str = ""  # how many jobs of an array run at once

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Options:
        """From what was typed or kept. Raises SettingsError with every problem."""
        problems = [Problem(key, "an unknown key", ", ".join(_ALLOWED)) for key in values if key not in _ALLOWED]
        for key, value in values.items():
            if key in _ALLOWED and not _fits(key, value):
                problems.append(Problem(f"--slurm-{key}", show(value), _ALLOWED[key]))
        if problems:
            raise SettingsError(problems)
        return cls(**values)

    def kept(self) -> dict[str, Any]:
        """As the study's schedule keeps it."""
        return {key: value for key, value in asdict(self).items() if value}

    @property
    def minutes(self) -> int | None:
        """The time limit, rounded up; None: that of the partition."""
        return _minutes(self.time) if self.time else None

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


def _fits(key: str, value: Any) -> bool:
    if not isinstance(value, str):
        return False
    if key == "time":
        return bool(_minutes(value))
    fits = bool(re.fullmatch(_FORMS[key], value, re.ASCII))
    return fits and (key not in ("cpus", "array") or 1 <= int(value) <= LARGEST)


def _minutes(text: str) -> int:
    """A time in whole minutes, rounded up; 0 where it is none."""
    for form in _TIMES:
        if found := re.fullmatch(form, text, re.ASCII):
            parts = {key: int(value or 0) for key, value in found.groupdict().items()}
            days, hours, minutes, seconds = (parts.get(key, 0) for key in "dhms")
            return days * 1440 + hours * 60 + minutes + math.ceil(seconds / 60)
    return 0
