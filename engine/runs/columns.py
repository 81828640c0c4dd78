"""Columns: the metrics of a run in memory, small enough for runs of a million records.

Metrics that always come together share their steps and times, and values that 32 bits hold exactly take no more. What
has been handed out is never moved or changed, so another thread may look at it while records are added.
"""

from __future__ import annotations

import math
import mmap
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from engine.base.status import as_figure, is_number

STAMPS = ("step", "t")  # what a record says of itself; every other number in it is a metric
PLAIN = {float, int, type(None)}  # exact types of the values that need no closer look: True is an int as well
LEAST_ROOM = 64  # values
GREATEST = 1e308  # see is_number
MAPPED = 2**16  # bytes from which memory is mapped: it is not taken before it is filled
STRETCH = 2**12  # values widened at a time, so that other threads come to their turn


class Numbers:
    """A growing row of floats, of 64 or (`narrow`) of 32 bits until a value needs more; `view` is all so far."""

    def __init__(self, *, narrow: bool = False) -> None:
        self._code: Literal["d", "f"] = "f" if narrow else "d"
        self._memory = _room(self._code, LEAST_ROOM)
        self.view = self._memory[:0].toreadonly()  # set last, whole: others may read it at any time

    def __len__(self) -> int:
        return len(self.view)

    def extend(self, values: array[float]) -> None:
        """Add float64 values."""
        fitting = values
        if self._code == "f":
            fitting = array("f", values)
            if array("d", fitting).tobytes() != values.tobytes():  # bytes: NaN is not equal to itself
                self._widen()
                fitting = values
        done, length = len(self.view), len(self.view) + len(values)
        if length > len(self._memory):
            grown = _room(self._code, max(length, 2 * len(self._memory)))
            grown[:done] = self.view
            self._memory = grown
        self._memory[done:length] = memoryview(fitting)
        self.view = self._memory[:length].toreadonly()

    def copy(self) -> Numbers:
        other = Numbers(narrow=self._code == "f")
        other._memory = _room(self._code, len(self._memory))
        other._memory[: len(self)] = self.view
        other.view = other._memory[: len(self)].toreadonly()
        return other

    def _widen(self) -> None:
        length, wide = len(self.view), _room("d", len(self._memory))
        for start in range(0, length, STRETCH):
            end = min(start + STRETCH, length)
            wide[start:end] = memoryview(array("d", self.view[start:end]))
        self._code, self._memory = "d", wide
        self.view = wide[:length].toreadonly()


class Stamps:
    """Steps and wall times of the records that some metrics share."""

    def __init__(self, users: int) -> None:
        self.steps, self.times = Numbers(), Numbers()
        self.users = users

    def split(self, users: int) -> Stamps:
        """Stamps of their own for so many of the metrics."""
        other = Stamps(users)
        other.steps, other.times = self.steps.copy(), self.times.copy()
        self.users -= users
        return other

    def extend(self, steps: array[float], times: array[float]) -> None:
        self.times.extend(times)
        self.steps.extend(steps)


class Column:
    """One metric: step, wall time (unix s) and value of each of its records, as memoryviews; null values are NaN.

    A value may be NaN or infinite: so it is where training diverged. Steps and known times are finite.

    Values have 64 or 32 bits; the numbers are those of the file either way.
    """

    def __init__(self, stamps: Stamps) -> None:
        self.stamps = stamps
        self.numbers = Numbers(narrow=True)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def values(self) -> Sequence[float]:
        return self.numbers.view

    @property
    def steps(self) -> Sequence[float]:
        return self.stamps.steps.view[: len(self)]

    @property
    def times(self) -> Sequence[float]:
        return self.stamps.times.view[: len(self)]


class Columns(dict[str, Column]):
    """Metric to column. `wanted` says which metrics are kept; without it all are."""

    def __init__(self, wanted: Callable[[str], bool] | None = None) -> None:
        super().__init__()
        self.wanted = wanted

    def _is_kept(self, key: str) -> bool:
        return self.wanted is None or key in STAMPS or self.wanted(key)

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Add records, each with a step that is a finite number; what is no number in them is left out."""
        start = 0
        for place, record in enumerate(records):  # records of one kind come in long rows
            if record.keys() != records[start].keys():
                self._add_alike(records[start:place])
                start = place
        self._add_alike(records[start:])

    def _add_alike(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Add records that have the same keys."""
        if not records:
            return
        found = {
            key: _plain([record[key] for record in records], only_finite=key in STAMPS)
            for key in filter(self._is_kept, records[0])
        }
        if any(values is None for values in found.values()):
            for record in records:
                self._add_checked(record)
            return
        plain = {key: values for key, values in found.items() if values is not None}
        steps, times = plain.pop("step"), plain.pop("t", None)
        self._extend(steps, array("d", [math.nan]) * len(records) if times is None else times, plain)

    def _add_checked(self, record: Mapping[str, Any]) -> None:
        when = record.get("t")
        time = when if when is not None and is_number(when) else math.nan
        metrics = {key: as_figure(value) for key, value in record.items() if key not in STAMPS and self._is_kept(key)}
        values = {key: array("d", [value]) for key, value in metrics.items() if value is not None}
        self._extend(array("d", [record["step"]]), array("d", [time]), values)

    def _extend(self, steps: array[float], times: array[float], values: Mapping[str, array[float]]) -> None:
        """Stamps first: a column's values are never more than they are."""
        for stamps in self._stamps(values):
            stamps.extend(steps, times)
        for metric, numbers in values.items():
            self[metric].numbers.extend(numbers)

    def _stamps(self, metrics: Iterable[str]) -> list[Stamps]:
        """The stamps of these metrics, from now on shared with no other metric."""
        new = [metric for metric in metrics if metric not in self]
        first = Stamps(len(new))
        self.update((metric, Column(first)) for metric in new)
        sharing: dict[int, list[Column]] = {}
        for metric in metrics:
            sharing.setdefault(id(self[metric].stamps), []).append(self[metric])
        return [_own(columns) for columns in sharing.values()]


def _own(columns: Sequence[Column]) -> Stamps:
    """The stamps that these columns share, without the others that did."""
    stamps = columns[0].stamps
    if stamps.users > len(columns):
        stamps = stamps.split(len(columns))
        for column in columns:
            column.stamps = stamps
    return stamps


def _plain(values: list[Any], only_finite: bool) -> array[float] | None:
    """Values as floats, null as NaN; None where one of them needs a closer look: it may be no number, or too large."""
    kinds = set(map(type, values))
    if not kinds <= PLAIN:
        return None
    has_nulls = type(None) in kinds
    try:
        found = array("d", [math.nan if value is None else value for value in values] if has_nulls else values)
    except OverflowError:  # a whole number beyond all floats
        return None
    return found if not only_finite or sum(map(abs, filter(None, values))) < GREATEST else None


def _room(code: Literal["d", "f"], count: int) -> memoryview[float]:
    size = count * array(code).itemsize
    if size < MAPPED:
        return memoryview(bytearray(size)).cast(code)
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)).cast(code)
