"""Frozen evaluation on digits: pairing, tuning, divergence."""

from __future__ import annotations

import json
import statistics

import pytest
import torch

from engine import seeds
from engine.baselines import BASELINES, LEARNING_RATES, SGD, Adam
from engine.learned_optimizers.base import LEARNED_OPTIMIZERS
from engine.tasks import Task
from engine.transfer import ProbeSettings, curve_points, evaluate, frozen_unroll, tune_learning_rate

CPU = torch.device("cpu")
QUICK = ProbeSettings(radii=(0.05,), examples=50, restarts=1, ascent_steps=2)


@pytest.fixture(scope="module")
def task() -> Task:
    return Task({"dataset": "digits", "optimizee": "mlp", "hidden": [8], "batch_size": 32}, device=CPU)


def rate(value: float) -> dict[str, torch.Tensor]:
    return {"learning_rate": torch.tensor([[value]])}


def last(iterator) -> torch.Tensor:
    return list(iterator)[-1][1]


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_baselines_are_torchs(name):
    """Seven steps of ours and of torch.optim's from the same parameters on the same batches, in float64."""
    task = Task({"dataset": "digits", "optimizee": "mlp", "hidden": [8]}, device=CPU, dtype=torch.float64)
    ours = last(frozen_unroll(task, BASELINES[name], {"learning_rate": torch.tensor([[0.02]]).double()}, [3], 7))
    theta = task.init_theta(seeds.derive(3, "theta")).requires_grad_()
    optimizer = (torch.optim.SGD if name == "sgd" else torch.optim.Adam)([theta], lr=float(torch.tensor(0.02)))
    window = task.stream([seeds.derive(3, "batches")]).draw(7)
    for step in range(7):
        optimizer.zero_grad()
        task.loss(theta, window[step].of(0)).backward()
        optimizer.step()
    torch.testing.assert_close(ours[0], theta.detach(), rtol=1e-10, atol=1e-12)


def test_an_optimizee_depends_on_its_own_seed_only(task):
    rule = LEARNED_OPTIMIZERS.create("simple")
    phi = rule.init_phi(torch.Generator().manual_seed(2))
    together = last(frozen_unroll(task, rule, phi, [5, 6, 7], 60))
    alone = last(frozen_unroll(task, rule, phi, [6], 60))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_every_optimizer_meets_the_same_optimizees(task):
    """Pairing: equal starts whatever the optimizer, other ones for another purpose."""
    sgd = evaluate(task, SGD(), rate(0.1), range(3), 5, QUICK)["seeds"]
    adam = evaluate(task, Adam(), rate(0.01), range(3), 5, QUICK)["seeds"]
    other = evaluate(task, SGD(), rate(0.1), range(3), 5, QUICK, purpose="validation")["seeds"]
    starts = [[seed["curve"]["train_loss"][0] for seed in outcome] for outcome in (sgd, adam, other)]
    assert starts[0] == starts[1] != starts[2]
    assert sgd[0]["marks"] != adam[0]["marks"]


def test_figures_of_an_evaluation(task):
    outcome = evaluate(task, SGD(), rate(1.0), range(2), 60, QUICK)
    json.dumps(outcome, allow_nan=False)
    for seed in outcome["seeds"]:
        curve, mark = seed["curve"], seed["marks"][-1]
        assert curve["inner_step"] == [0, 1, 2, 5, 10, 20, 50, 60]
        assert curve["train_loss"][-1] == pytest.approx(mark["train_loss"], rel=1e-4)
        assert mark["train_loss"] < curve["train_loss"][0] and not seed["diverged"]
        assert mark["sharpness"]["0.05"] >= mark["surrogate_gap"]["0.05"] > 0
        assert mark["max_grad_norm"]["0.05"] >= mark["grad_norm"] > 0
        assert 0.1 < mark["test_accuracy"] <= 1 and mark["parameter_norm"] > 0
    assert outcome["task"] == {"dataset": "digits", "optimizee": "mlp", "batch_size": 32}


def test_a_diverged_optimizee_is_marked_and_its_figures_are_null(task):
    outcome = evaluate(task, SGD(), rate(1e39), range(2), 5, QUICK)
    json.dumps(outcome, allow_nan=False)
    for seed in outcome["seeds"]:
        assert seed["diverged"] and seed["marks"][-1]["train_loss"] is None
        assert seed["marks"][-1]["sharpness"] == {}


def test_the_tuned_learning_rate_is_the_best_of_the_grid_on_validation(task):
    numbers = range(2)
    chosen = tune_learning_rate(task, SGD(), numbers, 40)

    def validation_loss(value: float) -> float:
        seed_list = [seeds.derive(number, "tuning") for number in numbers]
        theta = last(frozen_unroll(task, SGD(), rate(value), seed_list, 40))
        return statistics.fmean(task.evaluate(theta, "validation")[0].tolist())

    losses = {value: validation_loss(value) for value in LEARNING_RATES}
    assert losses[chosen] == pytest.approx(min(losses.values()), rel=1e-3)
    assert len(LEARNING_RATES) == 9 and LEARNING_RATES[0] == 1e-4 and LEARNING_RATES[-1] == 1.0


def test_an_evaluation_can_be_interrupted(task):
    class Enough(Exception):
        pass

    def tick() -> None:
        raise Enough

    with pytest.raises(Enough):
        evaluate(task, SGD(), rate(0.1), range(2), 5, QUICK, tick=tick)


@pytest.mark.parametrize(("steps", "points"), [(1, [0, 1]), (7, [0, 1, 2, 5, 7]), (20, [0, 1, 2, 5, 10, 20])])
def test_curve_points(steps, points):
    assert curve_points(steps) == points
