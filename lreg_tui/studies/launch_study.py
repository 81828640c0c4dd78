"""Which study to start, what it asks for and how long that may take; its start, and going on with one.

These wait for disks and processes: not for the console's loop.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from rich.text import Text
from textual import work
from textual.widgets import Static

from engine.base.errors import LregError, RunError
from engine.base.status import LIVE
from engine.jobs import spawn
from engine.presets.catalog import estimator_label, member_name, named_members, task_label, trainings
from engine.presets.tables import stages
from engine.runs.store import RunReader, RunStore
from engine.study.plan.plan import ArmPlan, StudyPlan
from engine.study.schedule.job import Schedule, finished, new_stamp, unfinished
from engine.study.schedule.loop import go_on, take_up
from lreg_tui.presets.picking import Offer, PickOfferScreen
from lreg_tui.runs import actions
from lreg_tui.runs.feed import RunRow
from lreg_tui.text.present import clean, clean_block, count, duration
from lreg_tui.widgets.dialog import Field, LaunchingScreen
from lreg_tui.widgets.threads import off_the_loop


@dataclass(frozen=True)
class StudySize:
    """What a study asks for. `seconds`: of computing, as far as runs of the store tell; None: they do not."""

    plan: StudyPlan
    runs: int
    transfers: int
    seconds: float | None = None
    unknown: tuple[str, ...] = ()  # arms of which no run tells how fast they are

    @property
    def estimate(self) -> str:
        """How long its runs may take, in words."""
        if self.seconds is None:
            return "no finished run to estimate from"
        without = f", without {', '.join(self.unknown)}" if self.unknown else ""
        return f"about {duration(self.seconds)} of meta-training, one run at a time, as fast as the runs here{without}"


class Started(NamedTuple):
    """A study that a process has; `was_there`: unfinished, so that it goes on."""

    path: Path
    was_there: bool


def size_of(reference: str, rows: Sequence[RunRow]) -> StudySize:
    """What a study asks for; `rows`: runs that tell how fast its own may be. Raises LregError with what is wrong."""
    from engine.study.plan.document import load_study
    from engine.study.plan.transfers import expected

    plan = load_study(reference)
    runs = sum(_points(plan, arm) for arm in plan.arms) * len(plan.seeds)
    seconds, unknown = _seconds(plan, rows)
    return StudySize(plan, runs, expected(plan, runs), seconds, unknown)


def _points(plan: StudyPlan, arm: ArmPlan) -> int:
    if plan.search is not None:
        return plan.search.trials if arm.axes else 1
    return math.prod(len(axis.values) for axis in arm.axes)


def _seconds(plan: StudyPlan, rows: Sequence[RunRow]) -> tuple[float | None, tuple[str, ...]]:
    """Time of computing, from the inner steps per second of the newest run of the same kind; arms without one."""
    rates = {}
    for row in rows:
        if (rate := row.latest.get("inner_steps_per_s")) and math.isfinite(rate):
            rates[row.task, row.optimizer, row.estimator, frozenset(row.penalties)] = rate
    estimates, unknown = [], []
    for arm in plan.arms:
        rate = rates.get(_kind(arm.preset))
        if rate:
            meta = arm.preset["meta"]
            steps = meta["epochs"] * meta["meta_batch"] * trainings(meta) * fmean(stages(meta))  # which count alike
            estimates.append(_points(plan, arm) * len(plan.seeds) * steps / rate)
        else:
            unknown.append(arm.name)
    return (sum(estimates) if estimates else None), tuple(unknown)


def _kind(preset: Mapping[str, Any]) -> tuple[str, str, str, frozenset[str]]:
    """What decides most of a run's speed, as the lists of runs name it."""
    tasks = preset["task"] if isinstance(preset["task"], (list, tuple)) else [preset["task"]]
    named = "+".join(map(task_label, tasks))
    members = frozenset(map(member_name, named_members(preset)))
    return named, preset["optimizer"]["kind"], estimator_label(preset["meta"]), members


