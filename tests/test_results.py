"""Means, intervals and the result table."""

from __future__ import annotations

import math

import pytest
from fakes import FakeTrainer, preset

from engine.runs.results import Mean, mean, rows


def test_the_interval_is_students(tmp_path):
    """For 1, 2, 3, 4: mean 2.5, s = sqrt(5/3), t(3, 0.975) = 3.182446."""
    found = mean([1.0, 2.0, 3.0, 4.0])
    assert found.mean == 2.5 and found.n == 4
    assert found.ci95 == pytest.approx(3.1824463 * math.sqrt(5 / 3) / 2, rel=1e-7)


def test_edges_of_the_mean():
    assert mean([]) == Mean(None, None, 0)
    assert mean([None, math.nan, math.inf]) == Mean(None, None, 0)
    assert mean([3.0, None]) == Mean(3.0, None, 1)
    assert mean([2.0, 2.0]) == Mean(2.0, 0.0, 2)


def test_rows_put_learned_optimizers_first_and_take_the_wanted_radius():
    evaluations = FakeTrainer(preset(), device=None).result(lambda text: None)
    found = rows(reversed(evaluations), radius=0.05)
    assert [row["label"] for row in found] == ["dm (best)", "dm (untrained)", "sgd"]
    assert found[0]["sharpness"] == {"mean": pytest.approx(0.02), "ci95": pytest.approx(0.0), "n": 3, "radius": "0.05"}
    assert found[0]["train_loss"]["mean"] == pytest.approx(0.51) and found[2]["learning_rate"] == 0.1
    assert rows(evaluations, radius=0.7)[0]["sharpness"]["radius"] == "0.05"  # not measured: the middle one


def test_diverged_seeds_are_counted_not_averaged():
    seeds = [
        {"seed": 0, "diverged": False, "marks": [{"inner_step": 5, "train_loss": 1.0, "sharpness": {}}]},
        {"seed": 1, "diverged": True, "marks": [{"inner_step": 5, "train_loss": None, "sharpness": {"0.1": None}}]},
        {"seed": 2, "diverged": True, "marks": []},
    ]
    (row,) = rows([{"optimizer": "dm", "seeds": seeds}])
    assert (row["seeds"], row["diverged"], row["train_loss"]["n"], row["train_loss"]["mean"]) == (3, 2, 1, 1.0)


@pytest.mark.parametrize(
    "evaluation",
    [
        {},
        {"seeds": 3},
        {"seeds": [1, None, {"marks": "x"}]},
        {"seeds": [{"marks": [{"inner_step": "5"}, {"inner_step": 5, "train_loss": "low", "sharpness": [1]}]}]},
        {"seeds": [{"marks": [{"inner_step": 5, "train_loss": 10**400, "sharpness": {"x": 1}}]}], "checkpoint": []},
    ],
)
def test_files_from_strangers_make_no_trouble(evaluation):
    for row in rows([evaluation]):
        assert row["train_loss"]["mean"] is None
