"""Studies that are the same at every time, on every machine, for pictures of their screens: files alone, no processes.

Import it as `tui.study_scenery`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studying import arm, transfers
from tui.driving import NOBODY, change_json
from tui.scenery import HOUR, MINUTE, NOW, date

from engine.runs.store import RunStore
from engine.study.plan.plan import ArmPlan, Axis, Cell, Search, StudyPlan
from engine.study.plan.snapshot import Watcher
from engine.study.schedule.loop import StudyJob

RHO = Axis("penalty.sam.rho", values=(0.01, 0.05, 0.1))
WEIGHT = Axis("penalty.gsam.weight", values=(0.5, 2.0))
RATE = Axis("meta.learning_rate", low=1e-5, high=1e-2)
DONE = (0.4312, 0.4478, 0.4391, 0.4265, 0.4419)  # of the runs of a point, as they end
GAIN = {"none": 0.0, "sam 0.01": 0.01, "sam 0.05": 0.06, "sam 0.1": 0.03, "gsam 0.5": 0.02, "gsam 2": -0.4}
STATES = {  # of the runs that have not finished, by point and meta-seed
    ("sam 0.1", 1): "failed",
    ("sam 0.1", 4): "crashed",
    ("gsam 0.5", 0): "running",
    ("gsam 0.5", 1): "running",
    ("gsam 0.5", 2): "paused",
    ("gsam 0.5", 3): "stopped",
    ("gsam 0.5", 4): "queued",
}
MESSAGES = {"failed": "the meta-loss was not finite 100 times in a row", "stopped": "stopped by lreg stop"}
LOG = """\
2026-03-14T11:00:04Z process 4711: lreg study rho-sweep.toml --jobs 2
2026-03-14T11:00:06Z none seed 0: running
2026-03-14T11:00:06Z none seed 1: running
2026-03-14T11:31:40Z none seed 0: finished
2026-03-14T13:17:02Z sam rho=0.1 seed 1: failed
2026-03-14T13:44:51Z sam rho=0.1 seed 4: crashed
2026-03-14T14:20:10Z gsam weight=0.5 seed 0: running
"""
REPORT = """\
# Study paper-lr-small

Does a penalty on the landscape lead learned optimizers to flatter minima? A small version of it.

**Finished**: 4 runs, 6 transfer jobs.

Intervals are 95% t-intervals over the means of meta-seeds; differences are paired by meta-seed and
optimizee (start and batches). A comparison whose interval includes no difference is "not found":
neither an effect nor its absence was shown. Every figure is also in the CSV files beside this one,
with the runs that it comes from.

## In short

Each arm's winner against the reference arm `none`, over 2 tasks: `digits/mlp`, `digits/mlp-relu`.

| arm    | test accuracy, equal steps | sharpness at 0.05, equal steps | \
sharpness at 0.05, matched loss | sharpness at 0.05, frontier |
| ------ | -------------------------- | ------------------------------ | \
------------------------------- | --------------------------- |
| `gsam` | not found 2                | better 2                       | \
better 1, too few pairs 1       | not found 2                 |

## Controls

| id  | verdict           | claim                                                   | comparisons |
| --- | ----------------- | ------------------------------------------------------- | ----------- |
| K1  | **not supported** | penalties do more than a constant factor of the updates | 2 not found |
| K2  | **not tested**    | penalties do more than re-weight the meta-loss          | –           |

## What weakens the conclusions

- 4 meta-seeds, fewer than 5: t-intervals over so few are wide. What is "not found" may well be
  there.
- No re-weighting control (an arm whose penalty has rho = 0): a penalty also multiplies the
  meta-loss.
