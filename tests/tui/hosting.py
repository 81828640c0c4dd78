"""A console without its dashboard, for tests of single screens. Import it as `tui.hosting`."""

from __future__ import annotations

from pathlib import Path

from textual.screen import Screen

from engine.runs.store import RunStore
from lreg_tui.app.console import LregApp
from lreg_tui.widgets.dialog import Ending


class Empty(Ending, Screen[None]):
    """What lies below the screen that a test is about, and can be covered as those of the console."""


class Host(LregApp):
    """The console's keys, feed and themes above an empty screen. What it remembers is kept in `folder`."""

    def __init__(self, store: RunStore, folder: Path) -> None:
        super().__init__(store, session_path=folder / "console.json")

    def get_default_screen(self) -> Empty:
        return Empty()