def start(reference: str, store: RunStore, name: str, jobs: int, data_dir: Path | None) -> Started:
    """As `lreg study --detach` does it: go on with this study if it is there unfinished, else begin it.

    Raises LregError with the reason; one that has finished is not done again unasked.
    """
    from engine.study.plan.document import load_study

    plan = load_study(reference, [f"name={json.dumps(name)}"] if name else (), new_stamp(store))
    begun, _ = unfinished(store, plan)
    if begun is not None and (state := begun.state) in LIVE:
        raise RunError(f"study {begun.id} is {state}")
    if begun is None and (done := finished(store, plan)) is not None:
        raise RunError(f"{done.id} has finished, none of its runs failed: nothing to do (another name begins anew)")
    job = take_up(store, plan, begun, Schedule(jobs=jobs), data_dir)
    _launch(job.path, data_dir)
    return Started(job.path, was_there=begun is not None)


def resume(path: Path, data_dir: Path | None = None) -> str:
    """Go on with a study as it was scheduled last; what has failed is tried again."""
    reader = RunReader(path)
    if (state := reader.state) not in actions.RESUMABLE:
        raise RunError(f"{actions.called(reader)} is {state}: nothing to resume")
    go_on(path, data_dir=data_dir)
    _launch(path, data_dir)
    return f"{actions.called(reader)} goes on"


def _launch(path: Path, data_dir: Path | None) -> None:
    from lreg_tui.studies import study_worker

    try:
        spawn.start_detached(RunReader(path), data_dir=data_dir, module=study_worker.MODULE)
    except OSError as error:
        raise LregError(f"{error.filename or path}: {error.strerror}") from None


JOBS = re.compile(r"\d{1,4}")
LONGEST_NAME = 40


class PickStudyScreen(PickOfferScreen):
    """Below the list stands what the highlighted study asks for."""

    HEADING = "New study: which one?"
    DEFAULT_CSS = """
    PickStudyScreen #size { height: 6; margin-top: 1; padding: 0 1; background: $surface; }
    """

    def make_preview(self) -> Static:
        return Static(id="size", markup=False)

    @work(group="preview", exclusive=True)
    async def preview(self, offer: Offer) -> None:
        line = self.query_one("#size", Static)
        line.update(Text("counting …", "dim"))
        rows = self.app.feed.rows  # type: ignore[attr-defined]
        line.update(await off_the_loop(lambda: weighed(offer.reference, rows), "study"))


def launching(offer: Offer, store: RunStore, data_dir: Path | None = None) -> LaunchingScreen[Started]:
    """Ends with the study that was started, or None."""
    name = clean(Path(offer.name).stem, LONGEST_NAME)
    fields = (
        Field("name", name, "what the study is called; its runs are called after it"),
        Field("jobs", "0", "runs at once; 0: as many as fit"),
    )

    def problem(values: Mapping[str, str]) -> str:
        name, jobs = values["name"], values["jobs"]
        if len(name) > LONGEST_NAME:  # the rest of a name is judged with the study
            return f"name: found {len(name)} characters; allowed: {LONGEST_NAME} at most"
        return "" if JOBS.fullmatch(jobs) else f"jobs: found {jobs or 'nothing'}; allowed: an integer from 0 to 9999"

    def launch(values: Mapping[str, str]) -> Started:
        return start(offer.reference, store, values["name"], int(values["jobs"]), data_dir)

    about = clean(f"{offer.reference}: {offer.about}")
    return LaunchingScreen("Start a study", about, fields, problem, launch, "the data is looked for first")


def weighed(reference: str, rows: Sequence[RunRow]) -> Text:
    """What a study asks for, in words; or what is wrong with it."""
    try:
        size = size_of(reference, rows)
    except LregError as error:
        return Text(clean_block(str(error)), "bold red")
    plan = size.plan
    arms = ", ".join(arm.name for arm in plan.arms)
    seeds = len(plan.seeds)
    text = Text.assemble((count(size.runs, "run"), "bold"), f" ({size.runs // seeds} x {count(seeds, 'meta-seed')})")
    text.append(f", then {count(size.transfers, 'transfer')}" if size.transfers else "")
    if plan.search is not None:
        text.append(f"; a search of {plan.search.trials} trials for each arm with axes")
    text.append(f"\narms: {clean(arms, 400)}", "dim")
    return text.append(f"\n{clean(size.estimate, 300)}")
