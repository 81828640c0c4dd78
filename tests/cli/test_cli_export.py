"""`lreg export`: what it prints, where it writes, what it refuses."""

from __future__ import annotations

import pytest
import torch

from engine.optimizers.learned.base import LEARNED_OPTIMIZERS
from engine.presets.preset import from_mapping
from engine.runs import checkpoint as checkpoints
from engine.runs.writer import Run


@pytest.fixture
def run(home):
    made = Run.create(home / "runs", from_mapping({"name": "small", "optimizer": {"kind": "simple", "hidden": 3}}))
    phi = LEARNED_OPTIMIZERS.create("simple", hidden=3).init_phi(torch.Generator().manual_seed(0))
    checkpoints.save(made.path / "checkpoint", "best", {f"frozen/{name}": t for name, t in phi.items()}, {})
    with made:
        made.append([{"step": 1, "meta_loss": 1.0}])
    return made


@pytest.mark.parametrize(
    ("form", "ending"), [("safetensors", ".safetensors"), ("csv", "-csv"), ("tensorboard", "-tensorboard")]
)
def test_the_default_path_is_the_runs_id_and_it_is_printed(lreg, home, run, form, ending):
    outcome = lreg("export", "last", "--to", form)
    assert outcome.code == 0 and outcome.out == f"{run.id}{ending}\n"
    assert (home / f"{run.id}{ending}").exists()
    refused = lreg("export", "last", "--to", form)
    assert refused.code == 2 and "--force" in refused.err and len(refused.err.splitlines()) == 1
    assert lreg("export", "last", "--to", form, "--force").code == 0


def test_json_says_what_was_exported(lreg, home, run):
    (line,) = lreg("export", run.id, "--to", "safetensors", "-o", "o.safetensors", "--scale", "1.5", "--json").lines
    assert (line["run"], line["checkpoint"], line["scale"]) == (run.id, "best", 1.5)
    assert line["path"] == str(home / "o.safetensors")
    (line,) = lreg("export", run.id, "--to", "csv", "--json").lines
    assert line["rows"] == {"metrics.csv": 1, "transfers.csv": 0}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--to", "xlsx"), "safetensors, tensorboard, csv"),
        (("--to", "csv", "--scale", "2"), "--scale"),
        (("--to", "tensorboard", "--checkpoint", "last"), "--checkpoint"),
        (("--to", "safetensors", "--checkpoint", "newest"), "best, last, initial"),
        (("--to", "safetensors", "--checkpoint", "last"), "no such checkpoint"),
        (("--to", "safetensors", "--scale", "0"), "a number > 0"),
        (("--to", "safetensors", "--scale", "much"), "a number > 0"),
        (("--to", "safetensors", "--scale", "best"), "lreg transfer"),
        (("--to", "csv", "-o", "nowhere/out"), "no folder"),
        (("--to", "safetensors", "-o", "."), "a folder, should be a file"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(lreg, home, run, options, word):
    before = sorted(home.iterdir())
    outcome = lreg("export", "last", *options)
    assert outcome.code == 2 and outcome.out == ""
    assert word in outcome.err and len(outcome.err.splitlines()) == 1 and outcome.err.startswith("error: ")
    assert sorted(home.iterdir()) == before
