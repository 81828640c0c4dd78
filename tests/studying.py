"""What the tests of studies share: a study of tiny runs on the digits, made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.presets.preset import from_mapping
from engine.runs.store import Run
from engine.study.plan.plan import ArmPlan, StudyAxis, StudyPlan, TransferSpec
from engine.study.schedule.job import Schedule
from engine.study.schedule.loop import StudyJob

STAMP = "20261120-211500"
TINY: dict[str, Any] = {
    "threads": 1,
    "task": {"dataset": "digits", "optimizee": "mlp", "batch_size": 16},
    "optimizer": {"kind": "simple"},
    "meta": {"epochs": 2, "inner_steps": 10, "truncation": 5, "checkpoint_every": 0.01},
    "evaluation": {
        "every": 1,
        "optimizees": 1,
        "examples": 50,
        "restarts": 1,
        "ascent_steps": 1,
        "radii": [0.05],
        "final_optimizees": 0,
    },
}
TIMING = ("t", "inner_steps_per_s", "coordinate_steps_per_s", "memory_bytes")
RATES = StudyAxis("meta.learning_rate", values=(1e-3, 1e-2))


def arm(name: str, *axes: StudyAxis, **tables: Any) -> ArmPlan:
    """An arm of tiny runs; `tables` go over theirs."""
    changed = {table: {**TINY.get(table, {}), **values} for table, values in tables.items()}
    return ArmPlan(name, from_mapping({**TINY, **changed, "name": name}).values, axes)


def transfers(**changes: Any) -> TransferSpec:
    usual = {"to": ("digits/mlp",), "settings": {"steps": 10, "seeds": 1}, "untrained": False}
    return TransferSpec(**{**usual, "evaluation": {"examples": 20, "restarts": 1, "ascent_steps": 1}, **changes})


def study(name: str = "tiny", **changes: Any) -> StudyPlan:
    """Two arms, one of them with two points, and two meta-seeds: six runs."""
    usual = {"seeds": (0, 1), "arms": (arm("plain"), arm("sam", RATES, penalty={"sam": {}})), "reference": "plain"}
    return StudyPlan(**{"name": name, "stamp": STAMP, **usual, **changes})


def job(store: Path, plan: StudyPlan, **schedule: Any) -> Run:
    started = StudyJob.start(store, plan)
    Schedule(**{"devices": "cpu", "jobs": 2, **schedule}).write(started.path)
    return started


def records(folder: Path) -> list[dict[str, Any]]:
    """A run's metrics without what depends on the clock and the machine."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMING} for line in lines]
