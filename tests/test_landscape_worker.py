"""The landscape worker: what it prints, what it keeps, and what it does not compute twice."""

from __future__ import annotations

import json

import pytest
import torch
from comparing import make_run

from engine.jobs import landscape_worker
from engine.jobs.landscape_worker import SliceSettings
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS
from engine.runs import checkpoint as checkpoints

WHERE = SliceSettings("digits/mlp", 3, points=3)
ARGUMENTS = ("--task", WHERE.task, "--steps", "3", "--points", "3", "--device", "cpu")


@pytest.fixture
def run(tmp_path):
    """A run whose learned optimizer is as it was drawn."""
    made = make_run(tmp_path, "small", optimizer={"kind": "simple"}, task={"dataset": "digits", "hidden": [2]})
    phi = LEARNED_OPTIMIZERS.create("simple").init_phi(torch.Generator().manual_seed(0))
    checkpoints.save(made.path / "checkpoint", "best", {f"frozen/{name}": t for name, t in phi.items()}, {})
    return made


def lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_landscape_is_printed_kept_and_not_computed_again(run, capsys, monkeypatch):
    assert landscape_worker.main([*ARGUMENTS, str(run.path)]) == 0
    began, found = lines(capsys)
    assert began == {"event": "computing", "run": str(run.path)}
    assert found["event"] == "landscape" and landscape_worker.is_landscape(found)
    assert found["offsets"] == [-1.0, 0.0, 1.0] and found["losses"][1][1] == pytest.approx(
        found["train_loss"], rel=1e-5
    )
    kept = landscape_worker.read(run.path, WHERE)
    assert kept["losses"] == found["losses"]
    monkeypatch.setattr(landscape_worker, "compute", lambda *_: pytest.fail("computed twice"))
    assert landscape_worker.main([*ARGUMENTS, str(run.path)]) == 0
    assert lines(capsys)[1] == found


def test_a_folder_that_cannot_be_written_costs_the_memory_only(run, capsys):
    (run.path / landscape_worker.FOLDER).write_text("in the way")
    assert landscape_worker.main([*ARGUMENTS, str(run.path)]) == 0
    captured = capsys.readouterr()
    assert landscape_worker.is_landscape(json.loads(captured.out.splitlines()[1])) and "not kept" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "digits/nn"), "error: --task digits/nn: task.optimizee"),
        (("--device", "gpu"), "error: --device: found 'gpu'"),
        ((), "no such checkpoint"),
    ],
)
def test_what_cannot_be_computed_is_one_line(run, capsys, arguments, message):
    if not arguments:
        (run.path / "checkpoint" / "best.safetensors").unlink()
    assert landscape_worker.main([*ARGUMENTS, *arguments, str(run.path)]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1
