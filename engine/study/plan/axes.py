"""Axes of a study file: a list of values, a grid between two numbers, or a range for a search. Without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from engine.base.errors import Problem
from engine.base.settings import LARGEST, Setting, check_table, show
from engine.presets.former import todays_path
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
        if isinstance(value, Mapping) and value and not any(item.name in value for item in RANGE):
            yield from leaves(value, here)
        else:
            yield here, value


def flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """The values of nested or dotted tables by their full path, the last word last; parts of a range come together."""
    values: dict[str, Any] = {}
    for dotted, value in leaves(table):
        path = dotted.removesuffix(".")
        before = values.pop(path, None)
        together = isinstance(value, Mapping) and isinstance(before, Mapping)
        values[path] = {**before, **value} if together else value
    return values


def taken_apart(values: Mapping[str, Any]) -> dict[str, Any]:
    """A study file's tables, `set` and `axes` by full paths, those of its arms as well: so --set has the last word."""

    def apart(key: str, value: Any) -> Any:
        if key == "arm" and isinstance(value, list):
            return [taken_apart(arm) if isinstance(arm, Mapping) else arm for arm in value]
        if key not in KEYED or not isinstance(value, Mapping):
            return value
        # An empty table takes away what is there: --set must not write into it, so "penalty" is "penalty." here.
        return {path if leaf != {} or "." in path else f"{path}.": leaf for path, leaf in flat(value).items()}

    return {key: apart(key, value) for key, value in values.items()}


def read_axes(table: Mapping[str, Any], path: str, searched: bool) -> tuple[list[Axis], list[Problem]]:
    """The axes of a table, and what is wrong with them. `searched`: a range is one to search in, without points."""
    axes, problems = [], []
    for written, value in flat(table).items():
        axis = read_axis(todays_path(written), value, f"{path}.{written}", searched)
        axes += [axis] if isinstance(axis, Axis) else []
        problems += axis if isinstance(axis, list) else []
    return axes, problems


def read_axis(key: str, value: Any, path: str, searched: bool) -> Axis | list[Problem]:
    """One axis, or what is wrong with it."""
    if key == "seed":
        return [Problem(path, "an axis over the meta-seed", "seeds = [...], for all arms")]
    if key in SPEAKING:
        return [Problem(path, f"an axis over {key}", "a key that changes a run's figures")]
    if isinstance(value, Mapping):
        return _range(key, value, path, searched)
    if not isinstance(value, list) or not value:
        return [Problem(path, show(value), ALLOWED, "it is empty" if value == [] else f"write [{show(value)}]")]
    odd = [item for item in value if not _is_value(item)]
    if odd:
        return [Problem(path, show(value), ALLOWED, f"{show(odd[0])} does not fit")]
    if len({json.dumps(float(item) if type(item) is int else item) for item in value}) < len(value):
        return [Problem(path, show(value), "different values")]
    return Axis(key, tuple(value))


def _range(key: str, table: Mapping[str, Any], path: str, searched: bool) -> Axis | list[Problem]:
    values, problems = check_table(table, RANGE, path)
    low, high, log, integer = values["from"], values["to"], not values["linear"], values["integer"]
    if not problems:
        needed = [item for item in RANGE[: 2 if searched else 3] if item.name not in table]
        problems = [Problem(f"{path}.{item.name}", "nothing", item.describe()) for item in needed]
        if searched and "points" in table:
            allowed = "from and to only, as the study has a [search]"
            problems.append(Problem(f"{path}.points", show(table["points"]), allowed))
    if problems:
        return problems
    if log and low <= 0:
        problems.append(Problem(f"{path}.from", show(low), "a number > 0", "linear = true allows others"))
    if high <= low:
        problems.append(Problem(f"{path}.to", show(high), f"a number > {show(low)}, which is from"))
    if integer and not (low.is_integer() and high.is_integer() and max(abs(low), abs(high)) < LARGEST):
        problems.append(Problem(path, show([low, high]), "whole numbers from and to, as integer = true"))
    if problems:
        return problems
    if searched:
        return Axis(key, (), low, high, log, integer)
    return Axis(key, tuple(grid(low, high, values["points"], log=log, integer=integer)))


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


def _is_value(item: Any) -> bool:
    if isinstance(item, list):
        return bool(item) and all(_is_value(part) and not isinstance(part, list) for part in item)
    return math.isfinite(item) if isinstance(item, float) else isinstance(item, (bool, int, str))
