"""Probes in bounded memory: what is side by side, and how many examples at once, changes memory and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.base import flat
from engine.base.flat import PartedLoss
from engine.base.live_memory import LiveMemory
from engine.evaluation.transfer import ProbeSettings, measure
from engine.tasks.bounded import bounded_loss
from engine.tasks.table import build_task

CPU = torch.device("cpu")
LITTLE = 2 * 10**5  # bytes
PROBES = ProbeSettings(radii=(0.05,), examples=40, restarts=1, ascent_steps=2, extended=False)


@pytest.fixture
def little_memory(monkeypatch):
    def bound() -> None:
        monkeypatch.setitem(flat.GRAPHS_AT_ONCE, "cpu", LITTLE)

    return bound


def task(optimizee: str, **values: Any):
    return build_task({"dataset": "digits", "optimizee": optimizee, **values}, device=CPU)


def numbers_in(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers_in(part)]
    return [value]


def test_bounded_probes_measure_the_same_in_less_memory(little_memory):
    of = task("mlp")
    theta = torch.stack([of.init_theta(seed) for seed in range(3)])
    peaks, marks = [], []
    for bound in (lambda: None, little_memory):
        bound()
        with LiveMemory() as live:
            marks.append(measure(of, theta, PROBES))
        peaks.append(live.peak)
    assert peaks[1] < 0.8 * peaks[0]  # of which Lanczos vectors are most
    for one, other in zip(*marks, strict=True):
        assert numbers_in(one) == pytest.approx(numbers_in(other), rel=1e-9)


def test_examples_go_in_parts_only_where_the_loss_is_their_mean(little_memory):
    little_memory()
    batches = {name: (of := task(name), of.fixed_batch(40)) for name in ("conv3", "resnet18")}
    losses = {name: bounded_loss(*given) for name, given in batches.items()}
    parts, whole = losses["conv3"], losses["resnet18"]
    assert isinstance(parts, PartedLoss) and isinstance(whole, PartedLoss)
    assert len(parts.parts) > 1 and sum(weight for weight, _ in parts.parts) == pytest.approx(1)
    assert len(whole.parts) == 1  # its batch norm would see parts
    theta = batches["conv3"][0].init_theta(0).double()
    torch.testing.assert_close(parts(theta), batches["conv3"][0].loss(theta, batches["conv3"][1]), rtol=1e-12, atol=0)


def test_a_task_in_micro_batches_is_probed_in_them():
    of = task("mlp", micro_batch=16)
    loss = bounded_loss(of, of.fixed_batch(40))
    assert isinstance(loss, PartedLoss) and [weight for weight, _ in loss.parts] == [0.4, 0.4, 0.2]
