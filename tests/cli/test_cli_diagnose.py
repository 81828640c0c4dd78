"""`lreg diagnose`: what it prints and keeps, and what it refuses."""

from __future__ import annotations

import json
import shutil

import pytest
from driving import TINY

from engine.presets.preset import load_preset
from engine.worker import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run of three meta-epochs."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.toml").write_text(TINY + "[penalty.gsam]\n")
    return train(load_preset(str(folder / "tiny.toml"), ["evaluation.final_optimizees=0"]), folder / "runs", "cpu").path


@pytest.fixture
def run(trained, home):
    return shutil.copytree(trained, home / "runs" / trained.name)


def test_the_sign_test_is_told_in_words_and_kept(lreg, run):
    outcome = lreg("diagnose", "last", "--optimizees", "3", "--penalty", "sam:rho=0.5", "--windows")
    assert outcome.code == 0, outcome.err
    (path,) = run.glob("diagnosis-best-*.json")
    kept = json.loads(path.read_text())
    sentences = [part["sentence"] for part in kept["parts"]]
    assert all(sentence in outcome.out.splitlines() for sentence in sentences)
    assert [part["name"] for part in kept["parts"] if not part["is_window"]] == ["", "", "gsam", "sam:rho=0.5"]
    assert "gsam, inner steps 0-5" in outcome.out and f"kept in {path}" in outcome.out

    (printed,) = lreg("diagnose", "last", "--optimizees", "3", "--checkpoint", "initial", "--json").lines
    assert printed["checkpoint"] == "initial" and printed["path"] != str(path)
    assert {part["verdict"] for part in printed["parts"]} <= {"agrees", "opposite", "unclear"}


def test_another_preset_is_looked_at_before_training_on_it(lreg, home, run):
    (home / "other.toml").write_text(TINY + "[penalty.gam]\n[penalty.asam]\n")
    (printed,) = lreg("diagnose", "last", "--optimizees", "2", "--preset", "other.toml", "--json").lines
    assert printed["source"] == "other" and [part["name"] for part in printed["parts"]][2:] == ["gam", "asam"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--checkpoint", "nix"), "--checkpoint"),
        (("--penalty", "gsm"), "error: --penalty: penalty.gsm"),
        (("--optimizees", "1"), "error: --optimizees: found 1; allowed: an integer >= 2"),
        (("--difference", "0"), "error: --difference"),
        (("--estimator", "nix"), "error: --estimator"),
        (("--set", "meta.inner_steps=2"), "meta.truncation"),
    ],
)
def test_what_is_refused_leaves_nothing(lreg, run, arguments, message):
    outcome = lreg("diagnose", "last", *arguments)
    assert outcome.code == 2 and message in outcome.err and not outcome.out
    assert not list(run.glob("*diagnosis-*"))
