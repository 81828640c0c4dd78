"""Columns: the metrics of a run in memory, small enough for runs of a million records.

Metrics that always come together share their steps and times. What has been handed out is never moved or changed, so
another thread may look at it while records are added.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from engine.base.status import as_figure, is_number

STAMPS = ("step", "t")  # what a record says of itself; every other number in it is a metric
PLAIN = {float, int, type(None)}  # exact types of the values that need no closer look: True is an int as well
LEAST_ROOM = 64  # values
GREATEST = 1e308  # see is_number


class Numbers:
    """A growing row of float64; `view` is all so far."""

    def __init__(self) -> None:
        self._memory = _room(LEAST_ROOM)
        self.view = self._memory[:0].toreadonly()  # set last, whole: others may read it at any time

    def extend(self, values: Sequence[float]) -> None:
        """Add float64 values."""
        length, before = len(self.view) + len(values), len(self.view)
        if length > len(self._memory):
            grown = _room(max(length, 2 * len(self._memory)))
            grown[:before] = self.view
            self._memory = grown
        self._memory[before:length] = memoryview(array("d", values))
        self.view = self._memory[:length].toreadonly()


def _room(count: int) -> memoryview[float]:
    return memoryview(bytearray(8 * count)).cast("d")


class Stamps:
    """Steps and wall times of the records that some metrics, `users` of them, share."""

    def __init__(self, users: int, steps: Sequence[float] = (), times: Sequence[float] = ()) -> None:
        self.steps, self.times = Numbers(), Numbers()
        self.users = users
        self.extend(steps, times)

    def split(self, users: int) -> Stamps:
        """Stamps of their own for so many of the metrics."""
        self.users -= users
        return Stamps(users, self.steps.view, self.times.view)

    def extend(self, steps: Sequence[float], times: Sequence[float]) -> None:
        self.times.extend(times)
        self.steps.extend(steps)


class MetricColumn:
    """One metric: step, wall time (unix s) and value of each of its records, as memoryviews; null values are NaN.

    A value may be NaN or infinite: so it is where training diverged. Steps and known times are finite.
    """

    def __init__(self, stamps: Stamps) -> None:
        self.stamps = stamps
        self.numbers = Numbers()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def values(self) -> Sequence[float]:
        return self.numbers.view

    @property
    def steps(self) -> Sequence[float]:
        return self.stamps.steps.view[: len(self)]

    @property
    def times(self) -> Sequence[float]:
        return self.stamps.times.view[: len(self)]


class Columns(dict[str, MetricColumn]):
    """Metric to column. `wanted` says which metrics are kept; without it all are."""

    def __init__(self, wanted: Callable[[str], bool] | None = None) -> None:
        super().__init__()
        self.wanted = wanted

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Add records, each with a step that is a finite number; what is no number in them is left out."""
        start = 0
        for end, record in enumerate(records):  # records of one kind come in long rows
            if record.keys() != records[start].keys():
                self._add_alike(records[start:end])
                start = end
        self._add_alike(records[start:])

    def _add_alike(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Add records that have the same keys."""
        names = [name for name in (records[0] if records else ()) if self._is_kept(name)]
        plain = {name: _plain([record[name] for record in records], only_finite=name in STAMPS) for name in names}
        values = {name: numbers for name, numbers in plain.items() if numbers is not None}
        if len(values) < len(names):
            for record in records:
                self._add_checked(record)
        elif records:
            steps, times = values.pop("step"), values.pop("t", None)
            self._extend(steps, times or [math.nan] * len(records), values)

    def _add_checked(self, record: Mapping[str, Any]) -> None:
        time = record.get("t")
        metrics = {name: as_figure(record[name]) for name in record if name not in STAMPS and self._is_kept(name)}
        values = {name: [value] for name, value in metrics.items() if value is not None}
        self._extend([record["step"]], [time if time is not None and is_number(time) else math.nan], values)

    def _is_kept(self, name: str) -> bool:
        return self.wanted is None or name in STAMPS or self.wanted(name)

    def _extend(self, steps: Sequence[float], times: Sequence[float], values: Mapping[str, Sequence[float]]) -> None:
        """Stamps first: a column's values are never more than they are."""
        for stamps in self._stamps(values):
            stamps.extend(steps, times)
        for name, numbers in values.items():
            self[name].numbers.extend(numbers)

    def _stamps(self, names: Iterable[str]) -> list[Stamps]:
        """The stamps of these metrics, from now on shared with no other metric."""
        new = [name for name in names if name not in self]
        fresh = Stamps(len(new))
        self.update((name, MetricColumn(fresh)) for name in new)
        sharing: dict[Stamps, list[MetricColumn]] = {}
        for name in names:
            sharing.setdefault(self[name].stamps, []).append(self[name])
        for stamps, columns in list(sharing.items()):
            if stamps.users > len(columns):
                split = stamps.split(len(columns))
                sharing[split] = sharing.pop(stamps)
                for column in columns:
                    column.stamps = split
        return list(sharing)


def _plain(values: list[Any], only_finite: bool) -> Sequence[float] | None:
    """Values as floats, null as NaN; None where one of them needs a closer look: it may be no number, or too large."""
    kinds = set(map(type, values))
    if not kinds <= PLAIN:
        return None
    has_nulls = type(None) in kinds
    try:
        numbers = array("d", [math.nan if value is None else value for value in values] if has_nulls else values)
    except OverflowError:  # a whole number beyond all floats
        return None
    return numbers if not only_finite or sum(map(abs, filter(None, values))) < GREATEST else None
