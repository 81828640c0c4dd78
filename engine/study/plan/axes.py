"""Axes of a study file: a list of values, a grid between two numbers, or a range for a search. Without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from engine.base.errors import Problem
from engine.base.settings import LARGEST, Setting, check_table, show
from engine.study.plan.plan import SPEAKING, Axis

RANGE = (
    Setting("from", ("float",), None, "the least value"),
    Setting("to", ("float",), None, "the greatest value"),
    Setting("points", ("int",), None, "how many values, both ends included", minimum=2, maximum=10_000),
    Setting("linear", ("bool",), False, "equal differences instead of equal ratios"),
    Setting("integer", ("bool",), False, "whole numbers only"),
)
KEYED = ("set", "axes")  # tables of a study and of its arms whose keys are key paths of a preset
DIGITS = 6  # significant ones of a grid's points
ALLOWED = "a list of values, or { from = ..., to = ..., points = ... }"


def leaves(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of nested or dotted tables by their full path; an empty table and a range are values."""
    for key, value in table.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping) and value and not _is_range(value):
            yield from leaves(value, here)
        else:
            yield here, value


def flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """The values of nested or dotted tables by their full path, the last word last; parts of a range come together."""
    found: dict[str, Any] = {}
    for dotted, value in leaves(table):
        path = dotted.removesuffix(".")
        before = found.pop(path, None)
        together = isinstance(value, Mapping) and isinstance(before, Mapping)
        found[path] = {**before, **value} if together else value
    return found


def taken_apart(values: Mapping[str, Any]) -> dict[str, Any]:
    """A study file's tables, `set` and `axes` by full paths, those of its arms as well: so --set has the last word."""

    def apart(table: Any) -> Any:
        if not isinstance(table, Mapping):
            return table
        return {
            key: whole(found) if key in KEYED and isinstance(found, Mapping) else found for key, found in table.items()
        }

    def whole(table: Mapping[str, Any]) -> Any:
        # An empty table takes away what is there: --set must not write into it, so "penalty" is "penalty." here.
        return {key if value != {} or "." in key else f"{key}.": value for key, value in flat(table).items()}

    arms = values.get("arm")
    return apart({**values, "arm": [apart(arm) for arm in arms]} if isinstance(arms, list) else values)


def read_axes(table: Mapping[str, Any], path: str, searched: bool) -> tuple[list[Axis], list[Problem]]:
    """The axes of a table, and what is wrong with them. `searched`: a range is one to search in, without points."""
    axes, problems = [], []
    for key, found in flat(table).items():
        axis, wrong = read_axis(key, found, f"{path}.{key}", searched)
        problems += wrong
        if axis is not None:
            axes.append(axis)
    return axes, problems


def read_axis(key: str, found: Any, path: str, searched: bool) -> tuple[Axis | None, list[Problem]]:
    """One axis, or what is wrong with it."""
    if key == "seed":
        return None, [Problem(path, "an axis over the meta-seed", "seeds = [...], for all arms")]
    if key in SPEAKING:
        return None, [Problem(path, f"an axis over {key}", "a key that changes a run's figures")]
    if isinstance(found, Mapping):
        return _range(key, found, path, searched)
    if not isinstance(found, list) or not found:
        hint = "it is empty" if found == [] else f"write [{show(found)}]" if not isinstance(found, Mapping) else ""
        return None, [Problem(path, show(found), ALLOWED, hint)]
    odd = [item for item in found if not _is_value(item)]
    if odd:
        return None, [Problem(path, show(found), ALLOWED, f"{show(odd[0])} does not fit")]
    if len({json.dumps(float(item) if type(item) is int else item) for item in found}) < len(found):
        return None, [Problem(path, show(found), "different values")]
    return Axis(key, tuple(found)), []


def _range(key: str, found: Mapping[str, Any], path: str, searched: bool) -> tuple[Axis | None, list[Problem]]:
    values, problems = check_table(found, RANGE, path)
    problems = problems or _range_rules(found, values, path, searched)
    if problems:
        return None, problems
    log = not values["linear"]
    if searched:
        return Axis(key, (), values["from"], values["to"], log, values["integer"]), []
    points = grid(values["from"], values["to"], values["points"], log=log, integer=values["integer"])
    return Axis(key, tuple(points)), []


def _range_rules(found: Mapping[str, Any], values: Mapping[str, Any], path: str, searched: bool) -> list[Problem]:
    """What concerns more than one key of a range."""
    needed = ["from", "to"] if searched else ["from", "to", "points"]
    problems = [Problem(f"{path}.{name}", "nothing", _range_setting(name)) for name in needed if name not in found]
    if searched and "points" in found:
        problems.append(
            Problem(f"{path}.points", show(found["points"]), "from and to only, as the study has a [search]")
        )
    low, high = values["from"], values["to"]
    if problems or low is None or high is None:
        return problems
    if not values["linear"] and low <= 0:
        problems.append(Problem(f"{path}.from", show(low), "a number > 0", "linear = true allows others"))
    if high <= low:
        problems.append(Problem(f"{path}.to", show(high), f"a number > {show(low)}, which is from"))
    if values["integer"] and not (low.is_integer() and high.is_integer() and max(abs(low), abs(high)) < LARGEST):
        problems.append(Problem(path, show([low, high]), "whole numbers from and to, as integer = true"))
    return problems


def grid(low: float, high: float, points: int, *, log: bool, integer: bool) -> list[Any]:
    """Values from low to high, both included, with equal ratios (log) or differences."""
    values = []
    for index in range(points):
        share = index / (points - 1)
        value = low * (high / low) ** share if log else low + (high - low) * share
        value = low if index == 0 else high if index == points - 1 else float(f"{value:.{DIGITS}g}")
        values.append(round(value) if integer else value)
    return list(dict.fromkeys(values))


def ends(axis: Axis) -> tuple[Any, ...]:
    """The values between which, or among which, an axis is searched; all of a grid's."""
    if axis.low is None or axis.high is None:
        return axis.values
    both = (axis.low, axis.high)
    return tuple(map(round, both)) if axis.integer else both


def _range_setting(name: str) -> str:
    return next(item.describe() for item in RANGE if item.name == name)


def _is_range(table: Mapping[str, Any]) -> bool:
    return any(item.name in table for item in RANGE)


def _is_value(item: Any) -> bool:
    if isinstance(item, list):
        return bool(item) and all(_is_value(part) and not isinstance(part, list) for part in item)
    if isinstance(item, float):
        return math.isfinite(item)
    return isinstance(item, (bool, int, str))
