"""A study where runs are asked for: it stands for its winners' runs."""

from __future__ import annotations

import pytest
from reporting import MLP, Level, Study, plain, sam


def made(home, *, finish: bool = True) -> Study:
    """The reference arm has a penalty, which by itself `compare` would not take for the reference."""
    levels = {"none": {MLP: Level()}, "sam": {MLP: Level(sharpness=0.5)}}
    found = Study(home, [plain(), sam()], levels, changes={"seeds": (0, 1), "reference": "sam"})
    return found.finish() if finish else found


def runs(found: Study) -> dict[str, list[str]]:
    return {arm: [path.name for path in found.runs_of(arm)] for arm in ("sam", "none")}


def test_compare_a_study(lreg, home):
    found = made(home)
    outcome = lreg("compare", found.folder.name, "--json")
    assert outcome.code == 0, outcome.err
    (told,) = outcome.lines
    assert [arm["runs"] for arm in told["arms"]] == list(runs(found).values())
    assert told["reference"] == told["arms"][0]["label"] != told["arms"][1]["label"]
    every = [run for own in runs(found).values() for run in own]
    assert lreg("compare", *every, "--json", "--reference", every[0]).lines == [told]
    chosen = lreg("compare", "tried", "--json", "--reference", runs(found)["none"][0]).lines[0]
    assert chosen["reference"] == told["arms"][1]["label"]


def test_plot_a_study(lreg, home):
    made(home)
    outcome = lreg("plot", "tried", "-o", "f.svg", "--figure", "sharpness")
    assert outcome.code == 0, outcome.err
    text = (home / "f.svg").read_text()
    assert "tried-none" in text and "tried-sam" in text


@pytest.mark.parametrize("command", [("compare",), ("plot", "-o", "f.svg")])
def test_nothing_has_been_transferred_yet(lreg, home, command):
    found = made(home, finish=False)
    outcome = lreg(*command, "tried")
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1 and not outcome.out
    assert f"study {found.folder.name}: no arm of it has a winner yet (queued" in outcome.err


@pytest.mark.parametrize("command", [("export", "--to", "csv"), ("transfer",), ("compare", "tried", "--reference")])
def test_where_one_run_is_wanted_the_winners_runs_are_named(lreg, home, command):
    found = made(home)
    outcome = lreg(*command, "tried")
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
    named = "; ".join(f"{arm}: {', '.join(own)}" for arm, own in runs(found).items())
    assert f"{found.folder.name}: a study, should be one of its winners' runs: {named}\n" in outcome.err
