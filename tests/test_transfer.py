"""Frozen evaluation on digits: pairing, tuning, divergence."""

from __future__ import annotations

import json

import pytest
import torch

from engine.base import seeds
from engine.evaluation.frozen_unroll import UpdateChange, frozen_unroll
from engine.evaluation.transfer import ProbeSettings, curve_points, evaluate, evaluate_baseline, evaluate_each
from engine.optimizers.baselines import BASELINES
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS
from engine.tasks.base import Task
from engine.tasks.table import build_task

CPU = torch.device("cpu")
SGD, ADAM = BASELINES["sgd"], BASELINES["adam"]
QUICK = ProbeSettings(radii=(0.05,), examples=50, restarts=1, ascent_steps=2)


@pytest.fixture(scope="module")
def task() -> Task:
    return build_task({"dataset": "digits", "optimizee": "mlp", "hidden": [8], "batch_size": 32}, device=CPU)


def rate(value: float) -> dict[str, torch.Tensor]:
    return {"learning_rate": torch.tensor([[value]])}


def last(iterator) -> torch.Tensor:
    return list(iterator)[-1][1]


def test_an_optimizee_depends_on_its_own_seed_only(task):
    rule = LEARNED_OPTIMIZERS.create("simple")
    phi = rule.init_phi(torch.Generator().manual_seed(2))
    together = last(frozen_unroll(task, rule, phi, [5, 6, 7], 60))
    alone = last(frozen_unroll(task, rule, phi, [6], 60))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_every_optimizer_meets_the_same_optimizees(task):
    """Pairing: equal starts whatever the optimizer, other ones for another purpose."""
    sgd = evaluate(task, SGD, rate(0.1), range(3), 5, QUICK)["seeds"]
    adam = evaluate(task, ADAM, rate(0.01), range(3), 5, QUICK)["seeds"]
    other = evaluate(task, SGD, rate(0.1), range(3), 5, QUICK, purpose="validation")["seeds"]
    starts = [[seed["curve"]["train_loss"][0] for seed in outcome] for outcome in (sgd, adam, other)]
    assert starts[0] == starts[1] != starts[2]
    assert sgd[0]["marks"] != adam[0]["marks"]


def test_figures_of_an_evaluation(task):
    outcome = evaluate(task, SGD, rate(1.0), range(2), 60, QUICK)
    json.dumps(outcome, allow_nan=False)
    for seed in outcome["seeds"]:
        curve, mark = seed["curve"], seed["marks"][-1]
        assert curve["inner_step"] == [0, 1, 2, 5, 10, 20, 50, 60]
        assert curve["train_loss"][-1] == pytest.approx(mark["train_loss"], rel=1e-4)
        assert mark["train_loss"] < curve["train_loss"][0] and not seed["diverged"]
        assert mark["sharpness"]["0.05"] >= mark["surrogate_gap"]["0.05"] > 0
        assert mark["max_grad_norm"]["0.05"] >= mark["grad_norm"] > 0
        assert 0.1 < mark["test_accuracy"] <= 1 and mark["parameter_norm"] > 0
    assert outcome["task"] == {"dataset": "digits", "optimizee": "mlp", "batch_size": 32, "hidden": (8,)}


def test_a_diverged_optimizee_is_marked_and_its_figures_are_null(task):
    outcome = evaluate(task, SGD, rate(1e39), range(2), 5, QUICK)
    json.dumps(outcome, allow_nan=False)
    for seed in outcome["seeds"]:
        assert seed["diverged"] and seed["marks"][-1]["train_loss"] is None
        assert seed["marks"][-1]["sharpness"] == {}


def test_marks_along_the_way_are_those_of_shorter_evaluations(task):
    """What is measured at step 20 of 60 is what an evaluation of 20 steps ends with."""
    long = evaluate(task, SGD, rate(1.0), range(2), 60, QUICK, marks=(0, 20))["seeds"]
    short = evaluate(task, SGD, rate(1.0), range(2), 20, QUICK)["seeds"]
    for long_seed, short_seed in zip(long, short, strict=True):
        assert [mark["inner_step"] for mark in long_seed["marks"]] == [0, 20, 60]
        before, after = long_seed["marks"][1], short_seed["marks"][0]
        assert before["sharpness"] == pytest.approx(after["sharpness"], rel=1e-6) and before.keys() == after.keys()
        assert before["test_loss"] == pytest.approx(after["test_loss"], rel=1e-6)


def test_a_scale_multiplies_every_update(task):
    """SGD scaled by 3 is SGD with three times the learning rate."""
    scaled = last(frozen_unroll(task, SGD, rate(0.1), [1, 2], 20, changes=[UpdateChange(3.0)]))
    torch.testing.assert_close(scaled, last(frozen_unroll(task, SGD, rate(0.3), [1, 2], 20)), rtol=1e-4, atol=1e-6)


