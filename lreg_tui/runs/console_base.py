"""ConsoleBase: what the console offers its screens. They know this, and the console knows them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.runs.store import RunStore
from lreg_tui.runs.feed import Feed, RunRow
from lreg_tui.runs.trash import Trash
from lreg_tui.system.config import Config
from lreg_tui.system.session import Session
from lreg_tui.widgets.key_order import KeysInOrder


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

    @abstractmethod
    def row(self, run_id: str) -> RunRow | None: ...

    @abstractmethod
    def remember(self, screen: str = "", **values: object) -> None:
        """Keep a screen's values (and the theme) for the next time."""

    @abstractmethod
    def open_run(self, run_id: str) -> None: ...

    @abstractmethod
    def open_compare(self, run_ids: Sequence[str], **where: Any) -> None:
        """`where`: the tab to begin with, task and inner step."""

    @abstractmethod
    def open_transfer(self, run_ids: Sequence[str]) -> None: ...

    @abstractmethod
    def open_study(self, path: Path) -> None:
        """A study, by its folder."""

    @abstractmethod
    def open_editor(self, preset: str = "") -> None:
        """The preset editor: on a shipped preset's name, a file's path, or to pick one first."""
