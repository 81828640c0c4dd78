"""Which of several evaluations of the same thing counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from reporting import MLP, SEEDS, Level, Study, evaluation, plain, sam

from engine.study.report.evidence import HEADLINE, gather

LATER = "2026-11-21T10:00:00Z"


@pytest.mark.parametrize(
    ("seeds", "facts", "accuracy", "n"),
    [
        (SEEDS[:1], {}, 0.9, 5),
        (SEEDS, {}, 0.7, 5),
        (SEEDS[:1], {"digest": "of other meta-parameters"}, 0.7, 1),
    ],
)
def test_a_later_look_at_fewer_optimizees_takes_nothing_away(tmp_path: Path, seeds, facts, accuracy, n) -> None:
    """`lreg transfer --seeds 1` by hand on a winner's run must not change the report of the study."""
    study = Study(tmp_path, [plain(), sam()], {"none": {MLP: Level()}, "sam": {MLP: Level()}}).finish()
    run = study.runs_of("sam")[0]
    (own,) = (run / "transfer").iterdir()
    own.unlink()
    study.put(run, evaluation(MLP, Level(0.9), digest="of the winner"))
    later = evaluation(MLP, Level(0.7), created=LATER, **{"digest": "of the winner", **facts})
    study.put(run, {**later, "seeds": [seed for seed in later["seeds"] if seed["seed"] in seeds]})

    found = gather(study.plan, study.folder)
    outcomes = found.tasks[MLP].main(found.arms["sam"]).at(100)[0]
    assert len(outcomes) == n
    assert outcomes[0].metrics[found.metric_at(MLP, HEADLINE)] == pytest.approx(accuracy)