"""
FILE = """\
description = "SAM against GSAM on the digits, with radii and weights"
seeds = 5
preset = "quickstart"
[[arm]]
name = "sam"
preset = "lo-sam"
axes = { "penalty.sam.rho" = [0.01, 0.05] }
[transfer]
baselines = ["sgd", "adam"]
"""


def fill(root: Path) -> None:
    """A study at work with a run in every state; others that have finished, failed, search, and are damaged."""
    store = RunStore(root)
    arms = (arm("none"), arm("sam", RHO, penalty={"sam": {}}), arm("gsam", WEIGHT, penalty={"gsam": {}}))
    sweep = _plan("rho-sweep", "20260314-110000", arms, seeds=range(5), transfer=transfers())
    _sweep(store, sweep)
    _study(
        store,
        sweep,
        4 * HOUR,
        "running",
        message="18 of 30 runs, 0 of 5 transfers, 2 running, 1 failed for good",
        eta_s=5400.0,
        log=LOG,
    )

    arms = (arm("none"), arm("gsam", penalty={"gsam": {}}))
    small = _plan("paper-lr-small", "20260313-090000", arms, transfer=transfers())
    for cell, value in zip(small.grid(), DONE, strict=False):
        _run(store, small, cell, value)
    folder = _study(store, small, 30 * HOUR, "finished", message="report: runs/.studies/…/report/report.md")
    for piece in Watcher(small, folder).look().transfers:
        piece.run.path.mkdir(parents=True)
        for name, text in (("run", "{}"), ("plan", "{}"), ("status", '{"state": "finished"}')):
            (piece.run.path / f"{name}.json").write_text(text)
    (folder / "report").mkdir()
    (folder / "report" / "report.md").write_text(REPORT)

    arms = (arm("none"), arm("sam", RATE, penalty={"sam": {}}))
    searching = _plan("rates", "20260312-180000", arms, search=Search(trials=20))
    _search(store, searching)

    broken = _plan("from-the-cluster", "20260311-080000", (arm("none"),))
    folder = _study(store, broken, 80 * HOUR, "failed", message="failed for good: from-the-cluster-none-s1")
    (folder / "study.json").write_text('{"name": "from-the-clu')


def study_folder(root: Path, name: str) -> Path:
    return next(path for path in (root / ".studies").iterdir() if name in path.name)


def _plan(name: str, stamp: str, arms: tuple[ArmPlan, ...], seeds: Any = (0, 1), **changes: Any) -> StudyPlan:
    return StudyPlan(name=name, stamp=stamp, seeds=tuple(seeds), arms=arms, reference="none", **changes)


def _sweep(store: RunStore, plan: StudyPlan) -> None:
    """Arm after arm, as a scheduler gets on: the first have finished, the last point is to come."""
    for cell in plan.grid():
        point = " ".join([cell.arm, *(f"{value:g}" for value in cell.point.values())])
        state = STATES.get((point, cell.seed), "finished")
        if point != "gsam 2":
            _run(store, plan, cell, round(DONE[cell.seed] - GAIN[point], 4), state)


def _search(store: RunStore, plan: StudyPlan) -> None:
    points = [{RATE.key: rate} for rate in (0.0003162, 0.004217, 0.00001334, 0.001, 0.0007499)]
    losses = iter((0.3901, 0.3987, 0.5210, 0.5344, 1.8, 2.1, 0.3644, 0.3702, 0.3811))
    for cell in [*plan.cells_of(plan.arms[0], [{}]), *plan.cells_of(plan.arms[1], points)]:
        value = next(losses, None)
        _run(store, plan, cell, value or 0.0, "finished" if value else "stopped")
    folder = _study(store, plan, 45 * HOUR, "stopped", message="")
    (folder / "trials.json").write_text(json.dumps({"sam": points}))


def _run(store: RunStore, plan: StudyPlan, cell: Cell, value: float, state: str = "finished") -> None:
    """The run of a cell, as a worker leaves it."""
    step = {"finished": 100, "queued": 0, "paused": 64, "running": 40 + 7 * cell.seed}.get(state, 81)
    made = store.create(cell.preset, run_id=cell.run_id(plan.stamp))
    made.append([{"step": 0, "validation_loss": 2.3}, {"step": step, "validation_loss": value}])
    message = MESSAGES.get(state, "")
    made.set_status(state="running" if state == "crashed" else state, step=step, total=100, message=message)
    made._close_metrics()
    gone = {"pid": NOBODY, "process_started": 1.0} if state == "crashed" else {}
    eta_s = 600.0 if state == "running" else None
    change_json(made.path / "status.json", heartbeat=NOW * 2, eta_s=eta_s, **gone)  # never silent


def _study(
    store: RunStore,
    plan: StudyPlan,
    age_s: float,
    state: str,
    *,
    message: str,
    eta_s: float | None = None,
    log: str = "",
) -> Path:
    started = StudyJob.start(store.root, plan)
    started.set_status(state=state, step=1, total=2, message=message)
    change_json(started.path / "status.json", heartbeat=NOW * 2, eta_s=eta_s)
    (started.path / "log.txt").write_text(log)
    return date(started.path, f"{plan.stamp}-{plan.name}-s7d3", age_s + MINUTE)
