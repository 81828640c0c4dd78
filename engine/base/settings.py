"""Settings: declared once, as dataclass fields beside the code that uses them.

A field carries its default, bounds and one line of help. From the fields come the check of a preset, `--set`, the
console's form and the docs. A schema is plain data, so it can be checked without importing the code it belongs to.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.base.errors import MOST_PROBLEMS, Problem, printable, shortened

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
UNKNOWN = "an unknown key"
LONGEST_WORD = 200  # characters of what may be a slip of the pen
LARGEST = 2**63 - 1  # of TOML's integers, and of what they end in


class Typed(float):
    """A number that knows how it was written, as "1e-5" or "0.010": where it names something, it is called so."""

    text: str

    def __new__(cls, text: str | float) -> Typed:
        number = super().__new__(cls, text)
        number.text = str(text)
        return number

    def __str__(self) -> str:
        """As it was written, where that is a number in TOML, too: not .5 and 5."""
        return self.text if _TOML_NUMBER.fullmatch(self.text) else float.__repr__(self)


_TOML_NUMBER = re.compile(r"[+-]?(0|[1-9](_?\d)*)(\.\d(_?\d)*)?([eE][+-]?\d(_?\d)*)?|[+-]?(inf|nan)")


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
    as_typed: bool = False  # numbers keep the form in which they were written
    is_path: bool = False  # of a file or folder that must be named; a relative one is made absolute
    range_beside: str = ""  # a key beside which a list of this one is [low, high] (`draws`)

    def describe(self) -> str:
        """What is allowed, in words: "a number >= 0", "one of: sgd, adam"."""
        if self.choices:
            each = "a list of" if self.types[0].endswith("[]") else "one of"
            return f"{each}: {', '.join(self.choices)}"
        bounds = []
        if self.minimum is not None:
            bounds.append(f">= {_bound(self.minimum)}")
        if self.above is not None:
            bounds.append(f"> {_bound(self.above)}")
        if self.maximum is not None:
            bounds.append(f"<= {_bound(self.maximum)}")
        words = " or ".join(_WORDS[kind] for kind in self.types)
        return f"{words} {' and '.join(bounds)}".rstrip()

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Setting:
        frozen: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**frozen)

    def check(self, value: Any) -> tuple[Any, Problem | None]:
        """Return the value in its canonical form, or the problem with it (its path is this setting's name)."""
        for kind in self.types:
            fit = self._as(kind, value)
            if fit is not None:
                return (_absolute(fit) if self.is_path else fit), None
        return None, Problem(self.name, show(value), self.describe(), self._hint(value))

    def _as(self, kind: str, value: Any) -> Any:
        """The value as `kind` in its canonical form, or None where it does not fit."""
        is_list = kind.endswith("[]")
        if is_list != isinstance(value, (list, tuple)):
            return None
        items = [_scalar(item, kind.removesuffix("[]")) for item in (value if is_list else [value])]
        if not self.as_typed:
            items = [float(item) if isinstance(item, Typed) else item for item in items]
        if any(item is None or not self._within(item) for item in items) or not (items or self.allow_empty):
            return None
        return tuple(items) if is_list else items[0]

    def _fits(self, value: Any) -> bool:
        return any(self._as(kind, value) is not None for kind in self.types)

    def _hint(self, value: Any) -> str:
        """What was probably meant by a value that does not fit."""
        if isinstance(value, (list, tuple)):
            if not value or not any(kind.endswith("[]") for kind in self.types):
                return "" if value else "it is empty"
            return next((f"{show(item)} does not fit" for item in value if not self._fits([item])), "")
        if self.choices:
            return did_you_mean(value, self.choices) if isinstance(value, str) else ""
        if isinstance(value, int) and abs(value) > LARGEST:
            return "no 64-bit integer"
        if isinstance(value, str):
            meant = _meant(value)
            if meant is not None and self._fits(meant):
                return f"write {show(meant)} without quotes"
        if isinstance(value, float) and value.is_integer() and self._fits(int(value)):
            return f"write {show(int(value))}"
        if self._fits([value]):
            return f"write [{show(value)}]"
        if "str" not in self.types or isinstance(value, Mapping):
            return ""
        return "no Unicode text" if isinstance(value, str) else f'write "{show(value)}", in quotes'

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


def _absolute(path: str) -> str:
    """A path from the root on, by the working folder of whoever wrote it; "" names nothing and stays."""
    try:
        return os.path.abspath(os.path.expanduser(path)) if path else path
    except OSError:  # the working folder is gone
        return path


def _bound(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


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
    if not isinstance(value, {"int": int, "float": float, "str": str}[kind]):
        return None
    if isinstance(value, int) and abs(value) > LARGEST:
        return None
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        return None  # half of a character, or bytes that are not UTF-8: cannot be written to a file
    return value


def _meant(text: str) -> Any:
    """The number, truth value or list of numbers that a string spells, or None."""
    word = text.strip().lower()
    if word in ("true", "false"):
        return word == "true"
    if "," in word:
        items = [_meant(item) for item in word.strip("[]").split(",")]
        return None if None in items else items
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            pass
    return None


def setting(
    default: Any,
    *,
    help: str,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    choices: Iterable[str] = (),
    allow_empty: bool = False,
    as_typed: bool = False,
    is_path: bool = False,
    range_beside: str = "",
) -> Any:
    """A dataclass field that is a preset key. Bounds: minimum and maximum inclusive, `above` exclusive.

    `as_typed`: its numbers keep the form in which they were written, as `Typed`. `is_path`: it names a file or folder,
    and has to; a relative path is taken from the working folder, and kept absolute. `range_beside`: a key of the same
    table; where that is given, or another is drawn from, a list [low, high] of this setting is drawn from.
    """
    metadata = {key: value for key, value in locals().items() if key != "default"}
    metadata["choices"] = tuple(choices)
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
    named = {item.name: item for item in schema}
    prefix = f"{path}." if path else ""
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, item in named.items():
        value, problem = item.check(table[name]) if name in table else (item.default, None)
        if problem is not None:
            problems.append(dataclasses.replace(problem, path=prefix + problem.path))
        values[name] = value
    for key in table:
        if key not in named:
            is_told = len(problems) < MOST_PROBLEMS  # of the rest nobody sees more than their number
            problems.append(unknown_key(f"{prefix}{key}", named) if is_told else Problem(f"{prefix}{key}", UNKNOWN, ""))
    return values, problems


def unknown_key(path: str, allowed: Iterable[str]) -> Problem:
    names = list(allowed)
    return Problem(path, UNKNOWN, ", ".join(names) or "nothing here", did_you_mean(path.split(".")[-1], names))


def did_you_mean(word: str, candidates: Iterable[str], cutoff: float = 0.6) -> str:
    if len(word) > LONGEST_WORD:
        return ""
    near = _nearest(word.lower(), tuple(candidates), cutoff)
    return f"did you mean {near[0]}?" if near else ""


@functools.lru_cache(256)  # the same mistake may stand in thousands of tables
def _nearest(word: str, candidates: tuple[str, ...], cutoff: float) -> list[str]:
    return difflib.get_close_matches(word, candidates, n=1, cutoff=cutoff)


def show(value: Any) -> str:
    """A found value as it would stand in TOML, on one line, cut to a readable length."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Typed):
        return show(float(value))
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, (list, tuple)):
        return shortened("[" + ", ".join(show(item) for item in value[:100]) + "]")
    if isinstance(value, str):
        quoted = value[:100].replace("\\", "\\\\").replace('"', '\\"')
        return shortened(f'"{printable(quoted)}"')
    if isinstance(value, int) and abs(value) >= 10**40:
        return f"an integer of about {math.floor(value.bit_length() * math.log10(2)) + 1} digits"
    return shortened(printable(str(value)))
