"""Ending: for every screen that can be left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.await_complete import AwaitComplete
from textual.screen import Screen

if TYPE_CHECKING:
    Base = Screen[Any]
else:
    Base = object


class Ending(Base):
    """A screen's `dismiss` takes away this screen and no other, however often and whenever it is called.

    Textual takes away whatever lies on top. One that has others above it, as its work has ended by itself, waits until
    these are gone; one that is gone already does nothing.
    """

    _result: tuple[Any] | None = None  # that it waits with

    @property
    def is_current(self) -> bool:
        """Not below one that covers all: Textual 8.2 draws that one again for each change on the one below it."""
        return super().is_current and (self.is_active or self.app.screen.styles.background.a < 1)

    def dismiss(self, result: Any = None) -> AwaitComplete:
        if self.is_active:
            return super().dismiss(result)
        self._result = (result,)
        return AwaitComplete()

    def action_leave(self) -> Any:
        self.dismiss(None)

    def on_screen_resume(self) -> None:
        if self._result is not None:
            self.dismiss(*self._result)
