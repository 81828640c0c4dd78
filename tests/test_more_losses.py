"""Two more kinds of loss: an autoencoder's, whose targets are its inputs, and that of numbers in a table."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from engine.base.errors import PresetError
from engine.base.flat import gradients_and_losses
from engine.jobs.from_preset import meta_trainer
from engine.presets.preset import from_mapping
from engine.tasks.datasets.friedman import friedman
from engine.tasks.table import build_task

CPU = torch.device("cpu")


def task(**values: Any):
    return build_task(values, device=CPU, dtype=torch.float64)


def test_an_autoencoder_learns_its_inputs():
    of = task(dataset="digits", optimizee="autoencoder", code=4, batch_size=5)
    theta, batch = of.init_theta(0), of.fixed_batch(7)
    outputs = of.outputs(theta, batch.x)
    assert outputs.shape == (7, 64)
    torch.testing.assert_close(of.loss(theta, batch), (outputs - batch.x.flatten(1)).square().mean())
    test, whole = of.metrics(theta, "test"), of.fixed_batch(1000, "test")
    difference = of.outputs(theta, whole.x) - whole.x.flatten(1)
    assert test["loss"] == pytest.approx(float(difference.square().mean()))
    assert [metric.name for metric in of.measured] == ["loss", "absolute_error"]
    points, many = torch.stack([theta, of.init_theta(1)]), of.batches([0, 1]).draw(1)[0]
    gradients, losses = gradients_and_losses(of.loss, points, many)
    torch.testing.assert_close(losses[1], of.loss(points[1], many.of(1)))
    assert gradients.norm(dim=1).gt(0).all()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 7, 5)])
def test_an_autoencoder_gives_images_of_any_size(shape):
    of = task(dataset="digits", optimizee="autoencoder", width=2, code=3)
    module = of.optimizee.build(shape, 10)
    assert module(torch.zeros(2, *shape)).shape == (2, math.prod(shape))


def test_friedman_is_the_function_of_the_paper():
    x = torch.tensor([[0.5, 1.0, 0.0, 1.0, 1.0, *[0.3] * 5], [0.0, 0.7, 0.5, 0.2, 0.4, *[0.9] * 5]])
    torch.testing.assert_close(friedman(x), torch.tensor([10 + 5 + 10 + 5.0, 2 + 2.0]))
    of = task(dataset="friedman", optimizee="mlp", noise=0.0, normalize="unit")
    batch = of.fixed_batch(10_000)
    assert [of.size(split) for split in ("train", "validation", "test")] == [1440, 160, 400]
    assert batch.x.shape == (1440, 10, 1, 1) and 0 <= batch.x.min() and batch.x.max() <= 1
    exact = friedman(batch.x[:, :, 0, 0])
    correlation = torch.corrcoef(torch.stack([exact, batch.y]))[0, 1]
    assert correlation == pytest.approx(1.0, abs=1e-6)
    assert batch.y.std() == pytest.approx(1.0, abs=0.02)


def test_numbers_are_judged_by_error_and_explained_variance():
    of = task(dataset="friedman", optimizee="mlp", hidden=[5], init="uniform")
    theta, batch = of.init_theta(0), of.fixed_batch(10_000, "test")
    outputs = of.outputs(theta, batch.x)[:, 0]
    metrics = of.metrics(theta, "test")
    loss = (outputs - batch.y).square().mean()
    assert metrics["loss"] == pytest.approx(float(loss))
    assert metrics["r2"] == pytest.approx(float(1 - loss / batch.y.var(correction=0)))
    assert metrics["absolute_error"] == pytest.approx(float((outputs - batch.y).abs().mean()))
    assert set(metrics) == {metric.name for metric in of.measured}


def test_they_are_refused_what_they_have_not():
    with pytest.raises(PresetError, match="task.classes"):
        task(dataset="friedman", classes=[0, 1])
    with pytest.raises(PresetError, match="task.optimizee"):
        task(dataset="friedman", optimizee="lenet")


@pytest.mark.parametrize(
    "values", [{"dataset": "friedman", "hidden": [8]}, {"dataset": "digits", "optimizee": "autoencoder", "code": 2}]
)
def test_both_are_meta_trained_and_evaluated(values):
    tables = {
        "task": {"batch_size": 16, **values},
        "optimizer": {"kind": "lin"},
        "meta": {"epochs": 1, "inner_steps": 4, "truncation": 2},
        "evaluation": {"optimizees": 1, "examples": 20, "restarts": 1, "ascent_steps": 1},
    }
    trainer = meta_trainer(from_mapping(tables), device=CPU)
    records = [record for _ in range(3) for record in trainer.advance()]
    assert all(math.isfinite(record["validation_loss"]) for record in records if "validation_loss" in record)
    assert any("meta_loss" in record and math.isfinite(record["meta_loss"]) for record in records)
