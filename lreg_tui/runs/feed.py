"""Feed: one thread that looks at the run store and tells the console what has changed. It never writes.

Run folders are read here and nowhere else in the console's loop, so that a slow disk never holds up a key press.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from engine.base.metrics import metric
from engine.base.status import LIVE, STOPPING, Status
from engine.runs import notes
from engine.runs.columns import MetricColumn, Stamps
from engine.runs.kinds import RUN, JobKind, kind_of
from engine.runs.notes import Notes
from engine.runs.reader import created_of
from engine.runs.store import RunReader, RunStore
from lreg_tui.charts.curve import exponential

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
            first = (other.times[0] for other in list(reader.columns.values()) if len(other))
            began = min(filter(math.isfinite, first), default=0.0)  # unix s, from which its time axis counts
            elapsed = self._elapsed[column.stamps] = times - began
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


INTERVAL_S = 1.0
SLOW_INTERVAL_S = 3.0  # --slow-link
SCREENFUL = 60  # runs that are told as soon as they are read
SLICE_S = 0.3  # between two times that those are told that are read by then
NO_FILE = (0, 0, 0)
SMOOTHING = 0.9  # share of the past in each smoothed value
LONGEST_TAIL = 1000  # values, of which the first count for nothing any more
SUMMARIES = ("smoothed", "best")  # of a metric, beside its newest value


@dataclass(frozen=True)
class RunRow:
    """One run as lists show it. Everything in it is data from strangers: `present.clean` before it is shown."""

    id: str
    path: Path
    name: str
    state: str
    step: int
    total: int
    eta_s: float | None
    created: float | None
    seed: int | None
    message: str
    device: str
    latest: Mapping[str, float | None] = field(hash=False)
    task: str = ""  # dataset/optimizee, several joined with +
    optimizer: str = ""  # kind of learned optimizer
    estimator: str = ""
    penalties: tuple[str, ...] = ()  # and terms of the objective
    tags: tuple[str, ...] = ()
    pinned: bool = False
    kind: JobKind = RUN
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)  # of its preset, by key path
    arm: str = ""  # the same for runs that differ by seed only
    of: tuple[str, ...] = ()  # ids of the runs that a transfer job evaluates
    summaries: Mapping[str, float | None] = field(default_factory=dict, hash=False)  # see Feed.summarize

    @property
    def is_live(self) -> bool:
        return self.state in (*LIVE, STOPPING)

    @property
    def progress(self) -> float:
        """0 to 1."""
        return min(1.0, self.step / self.total) if self.total else 0.0


class _KnownRun:
    """What is remembered of a run between two looks. run.json and preset.toml never change, and are read once."""

    def __init__(self, reader: RunReader) -> None:
        self.reader = reader
        self._read_document()
        self.stamp: tuple[Any, ...] = ()
        self.row: RunRow | None = None
        self.figures: dict[str, float] = {}  # from the metrics, where the status tells of none
        self.summaries: dict[str, float] = {}
        self.read: tuple[Any, ...] = (NO_FILE, frozenset())  # which metrics these are from, and what was summarized
        self.metrics: RunReader | None = None  # while they are being read, or written

    def _read_document(self) -> None:
        self.facts = self.reader.facts
        self.kind = kind_of(self.reader.path, self.facts)
        from lreg_tui.runs.chosen import chosen  # with the engine's presets: after the first paint

        self.chosen = chosen(self.reader, self.kind)

    def look(self) -> RunRow:
        """The run's row; files are read again only when they have changed, or while a process may die."""
        stamp = (_stamp(self.reader.path / "status.json"), _stamp(self.reader.path / notes.FILE))
        if not self.facts:  # of a run that is being made run.json comes last
            self._read_document()
        elif self.row is not None and stamp == self.stamp and not self.row.is_live:
            return self.row
        self.stamp = stamp
        self.row = self._make_row(self.reader.status(), notes.read(self.reader.path))
        return self.row

    def _make_row(self, status: Status, remarks: Notes) -> RunRow:
        facts, seed = self.facts, self.facts.get("seed")
        overrides = {**self.chosen}
        title, tags = overrides.pop("title", "") or str(facts.get("name") or self.reader.id), overrides.pop("tags", ())
        return RunRow(
            id=self.reader.id,
            path=self.reader.path,
            name=remarks.name or title,
            state=status.told,
            step=status.step,
            total=status.total,
            eta_s=status.eta_s if status.state in LIVE else None,
            created=created_of(facts),
            seed=seed if isinstance(seed, int) else None,
            message=status.message,
            device=status.device,
            latest=dict(status.latest) or self.figures,
            tags=tuple(dict.fromkeys((*tags, *remarks.tags))),
            pinned=remarks.pinned,
            kind=self.kind,
            summaries=self.summaries,
            **overrides,
        )

    def read_metrics(self, summarized: frozenset[str], is_enough: Callable[[], bool]) -> bool:
        """Summarize metrics; and of an ended run whose status has no figures take the newest, as curves do.

        True if that has changed the row, or has still to be gone on with.
        """
        row = self.row
        if row is None or not row.kind.has_curves:
            return False
        lacks_figures = not row.is_live and row.latest is self.figures
        stamp = (_stamp(row.path / "metrics.jsonl"), summarized)
        if stamp == self.read or not (summarized or lacks_figures):
            return False
        if self.metrics is None or summarized != self.read[1]:
            self.metrics = RunReader(row.path, wanted=None if lacks_figures else summarized.__contains__)
            self.read = (NO_FILE, summarized)
        for _ in self.metrics.pieces():
            if is_enough():
                return True
            time.sleep(REST_S)
        self.read, self.summaries = stamp, _summaries(self.metrics, summarized)
        if lacks_figures:
            self.figures = self.metrics.figures()
        self.row = replace(row, latest=self.figures if lacks_figures else row.latest, summaries=self.summaries)
        self.metrics = self.metrics if row.is_live else None
        return True


