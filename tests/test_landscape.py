"""Loss landscapes: closed forms on a quadratic, and the normalisation of the directions."""

from __future__ import annotations

import math

import pytest
import torch

from engine.evaluation import landscape as landscapes
from engine.evaluation.transfer import ProbeSettings, evaluate
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS
from engine.tasks.table import build_task

CPU = torch.device("cpu")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_the_surface_of_a_quadratic_is_its_closed_form(at_once):
    """L = ½ θᵀHθ: along θ + a x + b y it is ½ (θ + a x + b y)ᵀ H (θ + a x + b y), a along the rows."""
    half = random(6, 6, seed=1)
    h = half @ half.T
    theta, x, y = random(3, 6, seed=2)
    found = landscapes.surface(lambda p: 0.5 * p @ h @ p, theta, x, y, points=5, extent=2.0, at_once=at_once)
    for i, b in enumerate((-2.0, -1.0, 0.0, 1.0, 2.0)):
        for j, a in enumerate((-2.0, -1.0, 0.0, 1.0, 2.0)):
            point = theta + a * x + b * y
            assert float(found[i, j]) == pytest.approx(float(0.5 * point @ h @ point), rel=1e-12)


def test_every_filter_of_a_direction_is_as_long_as_thetas():
    shapes = [torch.Size(shape) for shape in ((4, 3, 5, 5), (4,), (10, 7), (10,))]
    theta, direction = random(2, sum(shape.numel() for shape in shapes))
    found = landscapes.filter_normalised(direction, theta, shapes)
    sizes = [shape.numel() for shape in shapes]
    for mine, its, drawn, shape in zip(
        found.split(sizes), theta.split(sizes), direction.split(sizes), shapes, strict=True
    ):
        if len(shape) == 1:
            assert not mine.any()  # biases rest
            continue
        mine, its, drawn = (part.view(shape[0], -1) for part in (mine, its, drawn))
        torch.testing.assert_close(mine.norm(dim=1), its.norm(dim=1), rtol=1e-12, atol=0)
        cosine = torch.nn.functional.cosine_similarity(mine, drawn, dim=1)
        torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_a_filter_that_is_zero_stays_there():
    found = landscapes.filter_normalised(torch.zeros(4), torch.ones(4), [torch.Size((2, 2))])
    assert not found.any()
    assert not landscapes.filter_normalised(torch.ones(4), torch.zeros(4), [torch.Size((2, 2))]).any()


def test_the_directions_are_the_same_for_every_minimum():
    one, other = landscapes.random_directions(torch.zeros(50)), landscapes.random_directions(torch.ones(50))
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert not torch.equal(*one)


@pytest.fixture(scope="module")
def trained():
    task = build_task({"dataset": "digits", "optimizee": "mlp"}, device=CPU)
    rule = LEARNED_OPTIMIZERS.create("rnnprop", output_scale=0.01)
    return task, rule, rule.init_phi(torch.Generator().manual_seed(0))


def test_the_middle_is_where_the_transfer_evaluations_optimizee_ended(trained):
    task, rule, phi = trained
    found = landscapes.landscape(task, rule, phi, seed=3, steps=20, points=5, extent=0.5, examples=100)
    (outcome,) = evaluate(task, rule, phi, [3], 20, ProbeSettings((), examples=100, restarts=1, ascent_steps=1))[
        "seeds"
    ]
    (mark,) = outcome["marks"]
    assert found.train_loss == pytest.approx(mark["train_loss"], rel=1e-5)
    assert found.test["accuracy"] == pytest.approx(mark["test_accuracy"], abs=1e-9)
    assert found.losses[2][2] == pytest.approx(found.train_loss, rel=1e-5)
    assert found.offsets == (-0.5, -0.25, 0.0, 0.25, 0.5) and len(found.losses) == len(found.losses[0]) == 5


def test_a_corner_is_the_loss_at_its_point(trained):
    task, rule, phi = trained
    found = landscapes.landscape(task, rule, phi, steps=5, points=3, extent=1.0, examples=100)
    theta = landscapes.reached(task, rule, phi, 0, 5)
    shapes = list(task.layout.shapes.values())
    x, y = (landscapes.filter_normalised(d, theta, shapes) for d in landscapes.random_directions(theta))
    batch = task.fixed_batch(100, dtype=task.dtype)
    assert found.losses[0][2] == pytest.approx(float(task.loss(theta + x - y, batch)), rel=1e-5)


def test_a_diverged_optimizee_has_no_losses(trained):
    task, rule, phi = trained
    broken = {name: tensor * math.nan for name, tensor in phi.items()}
    found = landscapes.landscape(task, rule, broken, steps=2, points=2, examples=50)
    assert all(math.isnan(value) for row in found.losses for value in row)


@pytest.mark.parametrize(("points", "extent"), [(1, 1.0), (5, 0.0), (5, math.inf), (5, math.nan)])
def test_a_grid_that_is_none_is_refused(points, extent):
    with pytest.raises(ValueError, match="must be"):
        landscapes.offsets(points, extent)
