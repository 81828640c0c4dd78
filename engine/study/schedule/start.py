"""Start of a study: its folder and its schedule, for the scheduler that is started on them next."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from engine.runs.reader import RunReader
from engine.runs.store import Run, RunStore
from engine.study.plan.plan import StudyPlan
from engine.study.plan.state import plan_of
from engine.study.schedule import inputs
from engine.study.schedule.job import Schedule, set_schedule
from engine.study.schedule.loop import StudyJob


def take_up(
    store: RunStore, plan: StudyPlan, unfinished: RunReader | None, schedule: Schedule, data_dir: Path | None
) -> Run:
    """Go on with this study, where it is there unfinished; else make its folder.

    Raises LregError where its data, or a device of this machine that it is to have, is not there.
    """
    inputs.check_study(plan, schedule, data_dir)
    job = Run(unfinished.path) if unfinished else StudyJob.start(store.root, plan, argv=sys.argv, data_dir=data_dir)
    set_schedule(job, schedule)
    return job


def go_on(path: Path, devices: str = "", data_dir: Path | None = None) -> Run:
    """Go on with a study as it was scheduled last, on other devices if told so; what has failed is tried again.

    Raises LregError as `take_up` does.
    """
    schedule = replace(Schedule.of(path), retry_failed=True)
    schedule = replace(schedule, devices=devices) if devices else schedule
    inputs.check_study(plan_of(path), schedule, data_dir)
    job = Run(path)
    set_schedule(job, schedule)
    return job
