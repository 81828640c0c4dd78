"""What the console knows of studies: read from their folders, for a thread. Damage found there is told, not raised."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.base.errors import LregError
from engine.base.status import LIVE
from engine.runs.reader import RunReader
from engine.runs.store import RunStore
from engine.study.plan.snapshot import DAMAGE, Watcher
from engine.study.plan.state import plan_of
from lreg_tui.runs.feed import RunRow
from lreg_tui.studies.study_rows import StudyLook, look_at

IDLE_S = 10.0  # the runs of a study that nobody schedules are counted again after so long
REPORT = Path("report", "report.md")


class Watched:
    """One study, looked at again and again; by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.reader = RunReader(path)
        self._watcher: Watcher | None = None

    def look(self) -> StudyLook:
        row = row_of(self.reader)
        report = (self.reader.path / REPORT).is_file()
        try:
            watcher = self._watcher = self._watcher or Watcher(plan_of(self.reader.path), self.reader.path)
            return look_at(watcher.look(), row, report)
        except DAMAGE as error:
            said = str(error).splitlines()[0] if isinstance(error, LregError) else f"damaged ({type(error).__name__})"
            return StudyLook(row, has_report=report, problem=said if "study.json" in said else f"study.json: {said}")


@dataclass
class StudyList:
    """The studies of a store, between two looks. What takes time is `count`, one study after the other."""

    store: RunStore
    rows: tuple[RunRow, ...] = ()  # newest first
    looks: dict[str, StudyLook] = field(default_factory=dict)  # by id
    _watched: dict[str, Watched] = field(default_factory=dict)
    _counted: dict[str, float] = field(default_factory=dict)  # when

    def look(self) -> Sequence[str]:
        """Read how the studies are, and return those whose runs are to be counted."""
        self.rows = tuple(row_of(reader) for reader in reversed(self.store.studies()))
        ids = {row.id for row in self.rows}
        for known in (self.looks, self._watched, self._counted):
            for gone in known.keys() - ids:
                del known[gone]
        now = time.monotonic()
        return [row.id for row in self.rows if row.is_live or now - self._counted.get(row.id, -IDLE_S) >= IDLE_S]

    def count(self, study_id: str) -> None:
        path = next((row.path for row in self.rows if row.id == study_id), None)
        if path is not None:
            self.looks[study_id] = self._watched.setdefault(study_id, Watched(path)).look()
            self._counted[study_id] = time.monotonic()


def row_of(reader: RunReader) -> RunRow:
    """A study's own folder, as lists show a run."""
    facts, status = reader.facts, reader.status()
    return RunRow(
        id=reader.id,
        path=reader.path,
        name=str(facts.get("name") or reader.id),
        state=status.told,
        step=status.step,
        total=status.total,
        eta_s=status.eta_s if status.state in LIVE else None,
        created=reader.created,
        seed=None,
        message=status.message,
        device="",
        latest={},
    )
