"""Feed: one thread that looks at the run store and tells the console what has changed. It never writes.

Run folders are read here and nowhere else in the console's loop, so that a slow disk never holds up a key press.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine import notes
from engine.errors import LregError
from engine.notes import Notes
from engine.runs import RunReader, RunStore
from engine.status import LIVE
from lreg_tui.followed import Followed, Series

INTERVAL_S = 1.0
SLOW_INTERVAL_S = 3.0  # --slow-link


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
    penalties: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    pinned: bool = False
    is_transfer: bool = False

    @property
    def is_live(self) -> bool:
        return self.state in LIVE

    @property
    def progress(self) -> float:
        """0 to 1."""
        return min(1.0, self.step / self.total) if self.total else 0.0


@dataclass
class _Known:
    """What is remembered of a run between two looks."""

    reader: RunReader
    facts: dict[str, Any]
    chosen: dict[str, Any]  # task, optimizer, penalties and tags of its preset, which never change
    stamp: tuple[Any, ...] = ()
    row: RunRow | None = None


class Feed:
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
        self.store = store
        self.interval = interval
        self.rows: tuple[RunRow, ...] = ()
        self._tell = tell
        self._known: dict[Path, _Known] = {}
        self._followed = Followed()
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
        self._nudge.set()

    def follow(self, paths: Mapping[str, Path]) -> None:
        """Read the metrics of these runs (id to folder) and of no others."""
        self._followed.follow(paths)
        self._nudge.set()

    def metrics(self, run_id: str) -> list[str]:
        """Names of the metrics that a followed run has so far."""
        return self._followed.metrics(run_id)

    def series(self, run_id: str, metric: str) -> Series | None:
        """A metric of a followed run as far as it is read: the same object while nothing was added."""
        return self._followed.series(run_id, metric)

    def _loop(self) -> None:
        while True:
            self._nudge.clear()
            if self._stop.is_set():
                return
            if not self.look():
                self._nudge.wait(self.interval)

    def look(self) -> bool:
        """One look at the store and at the followed runs. True if there is more to be read of one of these."""
        rows = tuple(self._scan())
        changed = rows != self.rows
        before = {row.path: row for row in self.rows}
        ended = [row for row in rows if not row.is_live and row.path in before and before[row.path].is_live]
        self.rows = rows
        fresh, is_behind = self._followed.poll(self.interval, self._nudge.is_set)
        if changed or fresh or self._first:
            self._first = False
            self._tell(rows if changed or not before else None, fresh, ended)
        return is_behind

    def _scan(self) -> Iterable[RunRow]:
        readers = [*self.store.list(), *self.store.transfers()]
        paths = {reader.path for reader in readers}
        self._known = {path: known for path, known in self._known.items() if path in paths}
        for reader in readers:
            known = self._known.get(reader.path)
            if known is None:
                known = self._known[reader.path] = _Known(reader, reader.facts, _chosen(reader))
            yield self._row(known)

    def _row(self, known: _Known) -> RunRow:
        """A run's row; files are read again only when they have changed, or while a process may die."""
        stamp = (_stamp(known.reader.path / "status.json"), _stamp(known.reader.path / notes.FILE))
        if known.row is not None and stamp == known.stamp and not known.row.is_live:
            return known.row
        status, remarks = known.reader.status(), notes.read(known.reader.path)
        latest = dict(status.latest)
        row = _make_row(known, remarks)
        known.row = replace(
            row,
            state=status.state,
            step=status.step,
            total=status.total,
            eta_s=status.eta_s,
            message=status.message,
            device=status.device,
            latest=latest,
        )
        known.stamp = stamp
        return known.row


def _make_row(known: _Known, remarks: Notes) -> RunRow:
    facts, chosen, reader = known.facts, known.chosen, known.reader
    seed = facts.get("seed")
    return RunRow(
        id=reader.id,
        path=reader.path,
        name=remarks.name or str(facts.get("name") or reader.id),
        state="",
        step=0,
        total=0,
        eta_s=None,
        created=reader.created,
        seed=seed if isinstance(seed, int) else None,
        message="",
        device="",
        latest={},
        task=chosen.get("task", ""),
        optimizer=chosen.get("optimizer", ""),
        penalties=chosen.get("penalties", ()),
        tags=tuple(dict.fromkeys((*chosen.get("tags", ()), *remarks.tags))),
        pinned=remarks.pinned,
        is_transfer=reader.is_transfer,
    )


def _chosen(reader: RunReader) -> dict[str, Any]:
    """What a run's preset picks, read without checking it: the catalog may not be there yet."""
    import tomli

    if reader.is_transfer:
        return {}
    try:
        values = tomli.loads(reader.preset_text)
        tasks = values.get("task", {})
        tasks = [tasks] if isinstance(tasks, dict) else tasks
        named = [f"{task.get('dataset', '?')}/{task.get('optimizee', '?')}" for task in tasks if isinstance(task, dict)]
        tags = values.get("tags", [])
        return {
            "task": "+".join(named),
            "optimizer": str(values.get("optimizer", {}).get("kind", "")),
            "penalties": tuple(map(str, values.get("penalty", {}))),
            "tags": tuple(map(str, tags)) if isinstance(tags, list) else (),
        }
    except (ValueError, TypeError, AttributeError, RecursionError, LregError):
        return {}


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)
