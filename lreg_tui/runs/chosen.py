"""What the preset of a run, or the plan of a transfer job, asks for: fields of a RunRow.

Nothing is checked, which would take the catalog: it may not be there yet.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.base.errors import LregError
from engine.presets.catalog import estimator_label, member_name, named_members, task_label
from engine.presets.repeats import NAMES, arm_identity, flatten
from engine.runs.kinds import RUN, TRANSFER, JobKind
from engine.runs.store import RunReader, RunStore
from lreg_tui.runs.actions import called

DAMAGE = (ValueError, TypeError, AttributeError, RecursionError, LregError)


def chosen(reader: RunReader, kind: JobKind) -> dict[str, Any]:
    """Nothing of what is damaged."""
    try:
        return _of_run(reader) if kind is RUN else _of_job(reader) if kind is TRANSFER else {}
    except DAMAGE:
        return {}


def _of_run(reader: RunReader) -> dict[str, Any]:
    import tomli

    from engine.presets.former import todays
    from engine.presets.preset import LATER

    values = todays(tomli.loads(reader.preset_text))
    tasks = values.get("task", {})
    values["task"] = tasks = [tasks] if isinstance(tasks, dict) else tasks
    tags = values.get("tags", [])
    with_later = {key: {**LATER.get(key, {}), **v} if isinstance(v, dict) else v for key, v in values.items()}
    flat = {sys.intern(key): _shared(value) for key, value in flatten(with_later) if key not in NAMES}
    return {
        "task": "+".join(task_label(task) for task in tasks if isinstance(task, dict)),
        "optimizer": str(values.get("optimizer", {}).get("kind", "")),
        "estimator": estimator_label(values.get("meta", {})),
        "penalties": tuple(dict.fromkeys(map(member_name, named_members(values)))),
        "tags": tuple(map(str, tags)) if isinstance(tags, list) else (),
        "settings": flat,
        "arm": hashlib.sha256(arm_identity(flat).encode()).hexdigest()[:16],
    }


def _shared(value: Any) -> Any:
    """A value that cannot change; a text of which the console keeps one, however many runs have it."""
    return sys.intern(value) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _of_job(reader: RunReader) -> dict[str, Any]:
    """A job is called by what it evaluates, and on what."""
    store = reader.path.parent.parent  # wherever the plan says that they are, which may have been written by anybody
    if (reader.path / TRANSFER.document).exists():
        plan = reader.plan()
        runs = [Path(str(run)).name for run in plan.get("runs", [])]
        targets = list(dict.fromkeys(map(task_label, plan.get("tasks", []))))
    else:
        runs, targets = _wanted_by_studies(store).get(reader.id, ([], []))
    names = [called(RunReader(store / run)) for run in runs]
    if not (names and targets):
        return {}
    return {"of": tuple(runs), "title": f"{_several(names)} -> {_several(targets)}"}


@lru_cache(maxsize=4)
def _wanted_by_studies(store: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Runs and targets, by id, of the transfer jobs that a store's studies want: those kept have no plan."""
    from engine.study.plan.snapshot import Watcher, plan_of

    transfers: dict[str, tuple[list[str], list[str]]] = {}
    for study in RunStore(store).studies():
        with suppress(*DAMAGE):
            for piece in Watcher(plan_of(study.path), study.path).look().transfers:
                transfers[piece.run.id] = [run.id for run in piece.transfer.runs], list(piece.transfer.targets)
    return transfers


def _several(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} +{len(names) - 1}"
