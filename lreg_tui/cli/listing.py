"""The list that `lreg runs` prints: a line for each run, as wide as the terminal allows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.base.status import LIVE
from engine.runs.store import RunReader
from lreg_tui.cli import output
from lreg_tui.runs.actions import called
from lreg_tui.text import present

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

FIGURES = ("meta_loss", "validation_loss", "test_accuracy", "sharpness")
SORTS = ("id", "name", "state", "progress", "eta", "age", *FIGURES)
HEADINGS = {
    **{key: present.label(key) for key in FIGURES},
    "test_accuracy": "test acc.",
    "validation_loss": "valid. loss",
}


@dataclass(frozen=True)
class Listed:
    """One run as the list shows it."""

    id: str
    name: str
    state: str
    step: int
    total: int
    eta_s: float | None
    created: float | None
    figures: dict[str, float | None]

    @classmethod
    def of(cls, reader: RunReader) -> Listed:
        status = reader.status()
        name, created = called(reader), reader.created
        latest = status.latest or reader.figures()  # of the metrics themselves, where a status tells none
        figures = {key: latest.get(key) for key in FIGURES}
        return cls(reader.id, name, status.state, status.step, status.total, status.eta_s, created, figures)

    def sort_value(self, key: str) -> Any:
        if key in ("id", "name", "state"):
            return getattr(self, key)
        value = {
            "progress": self.step / self.total if self.total else 0.0,
            "eta": self.eta_s,
            "age": None if self.created is None else -self.created,
            **self.figures,
        }[key]
        return value if value is not None and math.isfinite(value) else math.inf  # what diverged comes last


def _columns(item: Listed) -> dict[str, Text]:
    """The cells of a run by column heading, the most telling first."""
    from rich.text import Text

    return {
        "state": present.state_text(item.state),
        "done": Text(present.progress(item.step, item.total)),
        "age": Text(present.age(item.created)),
        "ETA": Text(present.duration(item.eta_s) if item.state in LIVE else ""),
        **{HEADINGS[key]: _figure(key, item.figures[key]) for key in FIGURES},
        "name": present.text(item.name),
    }


def _figure(name: str, value: float | None) -> Text:
    is_lost = value is not None and not math.isfinite(value)
    return present.text(present.metric(name, value), "bold red" if is_lost else "")


def run_table(listed: list[Listed], width: int) -> Table:
    """As many columns as fit; the id is never cut, because it is there to be copied."""
    from rich import box
    from rich.table import Table

    ids = [present.text(item.id) for item in listed]
    rows = [_columns(item) for item in listed]
    left = width - max(len(text) for text in ids)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("id", overflow="fold")
    shown = []
    for heading in rows[0]:
        needed = output.GAP + max(len(heading), *(len(row[heading]) for row in rows))
        if needed <= left:
            left -= needed
            shown.append(heading)
            table.add_column(heading, no_wrap=True, justify="left" if heading in ("state", "name") else "right")
    for text, row in zip(ids, rows, strict=True):
        table.add_row(text, *(row[heading] for heading in shown))
    return table
