"""Micro-batches: a batch's gradient in parts, equal to the whole one for losses that are means over examples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.func import vmap

from engine import probes
from engine.base.flat import gradients_and_losses, hessian_vector_products, loss_on
from engine.base.live_memory import LiveMemory
from engine.jobs.from_preset import meta_trainer
from engine.meta_training.penalty_terms import geometric_penalty_at
from engine.penalties.base import PENALTIES
from engine.presets.preset import from_mapping
from engine.tasks.supervised import SupervisedTask
from engine.tasks.table import build_task

CPU = torch.device("cpu")


def task(micro_batch: int, dtype: torch.dtype = torch.float64, **values: Any):
    usual = {"optimizee": "mlp-tanh", "hidden": [6], "init": "uniform", "batch_size": 10}
    values = values if "optimizee" in values else {**usual, **values}
    return build_task({"dataset": "digits", "micro_batch": micro_batch, **values}, device=CPU, dtype=dtype)


def start(of, optimizees: int = 3):
    theta = torch.stack([of.init_theta(seed) for seed in range(optimizees)])
    return theta, of.batches(range(optimizees)).draw(1)[0]


@pytest.mark.parametrize("size", [1, 3, 5, 64])
def test_gradients_and_hessians_are_those_of_the_whole_batch(size):
    whole, parts = task(0), task(size)
    theta, batch = start(whole)
    vectors = torch.randn(theta.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for work in (
        lambda of: gradients_and_losses(of.loss, theta, batch),
        lambda of: [hessian_vector_products(of.loss, theta, batch, vectors)],
        lambda of: gradients_and_losses(of.loss, torch.stack([theta, theta.flip(0)]), batch),
        lambda of: [vmap(of.loss)(theta, batch)],
    ):
        for one, other in zip(work(parts), work(whole), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["sam", "gam", "gsam", "asam", "hessian_trace", "top_eigenvalue"])
def test_every_geometric_penalty_is_that_of_the_whole_batch(name):
    penalty = PENALTIES.create(name)
    whole, parts = task(0), task(4)
    theta, batch = start(whole)
    gradient, loss = gradients_and_losses(whole.loss, theta, batch)
    found, expected = (geometric_penalty_at(penalty, of.loss)(theta, batch, loss, gradient, 3) for of in (parts, whole))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("estimator", ["tbptt", "second_order", "pes"])
def test_meta_training_is_the_same(estimator):
    def trained(micro_batch: int) -> dict[str, torch.Tensor]:
        tables = {
            "task": {"hidden": [5], "batch_size": 9, "micro_batch": micro_batch},
            "meta": {"estimator": estimator, "truncation": 3, "inner_steps": 6},
            "penalty": {} if estimator == "pes" else {"gam": {}},
        }
        trainer = meta_trainer(from_mapping(tables), device=CPU, dtype=torch.float64)
        for _ in range(2):
            trainer.pending = ""
            trainer.advance()
        return trainer.phi

    for one, other in zip(trained(4).values(), trained(0).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_probes_of_a_loss_in_parts_are_those_of_the_whole():
    whole, parts = task(0), task(7)
    theta = torch.stack([whole.init_theta(seed) for seed in range(2)])
    shapes = [
        probes.profile(loss_on(of.loss, of.fixed_batch(30)), theta, (0.05,), restarts=3, ascent_steps=5)
        for of in (whole, parts)
    ]
    for one, other in zip(*shapes, strict=True):
        assert one.sharpness[0.05] == pytest.approx(other.sharpness[0.05], rel=1e-9)
        assert one.max_grad_norm[0.05] == pytest.approx(other.max_grad_norm[0.05], rel=1e-9)
        assert one.top_eigenvalue == pytest.approx(other.top_eigenvalue, rel=1e-9)
        assert one.trace == pytest.approx(other.trace, rel=1e-9)


def test_activations_are_those_of_one_micro_batch():
    peaks = []
    for size in (0, 8):
        of = task(size, torch.float32, optimizee="conv3", batch_size=512)
        theta, batch = start(of, 1)
        with LiveMemory() as live:
            gradients_and_losses(of.loss, theta, batch)
        peaks.append(live.peak - 3 * theta.nbytes)
    assert peaks[1] < peaks[0] / 3


def test_a_network_with_batch_norm_sees_micro_batches():
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randint(2, (20,))
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2))
    splits = {"train": (x, y), "test": (x, y)}
    settings: Any = {"batch_size": 8, "dtype": torch.float64}
    whole, parts = (
        SupervisedTask("own", module, splits, nn.functional.cross_entropy, micro_batch=size, **settings)
        for size in (0, 4)
    )
    theta, batch = start(whole, 1)
    one = batch.of(0)
    halves = [type(one)(*(tensor[part] for tensor in one)) for part in (slice(0, 4), slice(4, 8))]
    expected = sum(whole.loss(theta[0], half) for half in halves) / 2
    torch.testing.assert_close(parts.loss(theta[0], one), expected)
    assert abs(float(expected - whole.loss(theta[0], one))) > 1e-6


def test_a_run_of_before_keeps_its_identity():
    usual = from_mapping({"task": {"dataset": "digits"}}).decisive()
    assert "micro_batch" not in usual["task"][0]
    assert from_mapping({"task": {"micro_batch": 8}}).decisive()["task"][0]["micro_batch"] == 8
