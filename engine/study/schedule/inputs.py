"""Asked in a process of its own: which devices there are, and whether the data of a study, run or transfer is there.

A scheduler lives for days beside its runs, and the console too: they should not hold torch all the while.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import LregError
from engine.jobs import spawn
from engine.study.plan.plan import as_tuples
from engine.study.plan.transfers import tasks as every_task

if TYPE_CHECKING:
    from engine.runs.reader import RunReader
    from engine.study.plan.plan import StudyPlan
    from engine.study.schedule.job import Schedule

MODULE = "engine.study.schedule.inputs"


def devices(names: Iterable[str]) -> list[str]:
    """The devices that are meant: auto is every GPU, else the CPU. Raises LregError where one is not there."""
    return _ask(devices=list(names)).split()


def device_names(devices: str) -> list[str]:
    """The devices of a list as it is typed: cuda:0,cuda:1."""
    return list(dict.fromkeys(name.strip() for name in devices.split(",") if name.strip())) or ["auto"]


def check_run(
    tasks: Iterable[Mapping[str, Any]],
    device: str,
    data_dir: Path | None,
    optimizer: Mapping[str, Any] | None = None,
    parent: RunReader | None = None,
) -> None:
    """Find out before a process starts whether its device and its data are there. Raises LregError.

    `optimizer`: the table of a run, which may have a parent.
    """
    start = parent.path if parent is not None else None
    _ask(tasks=list(tasks), device=device, data_dir=data_dir, optimizer=optimizer, start=start)


def check_study(plan: StudyPlan, schedule: Schedule, data_dir: Path | None) -> None:
    """The same of everything that a study needs. Raises LregError."""
    names = device_names(schedule.devices) if schedule.executor == "local" else []
    _ask(tasks=every_task(plan), data_dir=data_dir, devices=names)


def _ask(**question: Any) -> str:
    return spawn.ask(MODULE, json.dumps(question, default=str))


def _answer(question: Mapping[str, Any]) -> str:
    import torch

    from engine.base.device import pick_device
    from engine.jobs.job_runner import check_inputs

    names: list[str] = []
    for name in question.get("devices", ()):
        device = str(pick_device(name, "--devices"))
        every = name == "auto" and device == "cuda"
        names += [f"cuda:{number}" for number in range(torch.cuda.device_count())] if every else [device]
    data_dir, start = (Path(path) if (path := question.get(key)) else None for key in ("data_dir", "start"))
    tasks, optimizer = map(as_tuples, question.get("tasks", ())), question.get("optimizer")
    optimizer = as_tuples(optimizer) if optimizer else None
    check_inputs(list(tasks), question.get("device", "cpu"), data_dir, optimizer=optimizer, start=start)
    return "\n".join(dict.fromkeys(names))


def main() -> int:
    try:
        print(_answer(json.load(sys.stdin)))
    except LregError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
