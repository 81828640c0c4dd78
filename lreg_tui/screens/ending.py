"""Ending: for screens whose work ends by itself, while another screen may lie above them."""

from __future__ import annotations

from typing import Any, cast

from textual.screen import Screen


class Ending:
    """A screen's `end` is its `dismiss`, but waits until it is on top: Textual takes away whatever lies there."""

    _result: tuple[Any] | None = None  # that it waits with

    def end(self, result: Any = None) -> None:
        screen = cast("Screen[Any]", self)
        if screen.is_active:
            screen.dismiss(result)
        else:
            self._result = (result,)

    def on_screen_resume(self) -> None:
        if self._result is not None:
            cast("Screen[Any]", self).dismiss(*self._result)
