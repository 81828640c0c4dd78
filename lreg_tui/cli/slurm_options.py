"""Options of `lreg study --executor slurm`."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from engine.base.errors import LregError


def _option(name: str, metavar: str, text: str) -> Any:
    return typer.Option(f"--slurm-{name}", metavar=metavar, help=text)


Partition = Annotated[
    str, _option("partition", "NAME", "With --executor slurm: the partition. Default: that of the cluster.")
]
Time = Annotated[
    str, _option("time", "TIME", "Time limit of a job, as 30, 4:00:00, 1-12. Longer runs take several jobs.")
]
Gpus = Annotated[str, _option("gpus", "N", "GPUs of each run, as 1 or a100:1.")]
Cpus = Annotated[str, _option("cpus", "N", "CPUs of each run. Default: its threads, else 2.")]
Memory = Annotated[str, _option("mem", "SIZE", "Memory of each run, as 8G.")]
Array = Annotated[str, _option("array", "N", "How many jobs of an array run at once. Default: as many as fit.")]
Setup = Annotated[
    list[str] | None,
    _option(
        "setup", "LINE", "Shell that jobs begin with; may be given again, and is to be, when the study is resumed."
    ),
]


def checked(executor: str, setup: list[str] | None = None, **options: Any) -> dict[str, Any]:
    """The options as a study's schedule keeps them. Raises LregError; so nothing is made where Slurm is missing.

    The lines of `setup` are not kept there: they go into the environment, for this scheduler and no other.
    """
    from engine.study.schedule import slurm_options

    if setup:
        os.environ[slurm_options.SETUP] = "\n".join(setup)
    given = {name: value for name, value in options.items() if value}
    if executor == "slurm":
        kept = slurm_options.Options.of(given).kept()
        slurm_options.setup_lines()
        slurm_options.check_there()
        return kept
    if given:
        raise LregError(f"--slurm-{next(iter(given))}: of no use without --executor slurm")
    return {}
