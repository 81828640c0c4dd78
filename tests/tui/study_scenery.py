"""A study that is the same at every time, on every machine, for a picture of its screen: files alone, no processes.

Import it as `tui.study_scenery`.
"""

from __future__ import annotations

from pathlib import Path

from studying import arm, transfers
from tui.driving import NOBODY, change_json
from tui.scenery import HOUR, MINUTE, NOW, date

from engine.runs.store import RunStore
from engine.study.plan.plan import Cell, StudyAxis, StudyPlan
from engine.study.schedule.loop import StudyJob

RHO = StudyAxis("penalty.sam.rho", values=(0.01, 0.05, 0.1))
WEIGHT = StudyAxis("penalty.gsam.weight", values=(0.5, 2.0))
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


def fill(root: Path) -> None:
    """A study at work with a run in every state: arm after arm, the first have finished, the last point is to come."""
    store = RunStore(root)
    arms = (arm("none"), arm("sam", RHO, penalty={"sam": {}}), arm("gsam", WEIGHT, penalty={"gsam": {}}))
    plan = StudyPlan(
        name="rho-sweep",
        stamp="20260314-110000",
        seeds=tuple(range(5)),
        arms=arms,
        reference="none",
        transfer=transfers(),
    )
    for cell in plan.grid():
        point = " ".join([cell.arm, *(f"{value:g}" for value in cell.point.values())])
        if point != "gsam 2":
            state = STATES.get((point, cell.seed), "finished")
            _run(store, plan, cell, round(DONE[cell.seed] - GAIN[point], 4), state)
    started = StudyJob.start(root, plan)
    message = "18 of 30 runs, 0 of 5 transfers, 2 running, 1 failed for good"
    started.set_status(state="running", step=1, total=2, message=message)
    change_json(started.path / "status.json", heartbeat=NOW * 2, eta_s=5400.0)  # never silent
    (started.path / "log.txt").write_text(LOG)
    date(started.path, f"{plan.stamp}-{plan.name}-s7d3", 4 * HOUR + MINUTE)


def study_folder(root: Path) -> Path:
    (path,) = (root / ".studies").iterdir()
    return path


def _run(store: RunStore, plan: StudyPlan, cell: Cell, value: float, state: str) -> None:
    """The run of a cell, as a worker leaves it."""
    step = {"finished": 100, "queued": 0, "paused": 64, "running": 40 + 7 * cell.seed}.get(state, 81)
    made = store.create(cell.preset, run_id=cell.run_id(plan.stamp))
    made.append([{"step": 0, "validation_loss": 2.3}, {"step": step, "validation_loss": value}])
    message = MESSAGES.get(state, "")
    made.set_status(state="running" if state == "crashed" else state, step=step, total=100, message=message)
    made._close_metrics()
    gone = {"pid": NOBODY, "process_started": 1.0} if state == "crashed" else {}
    eta_s = 600.0 if state == "running" else None
    change_json(made.path / "status.json", heartbeat=NOW * 2, eta_s=eta_s, **gone)
