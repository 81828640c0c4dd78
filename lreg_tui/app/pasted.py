"""Pastes: what is pasted is text, never keys. It is told from keys before escape sequences are looked for.

Textual 8.2 takes an escape code within a paste for the paste's end, and runs the rest as keys. Terminals that do not
mark pastes send them like keys; but nobody types that fast.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from functools import partial

from textual import events
from textual._xterm_parser import BRACKETED_PASTE_END, BRACKETED_PASTE_START, XTermParser
from textual.drivers import linux_driver
from textual.message import Message

from lreg_tui.text.log_file import ESCAPES
from lreg_tui.text.present import without_controls

LEAST_BURST, LEAST_DISTINCT = 24, 8  # characters that come at once and are no held key
BURST_S = 0.1  # what comes so soon after a burst belongs to it


def install(takes_text: Callable[[], bool]) -> None:
    """Read the terminal's input so from now on. `takes_text`: whether a text field has the focus."""
    linux_driver.XTermParser = partial(PasteParser, takes_text)  # type: ignore[misc,assignment]


class PasteParser(XTermParser):
    """Gives Paste events for marked pastes, whatever they hold, and for bursts of text that are not marked."""

    def __init__(self, takes_text: Callable[[], bool], debug: bool = False) -> None:
        super().__init__(debug)
        self._takes_text = takes_text
        self._pasting: str | None = None  # what of a marked paste has come so far
        self._recent = ""  # the end of what came before, which a mark may begin with
        self._burst_until = 0.0

    def feed(self, data: str) -> Iterable[Message]:
        if not data:
            yield from super().feed(data)
            return
        while data:
            if self._pasting is None:
                data = yield from self._keys(data)
            else:
                data = yield from self._paste(data)

    def _keys(self, data: str) -> Generator[Message, None, str]:
        """Pass on keys up to a paste's mark; returns what comes after that."""
        start = (self._recent + data).find(BRACKETED_PASTE_START)
        if start < 0:
            self._recent = (self._recent + data)[1 - len(BRACKETED_PASTE_START) :]
            is_burst = self._is_burst(data)
            yield from [events.Paste(without_controls(data))] if is_burst else super().feed(data)
            return ""
        end = start + len(BRACKETED_PASTE_START) - len(self._recent)
        self._recent, self._pasting = "", ""
        yield from super().feed(data[:end])
        return data[end:]

    def _paste(self, data: str) -> Generator[Message, None, str]:
        """Take what is pasted up to its last mark; returns what comes after that."""
        pasted = (self._pasting or "") + data
        limit = pasted.find(BRACKETED_PASTE_START)
        end = pasted.rfind(BRACKETED_PASTE_END, 0, limit if limit >= 0 else None)
        if end < 0:
            end = pasted.find(BRACKETED_PASTE_END)
        if end < 0:
            self._pasting = pasted
            return ""
        self._pasting = None
        yield events.Paste(without_controls(pasted[:end]))
        for message in super().feed(BRACKETED_PASTE_END):
            if not isinstance(message, events.Paste):  # Textual's own, of nothing
                yield message
        return pasted[end + len(BRACKETED_PASTE_END) :]

    def _is_burst(self, data: str) -> bool:
        now = time.monotonic()
        letters = [character for character in ESCAPES.sub("", data) if character.isprintable()]
        is_text = len(letters) >= LEAST_BURST and len(set(letters)) >= LEAST_DISTINCT
        goes_on = now < self._burst_until and bool(letters)
        acts = "\x1b" in data or "\r" in data.rstrip("\r")  # it would leave the field, and the rest be keys
        if not (is_text or goes_on) or (self._takes_text() and not acts):  # into a field it goes as typed
            return False
        self._burst_until = now + BURST_S
        return True
