"""Grid search of baselines on digits, against one training at a time."""

from __future__ import annotations

import dataclasses
import math
import statistics

import pytest
import torch

from engine.base import seeds
from engine.evaluation import optimizer_source, tuning
from engine.evaluation.frozen_unroll import frozen_unroll
from engine.evaluation.optimizer_source import TunedBaseline, source_of
from engine.evaluation.transfer_plan import Planned, Protocol
from engine.evaluation.tuning import TunedSettings, tune, validation_losses
from engine.optimizers.baselines import BASELINES, LEARNING_RATES
from engine.tasks.base import Task
from engine.tasks.table import build_task

NUMBERS = range(2)


@pytest.fixture(scope="module")
def task() -> Task:
    return build_task(
        {"dataset": "digits", "optimizee": "mlp", "hidden": [8], "batch_size": 32}, device=torch.device("cpu")
    )


def trained_alone(task, baseline, values, number, steps) -> float:
    """Validation loss of one optimizee."""
    phi = {name: torch.tensor([[value]]) for name, value in values.items()}
    seed_list = [seeds.derive(number, "tuning")]
    *_, last = frozen_unroll(task, baseline, phi, seed_list, steps)
    return float(task.metrics(last.theta[0], "validation")["loss"])


def one_by_one(task, baseline, values, numbers, steps) -> float:
    """Mean validation loss of optimizees that are trained alone."""
    return statistics.fmean(trained_alone(task, baseline, values, number, steps) for number in numbers)


def test_the_learning_rate_is_the_best_of_the_grid_on_validation(task):
    tuned = tune(task, BASELINES["sgd"], NUMBERS, 40)
    losses = {rate: one_by_one(task, BASELINES["sgd"], {"learning_rate": rate}, NUMBERS, 40) for rate in LEARNING_RATES}
    assert losses[tuned.values["learning_rate"]] == pytest.approx(min(losses.values()), rel=1e-3)
    assert list(tuned.values) == ["learning_rate"]


def test_one_setting_after_the_other(task):
    """The learning rate at the default rho and alpha, then rho at that learning rate, then alpha at both."""
    baseline = dataclasses.replace(
        BASELINES["gsam-sgdm"],
        grid={"learning_rate": (0.1, 0.3, 1.0), "rho": (0.02, 0.1, 1.0), "alpha": (4.0, 1.0, 0.0)},
        default={"learning_rate": 0.03, "rho": 0.1, "alpha": 1.0},
    )
    expected = dict(baseline.default)
    for name, grid in baseline.grid.items():
        losses = [one_by_one(task, baseline, {**expected, name: value}, NUMBERS, 80) for value in grid]
        assert sorted(losses)[1] > 1.01 * sorted(losses)[0]  # no tie, so rounding cannot decide
        expected[name] = grid[losses.index(min(losses))]
    tuned = tune(task, baseline, NUMBERS, 80)
    assert tuned.values == expected == {"learning_rate": 0.3, "rho": 0.02, "alpha": 0.0}
    assert tuned.at_edge == ("rho", "alpha")


@pytest.mark.parametrize(("name", "step"), [("sgd", 12), ("sam-sgdm", 6), ("gam-sgdm", 3)])
def test_settings_are_chosen_for_the_step_at_which_a_baseline_is_compared(task, monkeypatch, name, step):
    """That is where it has had as many passes as the others at their last: after 12 steps of SAM it would have 24."""
    steps = []

    def tuned(task, baseline, numbers, inner_steps, **how):
        steps.append(inner_steps)
        return TunedSettings(dict(baseline.default), ())

    monkeypatch.setattr(optimizer_source, "tune", tuned)
    source = source_of(Planned({}, Protocol(12, (0.05,), 20, 1, 1, "float32", False, ()), optimizer=name))
    assert isinstance(source, TunedBaseline)
    chosen = source.prepare(task, {}, tick=lambda: None, report=lambda text, share: None)
    (found,) = source.evaluate([source.item], task, [0], chosen, tick=lambda: None, report=lambda text, share: None)
    assert (steps, found["tuned_at"]) == ([step], step)
    assert [mark["inner_step"] for mark in found["seeds"][0]["marks"]] == sorted({step, 12})


