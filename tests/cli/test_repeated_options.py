"""Options that are given twice: lists add up; of a single value nobody knows which one is meant, so it is refused."""

from __future__ import annotations

import pytest

RADII = ("--radii", "1e-3", "--radii", "0.010,.1")
SMALL = ("--set", "evaluation.examples=40", "--set", "evaluation.final_optimizees=0", "--set", "meta.epochs=1")


def test_lists_of_a_transfer_add_up_and_radii_are_called_as_they_were_typed(lreg, home):
    assert lreg("run", "tiny.toml", *SMALL).code == 0
    scales, counts = (
        ("--scales", "0.5", "--scales", "2"),
        ("--steps", "8", "--steps", "4", "--seeds", "1", "--seeds", "2"),
    )
    found = lreg("transfer", "last", *RADII, *scales, *counts, "--marks", "2", "--marks", "3", "--json").lines
    assert [line["scale"] for line in found] == [1.0, 0.5, 2.0]
    for line in found:
        assert [seed["seed"] for seed in line["seeds"]] == [0, 1]
        marks = line["seeds"][0]["marks"]
        assert [mark["inner_step"] for mark in marks] == [2, 3, 4, 8]
        assert list(marks[-1]["sharpness"]) == ["1e-3", "0.010", ".1"]
    assert "at 0.010" in lreg("transfer", "last", *RADII, *scales, *counts, "--marks", "2,3").out
    again = lreg("compare", "last", "--radius", "0.01", "--json")
    assert again.code == 0 and '"0.01"' in again.out


def test_radii_of_a_preset_and_of_set_are_called_as_they_were_typed(lreg, home):
    (home / "typed.toml").write_text((home / "tiny.toml").read_text().replace("[0.05]", "[0.050, 1e-5]"))
    assert lreg("run", "typed.toml", *SMALL).code == 0
    assert "radii = [0.050, 1e-5]" in lreg("preset", "show", "typed.toml").out
    line = lreg("transfer", "last", "--seeds", "1", "--json").lines[0]
    assert list(line["seeds"][0]["marks"][-1]["sharpness"]) == ["1e-5", "0.050"]
    line = lreg("transfer", "last", "--seeds", "1", "--set", "evaluation.radii=[2.50e-3, 1]", "--json").lines[0]
    assert list(line["seeds"][0]["marks"][-1]["sharpness"]) == ["2.50e-3", "1"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "tiny.toml", "--device", "cpu", "--device", "auto"),
        ("run", "tiny.toml", "--seed", "1", "--seed", "2"),
        ("runs", "--sort", "id", "--sort", "name"),
        ("compare", "last", "--step", "1", "--step", "2"),
        ("plot", "last", "-o", "a.png", "-o", "b.png"),
        ("export", "last", "--to", "csv", "--to", "csv"),
        ("study", "smoke", "--jobs", "1", "--jobs", "2"),
        ("bench", "--threads", "1", "--threads", "1"),
        ("stop", "last", "--wait", "--no-wait"),
        ("preset", "new", "x", "--from", "lo", "--from", "lo"),
    ],
)
def test_a_single_value_is_given_once(lreg, home, arguments):
    outcome = lreg(*arguments)
    assert (outcome.code, outcome.out) == (2, "") and outcome.err.count("\n") == 1
    assert "--" in outcome.err and "2 times" in outcome.err
    assert sorted(path.name for path in home.iterdir()) == ["tiny.toml"]


def test_states_add_up_and_a_flag_may_be_repeated(lreg, home):
    assert lreg("run", "tiny.toml", *SMALL).code == 0
    both = lreg("runs", "--state", "finished", "--state", "failed", "--json", "--json")
    assert both.code == 0 and len(both.lines) == 1
    assert lreg("runs", "--state", "stopped", "--state", "failed", "--json").out == ""
