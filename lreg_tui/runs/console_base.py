"""ConsoleBase: what the console offers its screens, and tells them. They know this, and the console knows them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual.message import Message
from textual.notifications import SeverityLevel
from textual.screen import Screen

from engine.runs.kinds import TRANSFER
from engine.runs.store import RunStore
from lreg_tui.runs.actions import Trash
from lreg_tui.runs.feed import Feed, RunRow
from lreg_tui.system.config import Config
from lreg_tui.system.session import Session
from lreg_tui.text.present import clean
from lreg_tui.widgets.dialog import ConfirmScreen, Ending, News
from lreg_tui.widgets.keys import KeysInOrder


@dataclass
class RunsChanged(News):
    """The run store has changed: every row, oldest first. A slow terminal may skip all but the newest."""

    rows: tuple[RunRow, ...]

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, RunsChanged)


@dataclass
class SeriesChanged(News):
    """Runs that are followed have new records: ask the feed for their series."""

    run_ids: frozenset[str]

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, SeriesChanged) and message.run_ids <= self.run_ids


@dataclass
class RunEnded(Message):
    """A run that was live when the console last looked has ended."""

    row: RunRow


class ConsoleBase(KeysInOrder):
    """The app, as its screens see it."""

    store: RunStore
    data_dir: Path | None
    slow_link: bool
    config: Config
    feed: Feed
    trash: Trash
    remembered: Session
    under_way: set[tuple[str, Path]]  # what is being done to runs: its name, and the run's folder

    def row(self, run_id: str) -> RunRow | None:
        return next((row for row in self.feed.rows if row.id == run_id), None)

    def remember(self, screen: str, **values: object) -> None:
        """Keep a screen's values for the next time."""
        self.remembered = self.remembered.with_view(screen, **values)

    @abstractmethod
    def open(self, screen: str, *arguments: Any, **options: Any) -> None:
        """Put a screen above the others, by its name."""

    def open_run(self, run_id: str) -> None:
        row = self.row(run_id)  # of a transfer job the screen that can start more of them
        self.open(*("transfer", (run_id,)) if row is not None and row.kind is TRANSFER else ("run", run_id))

    def open_compare(self, run_ids: Sequence[str], **where: Any) -> None:
        """`where`: the tab to begin with, task and inner step."""
        self.open("compare", run_ids, **where)

    def open_transfer(self, run_ids: Sequence[str]) -> None:
        self.open("transfer", run_ids)

    def open_study(self, path: Path) -> None:
        self.open("study", path)

    def open_editor(self, preset: str = "") -> None:
        """On a shipped preset's name, a file's path, or to pick one first."""
        self.open("editor", preset)


class ConsoleScreen(Ending, Screen[None]):
    """A screen of the console: it knows the app, tells and asks. What it tells may have been written by strangers."""

    @property
    def lreg(self) -> ConsoleBase:
        return self.app  # type: ignore[return-value]

    def tell(self, message: str, severity: SeverityLevel = "information") -> None:
        self.app.notify(clean(message, 400), severity=severity, markup=False)

    async def agree(self, question: str, yes: str, note: str = "") -> bool:
        return await self.app.push_screen_wait(ConfirmScreen(question, note=note, yes=yes))