def test_a_best_value_at_an_end_of_the_grid_is_told(task):
    sgd = BASELINES["sgd"]
    low, middle = (
        dataclasses.replace(sgd, grid={"learning_rate": grid}) for grid in ((1e-3, 1e-2), (1e-3, 0.3, 100.0))
    )
    assert tune(task, low, NUMBERS, 20).at_edge == ("learning_rate",)
    assert tune(task, middle, NUMBERS, 20).at_edge == ()


def test_how_far_it_is_is_told(task):
    told = []
    tune(task, BASELINES["sam-sgdm"], NUMBERS, 100, report=lambda text, share: told.append((text, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares) and shares[0] < 0.3 and shares[-1] == 1
    assert "learning rate" in told[0][0] and "rho" in told[-1][0] and "100%" in told[-1][0]


def test_what_diverges_is_worst(task):
    """Losses that are not finite are never chosen, also NaN, which a plain minimum would take."""
    sgdm = dataclasses.replace(BASELINES["sgdm"], grid={"learning_rate": (3e38, 1e-3, 1e30)})
    assert math.isnan(trained_alone(task, sgdm, {"learning_rate": 3e38}, 0, 9))
    candidates = [{"learning_rate": rate} for rate in sgdm.grid["learning_rate"]]
    losses = validation_losses(task, sgdm, candidates, NUMBERS, 9)
    assert losses[0].isinf() and losses[1].isfinite() and losses[2] > losses[1]
    assert tune(task, sgdm, NUMBERS, 9).values == {"learning_rate": 1e-3}


def test_portions_change_nothing(task, monkeypatch):
    candidates = [{"learning_rate": rate, "rho": 0.1} for rate in (0.01, 0.1, 0.3)]
    numbers = range(3)
    whole = validation_losses(task, BASELINES["sam-adam"], candidates, numbers, 10)
    for portion in (1, 7):  # below the optimizees of one candidate, and two candidates with a rest
        monkeypatch.setattr(tuning, "CPU_AT_ONCE", portion)
        parts = validation_losses(task, BASELINES["sam-adam"], candidates, numbers, 10)
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    alone = [one_by_one(task, BASELINES["sam-adam"], candidate, numbers, 10) for candidate in candidates]
    assert whole.tolist() == pytest.approx(alone, rel=1e-4)


def test_the_test_set_and_its_optimizees_are_not_looked_at(task, monkeypatch):
    splits, starts = set(), set()
    metrics, init_theta = task.metrics_of_each, task.init_theta
    monkeypatch.setattr(task, "metrics_of_each", lambda theta, split: splits.add(split) or metrics(theta, split))
    monkeypatch.setattr(task, "init_theta", lambda seed: starts.add(seed) or init_theta(seed))
    tune(task, BASELINES["sgd"], NUMBERS, 2)
    assert splits == {"validation"}
    assert starts == {seeds.derive(seeds.derive(number, "tuning"), "theta") for number in NUMBERS}


def test_tuning_can_be_interrupted(task):
    class Enough(Exception):
        pass

    calls = []

    def tick() -> None:
        calls.append(1)
        if len(calls) == 30:
            raise Enough

    with pytest.raises(Enough):
        tune(task, BASELINES["sgd"], NUMBERS, 20, tick)


@pytest.mark.parametrize(("numbers", "steps"), [([], 5), ([0], 0)])
def test_nothing_to_tune_on_is_refused(task, numbers, steps):
    with pytest.raises(ValueError, match="tuning needs"):
        tune(task, BASELINES["sgd"], numbers, steps)
