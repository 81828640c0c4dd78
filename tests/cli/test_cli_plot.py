"""`lreg plot`: what it writes and prints, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from engine.optimizers.learned.base import LEARNED_OPTIMIZERS
from engine.presets.preset import from_mapping
from engine.runs import checkpoint as checkpoints
from engine.runs.writer import Run


@pytest.fixture
def run(home):
    """A run on digits with meta-losses, a checkpoint, and a transfer evaluation of two optimizees."""
    tables = {"optimizer": {"kind": "simple", "hidden": 3}, "task": {"dataset": "digits", "optimizee": "mlp"}}
    made = Run.create(home / "runs", from_mapping({"name": "small", **tables, "meta": {"inner_steps": 20}}))
    phi = LEARNED_OPTIMIZERS.create("simple", hidden=3).init_phi(torch.Generator().manual_seed(0))
    checkpoints.save(made.path / "checkpoint", "best", {f"frozen/{name}": t for name, t in phi.items()}, {})
    marks = [{"inner_step": 20, "train_loss": 0.5, "test_accuracy": 0.9, "sharpness": {"0.05": 0.01}}]
    curve = {"inner_step": [0, 20], "train_loss": [2.3, 0.5]}
    evaluation = {
        "run": made.id,
        "optimizer": "simple",
        "label": "simple (best)",
        "checkpoint": "best",
        "scale": 1.0,
        "task": {"dataset": "digits", "optimizee": "mlp", "batch_size": 128},
        "created": "2026-11-21T12:00:00Z",
        "seeds": [{"seed": seed, "diverged": False, "curve": curve, "marks": marks} for seed in range(2)],
    }
    with made:
        made.append([{"step": step, "meta_loss": 1.0} for step in (1, 2)])
        made.write_transfer("a", evaluation)
    return made


@pytest.mark.parametrize("kind", ["pdf", "PNG"])  # svg is of the other tests
def test_everything_there_is_on_one_page(lreg, home, run, kind):
    outcome = lreg("plot", "last", "-o", f"figure.{kind}")
    assert outcome.code == 0 and outcome.out == f"figure.{kind}\n"
    assert (home / f"figure.{kind}").stat().st_size > 5000
    captions = outcome.err.splitlines()
    assert [line.split()[0] for line in captions] == ["Meta-training:", "Train", "Sharpness", "Test", "Updates"]


def test_a_figure_by_name_replaces_the_file(lreg, home, run):
    (home / "f.svg").write_text("old")
    assert lreg("plot", run.id, "-o", "f.svg", "--figure", "curves", "--task", "digits/mlp").code == 0
    text = (home / "f.svg").read_text()
    assert "inner step" in text and "meta-step" not in text


def test_landscapes_are_computed_at_once(lreg, home, run):
    outcome = lreg("plot", run.id, "-o", "f.svg", "--figure", "landscape", "--figure", "sharpness", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    assert "landscape of small" in outcome.err and "20 inner steps on digits/mlp" in outcome.err
    text = (home / "f.svg").read_text()
    assert "first direction" in text and "sharpness at 0.05: 0.0100" in text and "radius" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("last", "-o", "f.gif"), (".png, .svg, .pdf",)),
        (("last", "-o", "f"), (".png, .svg, .pdf",)),
        (("last", "-o", "nowhere/f.png"), ("no folder",)),
        (("last", "-o", "f.png", "--figure", "curve"), ("--figure", "curves")),
        (("last", "-o", "f.png", "--task", "mnist/cnn"), ("--task", "digits/mlp")),
        (("last", "-o", "f.png", "--step", "7"), ("--step", "20")),
        (("last", "-o", "f.png", "--step", "x"), ("--step", "integer")),
        (("last", "-o", "f.png", "--radius", "0.1"), ("--radius", "0.05")),
        (("last", "-o", "f.png", "--radius", "nan"), ("--radius", "nan")),
        (("last", "-o", "f.png", "--figure", "frontier"), ("--scales",)),
        (("last", "-o", "f.png", "--figure", "landscape", "--task", "digits"), ("--task", "DATASET/OPTIMIZEE")),
        (("last", "-o", "f.png", "--figure", "landscape", "--task", "digits/nn"), ("--task", "mlp")),
        (("nobody", "-o", "f.png"), ("nobody",)),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(lreg, home, run, arguments, words):
    before = sorted(home.iterdir())
    outcome = lreg("plot", *arguments)
    assert outcome.code == 2 and outcome.out == "" and sorted(home.iterdir()) == before
    assert len(outcome.err.splitlines()) == 1 and outcome.err.startswith("error: ")
    assert all(word in outcome.err for word in words), outcome.err


def test_a_run_without_data_says_which_command_makes_them(lreg, home):
    Run.create(home / "runs", from_mapping({"name": "new"}))
    outcome = lreg("plot", "last", "-o", "f.png", "--figure", "sharpness")
    assert outcome.code == 2 and "lreg transfer" in outcome.err and not (home / "f.png").exists()
