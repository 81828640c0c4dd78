"""Starting and steering studies from the console: how long one may take, the start, and going on with one.

These wait for disks and processes: not for the console's loop.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from textual import work
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.base.errors import LregError, RunError
from engine.base.status import LIVE
from engine.presets.catalog import estimator_label, member_name, named_members, task_label, trainings
from engine.presets.tables import stages
from engine.runs.store import RunReader, RunStore
from engine.study.plan.plan import ArmPlan, StudyPlan
from engine.study.schedule.job import Schedule, finished, new_stamp, unfinished
from engine.study.schedule.loop import go_on, take_up
from lreg_tui.runs import actions
from lreg_tui.runs.acting import ActingScreen
from lreg_tui.runs.feed import RunRow
from lreg_tui.system import launch
from lreg_tui.system.keys import key_of
from lreg_tui.text.present import duration
from lreg_tui.widgets.keys import bind


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
            estimates.append(_points(plan, arm) * len(plan.seeds) * _inner_steps(arm.preset["meta"]) / rate)
        else:
            unknown.append(arm.name)
    return (sum(estimates) if estimates else None), tuple(unknown)


def _kind(preset: Mapping[str, Any]) -> tuple[str, str, str, frozenset[str]]:
    """What decides most of a run's speed, as the lists of runs name it."""
    tasks = preset["task"] if isinstance(preset["task"], (list, tuple)) else [preset["task"]]
    named = "+".join(map(task_label, tasks))
    members = frozenset(map(member_name, named_members(preset)))
    return named, preset["optimizer"]["kind"], estimator_label(preset["meta"]), members


def _inner_steps(meta: Mapping[str, Any]) -> float:
    """Of all optimizees of a run; the stages of a curriculum count alike."""
    return float(meta["epochs"] * meta["meta_batch"] * trainings(meta) * fmean(stages(meta)))


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
        launch.start_detached(RunReader(path), data_dir=data_dir, module=study_worker.MODULE)
    except OSError as error:
        raise LregError(f"{error.filename or path}: {error.strerror}") from None


# -- screens that steer studies ----------------------------------------------------------------------------------------

STEERING = (
    bind("stop", "stop_run", tooltip="stop the study: every run writes a checkpoint and ends"),
    bind("pause", "pause_run", "pause", "pause the study and its runs: the same key lets it go on"),
    bind("pause", "continue_run", "continue", "let the paused study go on"),
    bind("resume", "resume_run", tooltip="go on with what is left; what has failed is tried again"),
)


class SteeringScreen(ActingScreen, inherit_bindings=False):
    """Its subjects are the folders of studies, as rows."""

    STOPPING = (
        "Stop {} and all its runs?",
        f"Every run of it writes a checkpoint and ends; {key_of('resume')} goes on with them.",
    )

    _is_looking = False

    def on_mount(self) -> None:
        self.set_interval(self.lreg.feed.interval, self.look)
        self.look()

    def on_screen_resume(self) -> None:
        self.look()

    @work(group="look")
    async def look(self) -> None:
        """Read what is there now, unless nobody sees it or it is being read."""
        if self._is_looking or not (self.is_current or isinstance(self.app.screen, ModalScreen)):
            return
        self._is_looking = True
        try:
            await self.read()
        finally:
            self._is_looking = False

    async def read(self) -> None:
        """Read the folders, off the loop, and show what is new."""
        raise NotImplementedError

    def say(self, where: str, content: object) -> None:
        """Only what is different is drawn again."""
        line = self.query_one(f"#{where}", Static)
        if line.content != content:
            line.update(content)  # type: ignore[arg-type]

    def resume(self, path: Path) -> str:
        return resume(path, self.lreg.data_dir)

    def act(self, *args: Any, **how: Any) -> None:
        super().act(*args, **{"then": self.look, **how})
