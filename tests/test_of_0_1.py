"""A run that version 0.1 stopped in the middle of an unroll still opens, goes on, and trains a model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import engine
from engine.runs.store import Run, RunReader
from engine.worker import work

KEPT = Path(__file__).parent / "of_0_1" / "run"


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "20261130-085023-of-0.1-d7k5"
    shutil.copytree(KEPT, folder)
    return folder


def test_it_is_read(run):
    reader = RunReader(run)
    assert (reader.id, reader.state, reader.status().step) == (run.name, "stopped", 9)
    assert [task["hidden"] for task in reader.preset().tasks] == [(4,), (3,)]
    reader.poll()
    assert len(reader.series("meta_loss")[0]) == 9 and reader.figures()["test_accuracy"] > 0.1


def test_it_goes_on_to_its_end(run):
    before = (run / "metrics.jsonl").read_text()
    assert work(Run(run)) == "finished"
    after = (run / "metrics.jsonl").read_text()
    assert after.startswith(before)
    steps = [json.loads(line)["step"] for line in after.splitlines() if "meta_loss" in line]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) >= 24
    assert len(RunReader(run).transfers()) == 8


def test_its_learned_optimizer_trains_a_model(run):
    model = torch.nn.Linear(3, 1)
    optimizer = engine.load_optimizer(run, model.parameters())
    before = [parameter.detach().clone() for parameter in model.parameters()]
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