def test_weight_decay_is_a_constant_part_of_theta_at_every_step_whatever_the_scale(task):
    """Without updates theta shrinks as (1 - decay)^t; with SGD's, torch's own steps say where it goes."""
    start = last(frozen_unroll(task, SGD, rate(0.1), [1, 2], 0))
    still = last(frozen_unroll(task, SGD, rate(0.0), [1, 2], 20, changes=[UpdateChange(3.0, 0.1)]))
    torch.testing.assert_close(still, 0.9**20 * start)
    stream = task.batches([seeds.derive(seed, "batches") for seed in (1, 2)], "train")
    theta = start.clone()
    for batch in stream.draw(20):
        losses = [task.loss(row, [part[k] for part in batch]) for k, row in enumerate(theta.requires_grad_())]
        (grad,) = torch.autograd.grad(sum(losses), theta)
        theta = (theta - 3.0 * 0.1 * grad - 0.01 * theta).detach()
    decayed = last(frozen_unroll(task, SGD, rate(0.1), [1, 2], 20, changes=[UpdateChange(3.0, 0.01)]))
    torch.testing.assert_close(decayed, theta, rtol=1e-4, atol=1e-6)


def test_a_grid_side_by_side_is_its_points_one_by_one(task):
    rule = LEARNED_OPTIMIZERS.create("simple")
    phi = rule.init_phi(torch.Generator().manual_seed(2))
    grid = [UpdateChange(scale, decay) for decay in (0.0, 1e-2) for scale in (0.5, 1.0, 2.0)]
    together = last(frozen_unroll(task, rule, phi, [5, 6], 30, changes=grid)).view(6, 2, -1)
    for point, change in zip(together, grid, strict=True):
        alone = last(frozen_unroll(task, rule, phi, [5, 6], 30, changes=[change]))
        torch.testing.assert_close(point, alone, rtol=1e-4, atol=1e-5)
    each = evaluate_each(task, rule, phi, [5, 6], 30, QUICK, changes=grid)
    alone = evaluate(task, rule, phi, [5, 6], 30, QUICK, changes=grid[4:5])
    assert [seed["seed"] for seed in each[4]["seeds"]] == [5, 6]
    for mine, its in zip(each[4]["seeds"], alone["seeds"], strict=True):
        assert mine["marks"][-1]["train_loss"] == pytest.approx(its["marks"][-1]["train_loss"], rel=1e-4)


def test_sam_shows_the_learned_optimizer_the_gradient_up_the_hill(task):
    rule = LEARNED_OPTIMIZERS.create("simple")
    phi = rule.init_phi(torch.Generator().manual_seed(2))
    theta = last(frozen_unroll(task, rule, phi, [5], 0))[0]
    state, stream = rule.init(theta, task.layout), task.batches([seeds.derive(5, "batches")], "train")

    def gradient(point, batch):
        point = point.clone().requires_grad_()
        return torch.autograd.grad(task.loss(point, [part[0] for part in batch]), point)[0]

    for batch in stream.draw(10):
        plain = gradient(theta, batch)
        uphill = gradient(theta + 0.3 * plain / plain.norm(), batch)
        with torch.no_grad():
            update, state = rule.update(phi, theta, uphill, state, task.layout)
        theta = theta + update
    torch.testing.assert_close(last(frozen_unroll(task, rule, phi, [5], 10, sam=0.3))[0], theta, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="found sgd"):
        last(frozen_unroll(task, SGD, rate(0.1), [5], 1, sam=0.3))


def test_the_mean_update_norm_is_that_of_the_updates(task):
    found = evaluate(task, SGD, rate(0.5), range(2), 7, QUICK)["seeds"]
    seed_list = [seeds.derive(number, "test") for number in range(2)]
    updates = [update for _, _, _, update in frozen_unroll(task, SGD, rate(0.5), seed_list, 7)]
    expected = torch.stack(updates).norm(dim=-1).sum(0) / 7
    assert [seed["mean_update_norm"] for seed in found] == pytest.approx(expected.tolist(), rel=1e-5)


def test_the_extended_probes_keep_their_rules(task):
    probe = ProbeSettings(radii=(0.01, 0.1), examples=50, restarts=2, ascent_steps=5, extended=True)
    mark = evaluate(task, SGD, rate(1.0), range(1), 30, probe)["seeds"][0]["marks"][-1]
    for key in ("0.01", "0.1"):
        assert 0 <= mark["surrogate_gap"][key] <= mark["sharpness"][key] <= mark["r1"][key] * (1 + 1e-9)
        assert mark["r1"][key] == pytest.approx(float(key) * mark["max_grad_norm"][key])
        assert mark["sharpness_linf"][key] > mark["sharpness"][key], "its ball holds the other"
    assert mark["trace"] is not None


def test_a_baseline_goes_through_the_same_evaluation(task):
    sgd = evaluate(task, SGD, rate(0.3), range(2), 10, QUICK)["seeds"]
    found = evaluate_baseline(task, BASELINES["sgd"], {"learning_rate": 0.3}, range(2), 10, QUICK)
    assert found["seeds"] == sgd and found["learning_rate"] == 0.3 and found["run"] is None
    sam = evaluate_baseline(task, BASELINES["sam-sgdm"], {"learning_rate": 0.3, "rho": 0.05}, range(2), 10, QUICK)
    assert sam["passes_per_step"] == 2 and sam["rho"] == 0.05 and sam["seeds"] != sgd


def test_an_evaluation_can_be_interrupted(task):
    class Enough(Exception):
        pass

    def tick() -> None:
        raise Enough

    with pytest.raises(Enough):
        evaluate(task, SGD, rate(0.1), range(2), 5, QUICK, tick=tick)


@pytest.mark.parametrize(("steps", "points"), [(1, [0, 1]), (7, [0, 1, 2, 5, 7]), (20, [0, 1, 2, 5, 10, 20])])
def test_curve_points(steps, points):
    assert curve_points(steps) == points
