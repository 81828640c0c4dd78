"""Draws: settings that a preset gives as a range or as several choices, and the table that a seed draws of them.

A list where one value is wanted is drawn from: of numbers [low, high] a range, of words and truth values choices. A
list of lists is a choice between lists. This is plain data: presets are checked without torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.base import seeds
from engine.base.errors import Problem
from engine.base.settings import Setting, show

HELD_OUT_DRAWS = 5  # that stand for a table with ranges where tasks have to be fixed: transfers, landscapes

Families = Mapping[str, Mapping[str, Iterable[Setting]]]
"""The keys of a table that pick a member, and the settings of each member."""


class Range(tuple[Any, ...]):
    """(low, high), both ends included: log-uniform where low is above 0, else uniform."""

    def at(self, u: float) -> Any:
        """The value below which a part u, in [0, 1), of the draws lies.

        Of integers k is drawn with probability log((k + 1) / k) / log((high + 1) / low).
        """
        low, high = self
        if not isinstance(low, int):
            value = math.exp(_between(math.log(low), math.log(high), u)) if low > 0 else _between(low, high, u)
            return min(max(value, low), high)
        value = low * ((high + 1) / low) ** u if low > 0 else low + u * (high + 1 - low)
        return min(max(math.floor(value), low), high)


class ListRange(Range):
    """A range for a setting that is a list: what is drawn is a list of one."""

    def at(self, u: float) -> Any:
        return (super().at(u),)


class Choices(tuple[Any, ...]):
    """Different values, each as likely as the others."""

    def at(self, u: float) -> Any:
        return self[min(int(u * len(self)), len(self) - 1)]


@dataclass(frozen=True)
class DrawableSetting(Setting):
    """A setting that may be drawn from. `ranged`: a list of numbers is [low, high], and no value by itself."""

    ranged: bool = False

    def describe(self) -> str:
        """What is allowed, in words, and how it is drawn from."""
        alone = super().describe()
        if any(kind.endswith("[]") for kind in self.types):
            return f"{alone}; or [low, high] to draw from" if self.ranged else alone
        if self._is_number:
            return f"{alone}; or [low, high] to draw from"
        return f"{alone}; or a list of some to draw from" if self.choices else alone

    @property
    def _is_number(self) -> bool:
        return any(kind.startswith(("int", "float")) for kind in self.types)

    def check(self, value: Any) -> tuple[Any, Problem | None]:
        """As of any setting; what is drawn from becomes a Range or Choices."""
        if not self._is_drawn(value):
            return super().check(value)
        each = [[item] if self.ranged and not _is_list(item) else item for item in value]
        checked = [super(DrawableSetting, self).check(item) for item in each]
        misfit = next((item for item, (_, problem) in zip(value, checked, strict=True) if problem), None)
        if misfit is not None:
            return None, self._problem(value, f"{show(misfit)} does not fit")
        items = tuple(item for item, _ in checked)
        if self._is_range(value):
            if len(items) != 2 or not items[0] < items[1]:
                return None, self._problem(value, "the low end comes first" if len(items) == 2 else "it has two ends")
            return (ListRange(item[0] for item in items) if self.ranged else Range(items)), None
        if len(set(items)) < len(items) or not items:
            return None, self._problem(value, "it is empty" if not items else "one of them twice")
        return Choices(items), None

    def _is_drawn(self, value: Any) -> bool:
        """Whether a value is drawn from, if it fits."""
        if not _is_list(value):
            return False
        if not any(kind.endswith("[]") for kind in self.types):
            return True
        return any(map(_is_list, value)) or (self.ranged and len(value) > 1)

    def _is_range(self, value: Sequence[Any]) -> bool:
        return not any(map(_is_list, value)) and self._is_number

    def _problem(self, value: Sequence[Any], hint: str) -> Problem:
        if self.ranged and self._is_range(value):
            hint += f"; a list that is not drawn from: [{show(value)}]"
        return Problem(self.name, show(value), self.describe(), hint)


def drawable(schema: Iterable[Setting], table: Mapping[str, Any]) -> list[DrawableSetting]:
    """The settings of a table that may be drawn from, as the table has it.

    A list that `range_beside` names a key for is a range where the table gives that key, or draws from another.
    """
    plain = [DrawableSetting(**{**vars(item), "ranged": False}) for item in schema]
    draws = {item.name for item in plain if item._is_drawn(table.get(item.name))}
    return [
        DrawableSetting(**{**vars(item), "ranged": bool(table.get(item.range_beside) or draws - {item.name})})
        if item.range_beside
        else item
        for item in plain
    ]


def is_drawn(table: Mapping[str, Any]) -> bool:
    """Whether a checked table draws from something."""
    return any(isinstance(value, (Range, Choices)) for value in table.values())


def draw(table: Mapping[str, Any], seed: int, families: Families) -> dict[str, Any]:
    """A table of fixed values from a checked one: every key has a seed of its own, derived from `seed`.

    Keys that only members have which were not drawn are left out; defaults are not filled in.
    """
    values = {
        key: value.at((seeds.derive(seed, key) >> 10) / 2**53) if isinstance(value, (Range, Choices)) else value
        for key, value in table.items()
    }
    names = {key: {kind: {item.name for item in schema} for kind, schema in families[key].items()} for key in families}
    applicable = {name for key in names for name in names[key][values[key]]}
    foreign = {name for of_kinds in names.values() for name in set().union(*of_kinds.values())} - applicable
    return {key: value for key, value in values.items() if key not in foreign}


def held_out_seed(number: int) -> int:
    """The seed of a held-out draw, by its number: whatever a run's meta-seed, the same."""
    return seeds.derive(number, "held out")


def _between(low: float, high: float, u: float) -> float:
    return (1 - u) * low + u * high


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))
