"""Runs that got differently far in a curriculum are compared where all of them were evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from reporting import Study, plain, sam
from studying import RATES, arm

from engine.runs.reader import RunReader
from engine.runs.results import by_horizon, common_horizon
from engine.study.plan.plan import Cell, StudyAxis
from engine.study.plan.snapshot import Watcher
from engine.study.report.claim import NOT_FOUND, SUPPORTED
from engine.study.report.evidence import gather
from engine.study.report.report import claims

RHO = "penalty.sam.rho"
Evaluations = list[tuple[int, float]]  # inner steps, value


def with_records(root: Path, arms: list, of: Callable[[Cell], Evaluations], metric: str, **changes) -> Study:
    """A finished study with such evaluations in its runs, one after another."""
    made = Study(root, arms, changes=changes)
    for cell in made.plan.grid():
        lines = [
            {"step": step, "validation_loss": 0.5, metric: value, "evaluated_steps": steps}
            for step, (steps, value) in enumerate(of(cell))
        ]
        (made.run(cell) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    made.transfer()
    return made


@pytest.mark.parametrize(
    ("a", "b", "values"),
    [
        ([(200, 0.30), (500, 5.0)], [(200, 0.35), (500, 0.34), (1000, 0.5), (1500, 0.33)], (5.0, 0.34)),
        ([(200, 0.30), (500, 5.0)], [(1500, 0.33)], (5.0, 0.33)),
        ([(200, 0.40), (200, 0.30), (200, 0.32)], [(200, 0.29), (500, 0.6)], (0.30, 0.29)),
        ([(100, 0.31)], [(100, 0.30)], (0.31, 0.30)),
    ],
)
def test_the_winner_is_the_best_where_all_candidates_of_the_arm_were_evaluated(tmp_path, a, b, values):
    """Few steps are won by whoever begins well, and losses on few steps are not those on many."""

    def of(cell: Cell) -> Evaluations:
        return {1e-3: a, 1e-2: b}.get(cell.point.get("meta.learning_rate"), [(50, 0.1)])

    arms = [plain(), arm("sam", RATES, penalty={"sam": {}})]
    made = with_records(tmp_path, arms, of, "validation_loss")
    seen = Watcher(made.plan, made.folder).look()
    assert seen.winners["sam"].point == {"meta.learning_rate": 1e-2}
    assert [item.value for item in seen.candidates if item.arm == "sam"] == pytest.approx(values)
    assert seen.winners["none"].value == pytest.approx(0.1), "other arms are no matter"


def test_the_newest_value_may_be_asked_for_as_well(tmp_path):
    lines = [(200, 0.3), (200, 0.4), (500, 0.6), (500, None)]
    text = "".join(json.dumps({"step": 1, "validation_loss": v, "evaluated_steps": n}) + "\n" for n, v in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 2, "meta_loss": 1.0}\n{"step": 3, "validation_')
    assert by_horizon(RunReader(tmp_path), "validation_loss") == {200: 0.4, 500: None}
    assert by_horizon(RunReader(tmp_path), "best_validation_loss") == {200: 0.3, 500: 0.6}
    assert common_horizon([{200: 1.0, 500: 2.0}, {}, {500: 1.0, 200: 3.0}]) == 500
    assert common_horizon([{200: 1.0}, {500: 1.0}]) is None is common_horizon([])


def test_the_sweep_of_rho_is_decided_where_all_of_the_axis_were_evaluated(tmp_path):
    at_200 = {0.001: 0.3, 0.01: 0.1, 0.1: 0.2}

    def of(cell: Cell) -> Evaluations:
        rho = cell.point.get(RHO)
        own = at_200.get(rho, 1.0) * (1 + 0.1 * cell.seed)
        return [(200, own), (500, 9.0 * own)] if rho == 0.01 else [(200, own)]

    arms = [plain(), sam("sam", StudyAxis(RHO, values=tuple(at_200)))]
    made = with_records(tmp_path, arms, of, "sharpness", report={"paper": "lr"})
    found = claims(gather(made.plan, made.folder))
    (claim,) = [claim for group in found.values() for claim in group if claim.name == "C7"]
    assert claim.verdict == SUPPORTED


def test_so_is_the_spread_over_meta_seeds(tmp_path):
    """Losses over more steps may well be further apart: that is no sign of instability."""

    def of(cell: Cell) -> Evaluations:
        own = 0.3 + 0.01 * cell.seed
        return [(200, own)] if cell.arm == "none" else [(200, own), (500, 0.01 + 0.05 * cell.seed)]

    arms = [plain(), plain("smooth", penalty={"smooth": {}})]
    made = with_records(tmp_path, arms, of, "validation_loss", report={"paper": "lr"})
    found = claims(gather(made.plan, made.folder))
    (claim,) = [claim for group in found.values() for claim in group if claim.name == "C8"]
    assert [finding.word for finding in claim.findings] == [NOT_FOUND]
