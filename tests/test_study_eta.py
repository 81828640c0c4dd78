"""How long a study will still take: what its pieces have taken, kind by kind."""

from __future__ import annotations

import json
import time

import pytest
from reporting import MLP, Level, Study, plain, sam

from engine.study.plan.plan import Cell, TransferSpec
from engine.study.plan.snapshot import look_at
from engine.study.schedule.attempts import EtaEstimator

HOUR = 3600.0  # a run's log tells of (reporting.LOG)


def study(root) -> Study:
    return Study(root, [plain(), sam()], {}, changes={"transfer": TransferSpec(to=(MLP,), untrained=False)})


def run_on(made: Study, cell: Cell, elapsed: float, eta: float) -> None:
    """A run at work, by its own word half done."""
    path = made.run(cell)
    status = {"state": "running", "step": 50, "total": 100, "host": "elsewhere", "heartbeat": time.time()}
    (path / "status.json").write_text(json.dumps(status | {"process_started": time.time() - elapsed, "eta_s": eta}))


def test_nothing_is_said_before_anything_is_known(tmp_path):
    assert EtaEstimator().eta(look_at(study(tmp_path).folder)) is None


def test_what_was_taken_tells_of_the_rest_arm_by_arm(tmp_path):
    """Five runs of an hour are done; of the slower arm one is halfway through two; ten transfers are to come."""
    made = study(tmp_path)
    slow = [cell for cell in made.plan.grid() if cell.arm == "sam"]
    for cell in made.plan.grid():
        if cell.arm == "none":
            made.run(cell)
    run_on(made, slow[0], elapsed=HOUR, eta=HOUR)
    runs, transfers = HOUR + 4 * 2 * HOUR, 10 * (5 * HOUR + 2 * HOUR) / 6
    assert EtaEstimator().eta(look_at(made.folder)) == pytest.approx(runs + transfers, rel=1e-3)
    run_on(made, slow[1], elapsed=HOUR, eta=HOUR)
    runs, transfers = 2 * HOUR + 3 * 2 * HOUR, 10 * (5 * HOUR + 4 * HOUR) / 7
    assert EtaEstimator().eta(look_at(made.folder)) == pytest.approx((runs + transfers) / 2, rel=1e-3)


def test_a_study_takes_at_least_as_long_as_its_slowest_run(tmp_path):
    made = study(tmp_path).finish()
    first, second = made.plan.grid()[:2]
    for cell, eta in ((first, 60.0), (second, 9 * HOUR)):
        path = made.store / cell.run_id(made.plan.stamp)
        status = {"state": "running", "step": 50, "total": 100, "host": "elsewhere", "heartbeat": time.time()}
        (path / "status.json").write_text(json.dumps(status | {"process_started": time.time(), "eta_s": eta}))
    assert EtaEstimator().eta(look_at(made.folder)) == pytest.approx(9 * HOUR, rel=1e-3)


def test_transfers_take_what_transfers_took(tmp_path):
    levels = {"none": {MLP: Level()}, "sam": {MLP: Level()}}
    made = Study(tmp_path, [plain(), sam()], levels).finish()
    jobs = look_at(made.folder).transfers
    for job in jobs:
        (job.run.path / "log.txt").write_text("2026-11-20T21:15:00Z process 7: x\n2026-11-20T21:16:00Z finished\n")
    (jobs[-1].run.path / "run.json").unlink()
    assert EtaEstimator().eta(look_at(made.folder)) == pytest.approx(60.0)
