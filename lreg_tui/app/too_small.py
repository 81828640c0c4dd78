"""What stands in place of every screen while the terminal is too small for one."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Static

from lreg_tui.widgets.ending import Ending


class TooSmallScreen(Ending, ModalScreen[None]):
    """Says how large the terminal has to be; goes away by itself when it is."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("q", "app.quit", "quit", show=False)]
    DEFAULT_CSS = """
    TooSmallScreen { align: center middle; background: $background; }
    TooSmallScreen > Static { width: 100%; text-align: center; }
    """

    def __init__(self, columns: int, lines: int) -> None:
        super().__init__()
        self.wanted = f"lreg needs {columns} x {lines}; runs go on meanwhile"

    def compose(self) -> ComposeResult:
        yield Static(self.wanted, markup=False)
