"""doctor --plan: the memory of a run, said before it begins."""

from __future__ import annotations

import pytest


def test_doctor_plans_a_preset(lreg):
    (told,) = lreg("doctor", "--plan", "quickstart", "--device", "cpu", "--json").lines
    assert told["total"] == max(told["training"], told["evaluation"]) and told["task"] == "digits/mlp"
    more = lreg("doctor", "--plan", "quickstart", "--set", "meta.truncation=40", "--device", "cpu", "--json").lines[0]
    assert more["parts"]["truncation"] > 1.7 * told["parts"]["truncation"]
    shown = lreg("doctor", "--plan", "quickstart", "--device", "cpu").out
    assert "optimizer state" in shown and "peak" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("--plan", "nosuch"),
        ("--plan", "quickstart", "--set", "meta.nosuch=1"),
    ],
)
def test_a_wrong_preset_is_one_line_and_exit_code_2(lreg, arguments):
    outcome = lreg("doctor", *arguments)
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert arguments[-1].removesuffix("=1") in outcome.err


def test_set_without_a_plan_is_refused(lreg):
    outcome = lreg("doctor", "--set", "seed=1")
    assert outcome.code == 2 and "--plan" in outcome.err


def test_data_that_are_missing_or_damaged_are_one_line_and_exit_code_2(lreg, home):
    sets = ("--set", "task.dataset=tiny-imagenet", "--data-dir", str(home))
    for archive in (None, b"", b"PK no zip"):
        if archive is not None:
            (home / "tiny-imagenet-200.zip").write_bytes(archive)
        for command in (("doctor", "--plan", "quickstart"), ("run", "quickstart")):
            outcome = lreg(*command, *sets)
            assert outcome.code == 2 and outcome.err.count("\n") == 1 and "tiny-imagenet-200.zip" in outcome.err
