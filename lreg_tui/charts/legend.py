"""Legend: each line's mark, label and value in as many rows as there are, or shorter, or not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from lreg_tui.charts import frame

GAP = 3  # columns between entries
SHORTEST = 8  # columns that a label needs to be told from others
USUAL_VALUE = 6  # columns of most values: room is kept, so that legends do not jump while values change

BETWEEN_WORDS = " -_./"  # of a label

Runs = list[tuple[str, int]]


class Entry(NamedTuple):
    mark: str
    label: str
    value: str
    role: int


def lay_out(entries: Sequence[Entry], width: int, rows: int, whole: bool = False) -> list[Runs]:
    """Runs of text and role for each row of the legend; no rows where it does not fit (`whole`: with all labels)."""
    if not entries or rows < 1:
        return []
    value = max(cell_len(entry.value) for entry in entries)
    value = max(value, USUAL_VALUE) if value else 0
    longest = max(cell_len(entry.label) for entry in entries)
    for used in range(1, rows + 1):
        across = -(-len(entries) // used)
        room = (width + GAP) // across - GAP - 2 - 1 - value
        if room >= longest or (used == rows and room >= SHORTEST and not whole):
            shown = entries if room >= longest else told_apart(entries)
            label = min(room, max(cell_len(entry.label) for entry in shown))
            return [_row(shown[start : start + across], label, value) for start in range(0, len(shown), across)]
    if not whole and (2 + value + GAP) * len(entries) - GAP <= width:
        return [_row(entries, 0, value)]
    return []


def told_apart(entries: Sequence[Entry]) -> Sequence[Entry]:
    """The entries without the words that all labels begin with, else all that is left where room is short."""
    common = os.path.commonprefix([entry.label for entry in entries])
    words = max(common.rfind(between) + 1 for between in BETWEEN_WORDS)
    if len(entries) < 2 or words < 2:
        return entries
    return [entry._replace(label="…" + entry.label[words:]) for entry in entries]


def shorten(text: str, width: int) -> str:
    """Text on at most `width` columns."""
    return text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 0)) + "…" if width > 0 else ""


def _row(entries: Sequence[Entry], label: int, value: int) -> Runs:
    runs: Runs = []
    for number, entry in enumerate(entries):
        is_last = number == len(entries) - 1
        runs.append((f"{entry.mark} ", entry.role))
        if label:
            runs.append((set_cell_size(shorten(entry.label, label), label) + " ", frame.QUIET))
        runs.append((entry.value if is_last else entry.value.ljust(value + GAP), frame.VALUE))
    return runs
