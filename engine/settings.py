"""Settings: declared once, as dataclass fields beside the code that uses them.

A field carries its default, bounds and one line of help. From the fields come the check of a preset, `--set`, the
console's form and the docs. A schema is plain data, so it can be checked without importing the code it belongs to.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import Problem

_SCALARS: dict[type, str] = {bool: "bool", int: "int", float: "float", str: "str"}
_WORDS = {
    "bool": "true or false",
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "int[]": "a list of integers",
    "float[]": "a list of numbers",
    "str[]": "a list of strings",
}


@dataclass(frozen=True)
class Setting:
    """One key of a preset: its types (one or several of `_WORDS`), default, bounds and help."""

    name: str
    types: tuple[str, ...]
    default: Any
    help: str
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    allow_empty: bool = False

    def describe(self) -> str:
        """What is allowed, in words: "a number >= 0", "one of: sgd, adam"."""
        if self.choices:
            return "one of: " + ", ".join(self.choices)
        bounds = []
        if self.minimum is not None:
            bounds.append(f">= {self.minimum:g}")
        if self.above is not None:
            bounds.append(f"> {self.above:g}")
        if self.maximum is not None:
            bounds.append(f"<= {self.maximum:g}")
        words = " or ".join(_WORDS[kind] for kind in self.types)
        return f"{words} {' and '.join(bounds)}".rstrip()

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Setting:
        frozen = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**frozen)

    def check(self, value: Any) -> tuple[Any, Problem | None]:
        """Return the value in its canonical form, or the problem with it (its path is this setting's name)."""
        for kind in self.types:
            is_list = kind.endswith("[]")
            if is_list != isinstance(value, (list, tuple)):
                continue
            items = [_scalar(item, kind.removesuffix("[]")) for item in (value if is_list else [value])]
            if any(item is None for item in items) or (is_list and not items and not self.allow_empty):
                continue
            if all(self._within(item) for item in items):
                return (tuple(items) if is_list else items[0]), None
        hint = ""
        if self.choices and isinstance(value, str):
            hint = did_you_mean(value, self.choices)
        return None, Problem(self.name, show(value), self.describe(), hint)

    def _within(self, item: Any) -> bool:
        if self.choices:
            return item in self.choices
        if isinstance(item, float) and not math.isfinite(item):
            return False
        return not (
            (self.minimum is not None and item < self.minimum)
            or (self.above is not None and item <= self.above)
            or (self.maximum is not None and item > self.maximum)
        )


def _scalar(value: Any, kind: str) -> Any:
    """Return value as `kind`, or None where it is of another type. An integer is a fine float; a bool is no integer."""
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return None
    if kind == "float" and isinstance(value, int):
        try:
            return float(value)
        except OverflowError:
            return None
    return value if isinstance(value, {"int": int, "float": float, "str": str}[kind]) else None


def setting(
    default: Any,
    *,
    help: str,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    choices: Iterable[str] = (),
    allow_empty: bool = False,
) -> Any:
    """A dataclass field that is a preset key. Bounds: minimum and maximum inclusive, `above` exclusive."""
    extra = {"help": help, "minimum": minimum, "above": above, "maximum": maximum}
    metadata = {**extra, "choices": tuple(choices), "allow_empty": allow_empty}
    return dataclasses.field(default=default, metadata=metadata)


def schema_of(cls: type) -> tuple[Setting, ...]:
    """The settings of a dataclass, in the order of declaration, inherited ones first."""
    hints = typing.get_type_hints(cls)
    return tuple(
        Setting(name=field.name, types=_type_names(hints[field.name]), default=field.default, **field.metadata)
        for field in dataclasses.fields(cls)
        if "help" in field.metadata
    )


def _type_names(annotation: Any) -> tuple[str, ...]:
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return tuple(name for part in typing.get_args(annotation) for name in _type_names(part))
    if annotation in _SCALARS:
        return (_SCALARS[annotation],)
    if typing.get_origin(annotation) is tuple:
        return (f"{_SCALARS[typing.get_args(annotation)[0]]}[]",)
    raise TypeError(f"a setting cannot have the type {annotation!r}")


def check_table(
    table: Mapping[str, Any], schema: Iterable[Setting], path: str = ""
) -> tuple[dict[str, Any], list[Problem]]:
    """Check one table against its schema: every value (defaults filled in), and every problem."""
    known = {item.name: item for item in schema}
    prefix = f"{path}." if path else ""
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, item in known.items():
        value, problem = item.check(table[name]) if name in table else (item.default, None)
        if problem is not None:
            problems.append(dataclasses.replace(problem, path=prefix + problem.path))
        values[name] = value
    for key in table:
        if key not in known:
            problems.append(unknown_key(prefix + key, known))
    return values, problems


def unknown_key(path: str, known: Iterable[str]) -> Problem:
    names = list(known)
    return Problem(path, "an unknown key", ", ".join(names) or "nothing here", did_you_mean(path.split(".")[-1], names))


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    near = difflib.get_close_matches(word.lower(), list(candidates), n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else ""


def show(value: Any) -> str:
    """A found value as it would stand in TOML, cut to a readable length, with its type where that is the surprise."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, (list, tuple)):
        text = "[" + ", ".join(show(item) for item in value) + "]"
    else:
        text = repr(value) if not isinstance(value, str) else '"' + value.encode("unicode_escape").decode() + '"'
    return text if len(text) <= 80 else text[:77] + "..."
