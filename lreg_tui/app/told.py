"""ToldScreen: what the console has told so far, the newest first."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import ClassVar

from rich.text import Text
from textual.binding import BindingType

from lreg_tui.widgets.dialog import Page
from lreg_tui.widgets.keys import bind

STYLES = {"error": "bold red", "warning": "yellow"}


class ToldScreen(Page):
    """`told`: each message, how severe it is, and when it came (unix seconds)."""

    BINDINGS: ClassVar[list[BindingType]] = [bind("messages", "leave", show=False)]

    def __init__(self, told: Iterable[tuple[str, str, float]]) -> None:
        super().__init__("Messages")
        self.told = list(told)

    def body(self) -> Text:
        text = Text() if self.told else Text("nothing yet", "dim")
        for message, severity, when in reversed(self.told):
            text.append(time.strftime("%H:%M:%S  ", time.localtime(when)), "dim")
            text.append(f"{message}\n", STYLES.get(severity, ""))
        return text
