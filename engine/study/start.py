"""Start of a study: its folder and its schedule, for the scheduler that is started on them next."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from engine.reader import RunReader
from engine.runs import RunStore
from engine.study import inputs, transfers
from engine.study.executors import names
from engine.study.job import Schedule, StudyJob
from engine.study.plan import StudyPlan


def take_up(
    store: RunStore, plan: StudyPlan, found: RunReader | None, schedule: Schedule, data_dir: Path | None
) -> StudyJob:
    """Go on with `found`, where this study is there unfinished; else make its folder.

    Raises LregError where the data of a new one, or a device of this machine that it is to have, is not there.
    """
    if found is not None:
        job = StudyJob(found.path)
    else:
        devices = names(schedule.devices) if schedule.executor == "local" else ()
        inputs.check(transfers.tasks(plan), data_dir, devices)
        job = StudyJob.start(store.root, plan, argv=sys.argv, data_dir=data_dir)
    schedule.write(job.path)
    return job


def go_on(path: Path, devices: str = "") -> StudyJob:
    """Go on with a study as it was scheduled last, on other devices if told so; what has failed is tried again."""
    schedule = replace(Schedule.of(path), retry_failed=True)
    (replace(schedule, devices=devices) if devices else schedule).write(path)
    return StudyJob(path)
