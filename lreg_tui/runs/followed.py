"""Followed: the metrics of the runs that are shown. One thread reads them while the console's thread draws them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from engine.runs.columns import MetricColumn, Stamps
from engine.runs.store import RunReader

if TYPE_CHECKING:
    from numpy import ndarray

REST_S = 0.0005  # between two pieces of a long file, so that a key press never waits for the reading thread


@dataclass(frozen=True)
class Series:
    """One metric of a run: meta-steps, seconds since the run's first record, and values; gaps are NaN.

    Nobody may write into the arrays.
    """

    steps: ndarray
    times: ndarray
    values: ndarray


class Followed:
    """`poll` belongs to the reading thread, everything else to the console's, which never waits for it."""

    def __init__(self) -> None:
        self._readers: dict[str, RunReader] = {}  # never changed, only replaced
        self._series: dict[tuple[str, str], tuple[MetricColumn, Series]] = {}
        self._elapsed: WeakKeyDictionary[Stamps, ndarray] = WeakKeyDictionary()  # of all columns with these stamps

    def follow(self, paths: Mapping[str, Path]) -> None:
        """Read the metrics of these runs (id to folder) and of no others."""
        self._readers = {run_id: self._readers.get(run_id) or RunReader(path) for run_id, path in paths.items()}
        self._series = {key: series for key, series in self._series.items() if key[0] in self._readers}

    def metrics(self, run_id: str) -> list[str]:
        """Names of the metrics that a run has so far."""
        reader = self._readers.get(run_id)
        return sorted(list(reader.columns)) if reader is not None else []

    def series(self, run_id: str, metric: str) -> Series | None:
        """A metric as far as it is read: the same object while nothing was added. None if there is nothing yet."""
        reader = self._readers.get(run_id)
        column = reader.columns.get(metric) if reader is not None else None
        if reader is None or column is None or not len(column):
            return None
        cached = self._series.get((run_id, metric))
        if cached is None or cached[0] is not column or len(cached[1].values) != len(column):
            cached = self._series[run_id, metric] = column, self._make_series(column, reader)
        return cached[1]

    def _make_series(self, column: MetricColumn, reader: RunReader) -> Series:
        import numpy

        values = numpy.asarray(column.values)  # first: of steps and times there are never fewer
        steps, times = (numpy.asarray(part)[: len(values)] for part in (column.steps, column.times))
        elapsed = self._elapsed.get(column.stamps)
        if elapsed is None or len(elapsed) < len(times):
            elapsed = self._elapsed[column.stamps] = times - _began(reader)
        return Series(steps, elapsed[: len(times)], values)

    def poll(self, budget_s: float, is_interrupted: Callable[[], bool]) -> tuple[frozenset[str], bool]:
        """Read on for about so long. Returns which runs have new records, and whether one has more to be read."""
        fresh, is_behind = set(), False
        readers = self._readers
        for run_id, reader in readers.items():
            until = time.monotonic() + budget_s / len(readers)
            restarts, count = reader.restarts, 0
            for records in reader.pieces():
                count += len(records)
                time.sleep(REST_S)
                if time.monotonic() > until or is_interrupted():
                    is_behind = True
                    break
            if count or reader.restarts != restarts:
                fresh.add(run_id)
        if fresh:
            import numpy  # noqa: F401  # here, not at the first drawing: it takes longer than a key press may
        return frozenset(fresh), is_behind


def _began(reader: RunReader) -> float:
    """Wall time (unix s) of a run's first record, from which its time axis counts."""
    first = (column.times[0] for column in list(reader.columns.values()) if len(column))
    return min(filter(math.isfinite, first), default=0.0)
