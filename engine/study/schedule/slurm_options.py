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

    def kept(self) -> dict[str, Any]:
        """As the study's schedule keeps it."""
        return {key: value for key, value in asdict(self).items() if value}

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
