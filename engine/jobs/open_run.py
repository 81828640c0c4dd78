"""Open the folder of a run, or of a job on several runs, for the process that works on it."""

from __future__ import annotations

import os

from engine.base.errors import RunError
from engine.distributed import parallel
from engine.distributed.read_only_run import ReadOnlyRun
from engine.jobs.job import Job
from engine.runs.store import Run, RunReader


def open_run(path: str | os.PathLike[str]) -> Run:
    """The folder for its one writer, by its kind; one that writes nothing for a process that does not hold it.

    Raises RunError for a kind of job that several processes cannot share.
    """
    kind = Job.kinds.get(str(RunReader(path).facts.get("kind")))
    if parallel.size() > 1:
        if kind is not None:
            raise RunError(f"{path}: no run; several processes can share nothing else")
        if parallel.rank():
            return ReadOnlyRun(path)
    return (kind or Run)(path)
