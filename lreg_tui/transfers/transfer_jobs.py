"""What transfer jobs are to do, and what is there of it, as the console lists it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.base.errors import LregError
from engine.evaluation.transfer_plan import Plan, Planned
from engine.runs.store import RunReader
from lreg_tui.runs import actions, run_files
from lreg_tui.text.sheets import Sheet
from lreg_tui.transfers import transfer_files
from lreg_tui.transfers.transfer_files import Seen, plan_of


@dataclass(frozen=True)
class Job:
    """What a job is to do, in a line and as a plan; `problem` says why there is none."""

    title: str
    plan: Plan | None = None
    names: Mapping[str, str] = field(default_factory=dict)  # of its runs, by path
    problem: str = ""

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(Path(run).name for run in self.plan.runs) if self.plan is not None else ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """Each as dataset/optimizee."""
        tasks = self.plan.tasks if self.plan is not None else ()
        return tuple(dict.fromkeys(f"{task['dataset']}/{task['optimizee']}" for task in tasks))

    @property
    def inner_steps(self) -> int | None:
        return self.plan.protocol.inner_steps if self.plan is not None else None


def read_job(path: Path) -> Job:
    try:
        plan = plan_of(RunReader(path))
    except LregError as error:
        return Job(path.name, problem=str(error).splitlines()[0])
    names = {run: actions.called(RunReader(run)) for run in plan.runs}
    tasks = list(dict.fromkeys(item.task_name for item in plan.evaluations()))
    more = f" +{len(tasks) - 2}" if len(tasks) > 2 else ""
    return Job(f"{', '.join(names.values())} on {', '.join(tasks[:2])}{more}", plan, names)


def read_results(job: Job) -> tuple[Sheet, ...]:
    """A table for every task of which some evaluation is there."""
    if job.plan is None:
        return ()
    try:
        return tuple(result_sheets(job.plan, transfer_files.found(job.plan), job.names))
    except LregError:  # a task of another version: the job itself says so
        return ()


def result_sheets(
    plan: Plan, found: Sequence[tuple[Planned, Seen | None]], names: Mapping[str, str]
) -> Iterator[Sheet]:
    """A table for every task of which some evaluation is there, at its last inner step."""
    for task in plan.tasks:
        own = [(item, seen) for item, seen in found if item.task is task and seen is not None and seen.row is not None]
        if not own:
            continue
        results = [{**seen.row, "label": _label(item, names)} for item, seen in own if seen.row]
        yield run_files.result_sheet(results, f"{task['dataset']}/{task['optimizee']}")


def _label(item: Planned, names: Mapping[str, str]) -> str:
    return f"{names[item.run]}: {item.label}" if item.run and len(names) > 1 else item.label