def row_of(reader: RunReader) -> RunRow:
    """A run as it is now, for whoever looks once."""
    row = _KnownRun(reader).look()
    return row if row.latest else replace(row, latest=reader.figures())


class Feed(Followed):
    """Looks at a run store every `interval` seconds, in a thread of its own; `tell` is called there with what changed.

    `tell` gets rows (or None), ids of followed runs with new records, and rows of runs that have ended since the last
    look. Metrics are read of followed runs only.
    """

    def __init__(
        self,
        store: RunStore,
        tell: Callable[[tuple[RunRow, ...] | None, frozenset[str], list[RunRow]], None],
        interval: float = INTERVAL_S,
    ) -> None:
        super().__init__()
        self.store = store
        self.interval = interval
        self.rows: tuple[RunRow, ...] = ()
        self.is_whole = False  # every run is in them
        self._tell = tell
        self._known: dict[Path, _KnownRun] = {}
        self._summarized: frozenset[str] = frozenset()
        self._is_due = False  # the store is to be looked at now
        self._stop = threading.Event()
        self._nudge = threading.Event()
        self._thread: threading.Thread | None = None
        self._first = True

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name="feed", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._nudge.set()

    def look_now(self) -> None:
        """Do not wait for the next turn: something was started, stopped or deleted."""
        self._is_due = True
        self._nudge.set()

    def follow(self, paths: Mapping[str, Path]) -> None:
        super().follow(paths)
        self._nudge.set()

    def summarize(self, metrics: Iterable[str]) -> None:
        """Have these metrics of every run smoothed, and at their best, in `summaries` ("meta_loss best"): they come as
        they are read."""
        self._summarized = frozenset(metrics)
        self.look_now()

    def _loop(self) -> None:
        looked = -math.inf
        while True:
            self._nudge.clear()
            if self._stop.is_set():
                return
            if is_due := self._is_due or time.monotonic() - looked >= self.interval:
                self._is_due, looked = False, time.monotonic()
            if not self.look(is_due):
                self._nudge.wait(max(0.0, looked + self.interval - time.monotonic()))

    def look(self, at_store: bool = True) -> bool:
        """One look at the followed runs, and before that at the store. True if there is more to be read of a run.

        The store is left out where only other runs are followed, as at each step of a cursor: it may be large.
        """
        rows = self._scan() if at_store else self.rows
        changed = rows != self.rows or (at_store and not self.is_whole)
        before = {row.path: row for row in self.rows}
        ended = [row for row in rows if not row.is_live and row.path in before and before[row.path].is_live]
        self.rows, self.is_whole = rows, self.is_whole or at_store
        fresh, is_behind = self.poll(self.interval, self._nudge.is_set)
        if changed or fresh or self._first:
            self._first = False
            self._tell(rows if changed or not before else None, fresh, ended)
        return (at_store and self._read_metrics()) or is_behind

    def _scan(self) -> tuple[RunRow, ...]:
        """Every row, oldest first. Of many new runs the newest are told before the others are read."""
        readers = {reader.path: reader for reader in (*self.store.list(), *self.store.transfers())}
        self._known = {path: run for path, run in self._known.items() if path in readers}
        new = [reader for path, reader in readers.items() if path not in self._known]
        self._meet(sorted(new, key=lambda reader: reader.id, reverse=True), list(readers))
        return tuple(self._known[path].look() for path in readers)

    def _meet(self, new: Sequence[RunReader], paths: Sequence[Path]) -> None:
        """Read runs that were not there before, the newest first, and tell in between what is known by then."""
        told = time.monotonic() - SLICE_S  # the first ones at once
        for number, reader in enumerate(new):
            if number >= SCREENFUL and time.monotonic() - told > SLICE_S and not self._stop.is_set():
                rows = [self._known[path].row for path in paths if path in self._known]
                self.rows, self.is_whole = tuple(row for row in rows if row is not None), False
                fresh, _ = self.poll(SLICE_S / 4, self._nudge.is_set)
                self._tell(self.rows, fresh, [])
                told = time.monotonic()
            run = self._known[reader.path] = _KnownRun(reader)
            run.look()

    def _read_metrics(self) -> bool:
        """Read for about so long; True if there is more, or something to be told."""
        until = time.monotonic() + self.interval
        is_enough = lambda: time.monotonic() > until or self._nudge.is_set()  # noqa: E731
        every, names = reversed(self._known.values()), self._summarized
        return any([run.read_metrics(names, is_enough) for run in every if not is_enough()])


def _summaries(reader: RunReader, metrics: frozenset[str]) -> dict[str, float]:
    """Of each metric the mean that a curve smoothed by SMOOTHING ends in, and its best value."""
    if not metrics:
        return {}
    import numpy

    summaries: dict[str, float] = {}
    for name in (name for name in metrics if name in reader.columns):
        values = numpy.asarray(reader.columns[name].values, dtype=float)
        if len(values := values[numpy.isfinite(values)]):
            best = values.max() if metric(name).better == "higher" else values.min()
            smoothed = exponential(values[-LONGEST_TAIL:], SMOOTHING)[-1]
            summaries |= {f"{name} smoothed": float(smoothed), f"{name} best": float(best)}
    return summaries


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        file_stat = os.stat(path)
    except OSError:
        return NO_FILE
    return (file_stat.st_mtime_ns, file_stat.st_size, file_stat.st_ino)
