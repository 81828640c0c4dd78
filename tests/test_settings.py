"""A setting says what it takes, takes nothing else, and guesses what was meant."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass

import pytest

from engine.base.errors import Problem, SettingsError
from engine.base.settings import Setting, check_table, did_you_mean, schema_of, setting, show


@dataclass(frozen=True)
class Base:
    """Settings that others inherit."""

    flag: bool = setting(False, help="a truth value")


@dataclass(frozen=True)
class Everything(Base):
    """One setting of each kind."""

    count: int = setting(1, minimum=1, maximum=10, help="an integer")
    rate: float = setting(0.5, above=0.0, maximum=1.0, help="a number")
    word: str = setting("", help="a string")
    kind: str = setting("dm", choices=("dm", "simple"), help="a choice")
    stages: int | tuple[int, ...] = setting(100, minimum=1, help="one or several")
    radii: tuple[float, ...] = setting((0.1,), above=0.0, help="numbers")
    tags: tuple[str, ...] = setting((), allow_empty=True, help="words")
    hidden: int = 3  # no setting: not in the schema


SCHEMA = {item.name: item for item in schema_of(Everything)}


def test_a_schema_lists_the_settings_in_order_inherited_ones_first():
    assert list(SCHEMA) == ["flag", "count", "rate", "word", "kind", "stages", "radii", "tags"]
    assert SCHEMA["stages"].types == ("int", "int[]")
    assert SCHEMA["radii"].types == ("float[]",)


def test_a_type_that_a_preset_cannot_hold_is_our_mistake():
    @dataclass(frozen=True)
    class Wrong:
        value: dict = setting(None, help="no such thing")

    with pytest.raises(TypeError, match="dict"):
        schema_of(Wrong)


@pytest.mark.parametrize("item", SCHEMA.values(), ids=lambda item: item.name)
def test_a_setting_survives_json_and_takes_its_own_default(item):
    import json

    assert Setting.from_json(json.loads(json.dumps(item.to_json()))) == item
    assert item.check(item.default) == (item.default, None)


@pytest.mark.parametrize(
    ("name", "value", "canonical"),
    [
        ("flag", True, True),
        ("count", 1, 1),
        ("count", 10, 10),
        ("rate", 1, 1.0),
        ("rate", 1e-300, 1e-300),
        ("word", "ünïcode ☃ [red]", "ünïcode ☃ [red]"),
        ("kind", "simple", "simple"),
        ("stages", 5, 5),
        ("stages", [5], (5,)),
        ("stages", (1, 2), (1, 2)),
        ("radii", [1, 0.5], (1.0, 0.5)),
        ("tags", [], ()),
        ("tags", ["a", "b"], ("a", "b")),
    ],
)
def test_what_fits_comes_back_in_canonical_form(name, value, canonical):
    found, problem = SCHEMA[name].check(value)
    assert problem is None
    assert found == canonical and type(found) is type(canonical)


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in SCHEMA for value in (None, {}, {"a": 1}, [[1]], [{}], [None], object(), b"x")]
    + [("flag", value) for value in (0, 1, "true", "", [True])]
    + [("count", value) for value in (True, False, 1.0, "1", 0, 11, -1, [1], 10**30, math.nan)]
    + [("rate", value) for value in (True, "0.5", 0, 0.0, -0.0, 1.0000001, math.inf, -math.inf, math.nan, 10**400)]
    + [("word", value) for value in (1, True, ["a"], datetime.date(2024, 1, 1), "\ud800", "\udcff")]
    + [("kind", value) for value in ("DM", "", 1, True, ["dm"])]
    + [("stages", value) for value in ([], [0], [1, 2.0], [True], "1", 1.5, [1, [2]], 2**63)]
    + [("radii", value) for value in ([], 0.1, [0.0], [math.inf], [0.1, "0.2"], [0.1, True])]
    + [("tags", value) for value in ("a", [1], ["a", 1])],
)
def test_what_does_not_fit_is_shown_with_what_is_allowed(name, value):
    found, problem = SCHEMA[name].check(value)
    assert found is None and problem is not None
    assert problem.path == name and problem.allowed == SCHEMA[name].describe()
    assert problem.found and str(problem).isprintable()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("flag", "true or false"),
        ("count", "an integer >= 1 and <= 10"),
        ("rate", "a number > 0 and <= 1"),
        ("kind", "one of: dm, simple"),
        ("stages", "an integer or a list of integers >= 1"),
        ("radii", "a list of numbers > 0"),
        ("tags", "a list of strings"),
    ],
)
def test_what_is_allowed_in_words(name, words):
    assert SCHEMA[name].describe() == words


def test_large_bounds_are_given_exactly():
    assert Setting("seed", ("int",), 0, "", maximum=2**53).describe() == "an integer <= 9007199254740992"
    assert (
        Setting("rate", ("float",), 0.0, "", minimum=0.125, maximum=1e3).describe() == "a number >= 0.125 and <= 1000"
    )


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("kind", "DM", "did you mean dm?"),
        ("kind", "simpel", "did you mean simple?"),
        ("kind", "zzz", ""),
        ("count", 5.0, "write 5"),
        ("count", 5.5, ""),
        ("count", "5", "write 5 without quotes"),
        ("count", 2**63, "no 64-bit integer"),
        ("count", 50, ""),
        ("flag", "True", "write true without quotes"),
        ("rate", "1e-3", "write 0.001 without quotes"),
        ("rate", "7", ""),
        ("word", "\udcff", "no Unicode text"),
        ("word", {}, ""),
        ("word", 7, 'write "7", in quotes'),
        ("radii", 0.5, "write [0.5]"),
        ("radii", "0.1, 0.2", "write [0.1, 0.2] without quotes"),
        ("radii", [], "it is empty"),
        ("radii", [0.1, -1, 0.2], "-1 does not fit"),
        ("tags", "a", 'write ["a"]'),
    ],
)
def test_hints(name, value, hint):
    assert SCHEMA[name].check(value)[1].hint == hint


def test_a_table_gives_every_value_and_every_problem():
    values, problems = check_table({"count": 2, "rate": 9.0, "kind": "x", "cuont": 1, "zzz": 2}, SCHEMA.values(), "t")
    assert values == {
        "flag": False, "count": 2, "rate": None, "word": "", "kind": None, "stages": 100, "radii": (0.1,), "tags": ()
    }  # fmt: skip
    assert [problem.path for problem in problems] == ["t.rate", "t.kind", "t.cuont", "t.zzz"]
    assert problems[2].hint == "did you mean count?" and not problems[3].hint


def test_keys_that_are_no_strings_are_unknown_too():
    assert [problem.path for problem in check_table({3: 1}, SCHEMA.values())[1]] == ["3"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (1e-5, "1e-05"),
        (math.nan, "nan"),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("\x1b[31m\n\u202e\x85", '"\\x1b[31m\\n\\u202e\\x85"'),
        ("é☃", '"é☃"'),
        ([1, "a", [True]], '[1, "a", [true]]'),
        ({"a": 1}, "a table"),
        (datetime.date(2024, 1, 2), "2024-01-02"),
    ],
)
def test_found_values_are_shown_as_in_toml(value, text):
    assert show(value) == text


def test_an_integer_too_long_to_print_is_shown_all_the_same():
    assert show(10**5000) == "an integer of about 5001 digits"
    assert SCHEMA["count"].check(10**5000)[1].hint == "no 64-bit integer"


@pytest.mark.parametrize("value", ["x" * 10**6, list(range(10**5)), "\x1b" * 500], ids=["long", "list", "escapes"])
def test_found_values_are_cut(value):
    assert len(show(value)) == 80 and show(value).endswith("...")


def test_near_misses():
    assert did_you_mean("EPOCH", ["epochs", "every"]) == "did you mean epochs?"
    assert did_you_mean("", ["epochs"]) == did_you_mean("zzz", []) == ""


def test_a_problem_is_one_harmless_line():
    problem = Problem("a\x1b[2J\nb", "x\ny", "z\u2028", "\x9b")
    assert str(problem) == r"a\x1b[2J\nb: found x\ny; allowed: z\u2028 (\x9b)"
    assert len(str(Problem("k" * 10**6, "a", "b"))) < 120
    error = SettingsError([problem, Problem("", "a", "b", source="other")], "dir\n/\x1bfile")
    assert str(error).splitlines() == [rf"dir\n/\x1bfile: {problem}", "other: found a; allowed: b"]
    assert [problem.source for problem in error.problems] == ["dir\n/\x1bfile", "other"]
