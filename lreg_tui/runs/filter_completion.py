"""What a filter's last word may become while it is typed: a field, a metric, or a value that runs have."""

from __future__ import annotations

from collections.abc import Iterable

from engine.base.metrics import RECORDED
from lreg_tui.runs.feed import RunRow
from lreg_tui.runs.filters import COUNTED, FIELDS, KINDS, STATE_NAMES, words


def complete(text: str, rows: Iterable[RunRow]) -> str:
    """The text with its last word completed: a field, or a value that runs have. Just the text, if nothing fits."""
    start = max(text.rfind(" "), text.rfind("-", 0, text.rfind(" ") + 2)) + 1
    word = text[start:]
    name, colon, value = word.partition(":")
    if not word or '"' in word:
        return text
    if not colon:
        offered = [*(f"{field}:" for field in FIELDS), *(f"{metric}<" for metric in (*COUNTED, *RECORDED))]
        return text[:start] + _first(offered, word)
    value = value.rpartition(",")[2]
    return text[: len(text) - len(value)] + _first(_values(name.lower(), rows), value)


def _values(name: str, rows: Iterable[RunRow]) -> list[str]:
    if name == "state":
        return list(STATE_NAMES)
    if name == "is":
        return list(KINDS)
    if name not in ("task", "optimizer", "penalty", "tag"):
        return []
    return sorted({word for row in rows for word in words(row, name) if word.isprintable() and " " not in word})


def _first(offered: Iterable[str], start: str) -> str:
    return next((word for word in offered if word.lower().startswith(start.lower())), start) if start else start
