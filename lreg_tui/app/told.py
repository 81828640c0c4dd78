"""ToldScreen: what the console has told so far, the newest first."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.binding import BindingType

from lreg_tui.widgets.dialog import Page
from lreg_tui.widgets.keys import bind

STYLES = {"error": "bold red", "warning": "yellow"}


@dataclass(frozen=True)
class Told:
    """A message, when it came (unix seconds), and how severe it is."""

    message: str
    severity: str
    time: float


class ToldScreen(Page):
    """Each message with its time of day."""

    BINDINGS: ClassVar[list[BindingType]] = [bind("messages", "leave", show=False)]

    def __init__(self, told: Iterable[Told]) -> None:
        super().__init__("Messages")
        self.told = list(told)

    def body(self) -> Text:
        text = Text() if self.told else Text("nothing yet", "dim")
        for each in reversed(self.told):
            text.append(time.strftime("%H:%M:%S  ", time.localtime(each.time)), "dim")
            text.append(f"{each.message}\n", STYLES.get(each.severity, ""))
        return text
