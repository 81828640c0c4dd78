"""What the preset form is made of: the list of its lines, and the field that narrows it down."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input, OptionList


class SettingList(OptionList):
    """The lines of the form. Up and down pass over headings."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space", "select", "edit", key_display="enter")]


class FilterInput(Input):
    """Words that narrow the form down."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,down", "leave", "to the list", key_display="enter"),
        Binding("escape", "forget", "no filter"),
    ]

    class Left(Message):
        """The user is done with it."""

    def action_leave(self) -> None:
        self.post_message(self.Left())

    def action_forget(self) -> None:
        self.value = ""
        self.post_message(self.Left())
