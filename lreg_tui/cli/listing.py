"""The list that `lreg runs` prints: a line for each run, as wide as the terminal allows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.base.metrics import RECORDED, headline, metric
from engine.base.status import LIVE
from engine.runs.store import RunReader
from lreg_tui.cli import output
from lreg_tui.runs.actions import called
from lreg_tui.text import present

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

TESTED = tuple(name for name in RECORDED if metric(name).split == "test")
SORTS = (
    "id",
    "name",
    "state",
    "progress",
    "eta",
    "age",
    "meta_loss",
    "validation_loss",
    *TESTED,
    "adaptive_sharpness",
    "sharpness",
)


@dataclass(frozen=True)
class Listed:
    """One run as the list shows it. `figures`: the newest values of its metrics, those of its task as it has them."""

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
        tested = (key for key in latest if metric(key).split == "test")
        names = ("meta_loss", "validation_loss", *tested, "adaptive_sharpness", "sharpness")
        figures = {key: latest.get(key) for key in names}
        return cls(reader.id, name, status.state, status.step, status.total, status.eta_s, created, figures)

    def sort_value(self, key: str) -> Any:
        if key in ("id", "name", "state"):
            return getattr(self, key)
        counted = {
            "progress": self.step / self.total if self.total else 0.0,
            "eta": self.eta_s,
            "age": None if self.created is None else -self.created,
        }
        value = {**self.figures, **counted}.get(key)
        return value if value is not None and math.isfinite(value) else math.inf  # what diverged comes last


def _cells(item: Listed, metrics: Iterable[str]) -> dict[str, Text]:
    """The cells of a run by column heading, the most telling first."""
    from rich.text import Text

    return {
        "state": present.state_text(item.state),
        "done": Text(present.progress(item.step, item.total)),
        "age": Text(present.age(item.created)),
        "ETA": Text(present.duration(item.eta_s) if item.state in LIVE else ""),
        **{present.heading(name): _value(name, item.figures.get(name)) for name in metrics},
        "name": present.text(item.name),
    }


def _value(name: str, value: float | None) -> Text:
    is_lost = value is not None and not math.isfinite(value)
    return present.text(present.metric(name, value), "bold red" if is_lost else "")


def run_table(listed: list[Listed], width: int) -> Table:
    """As many columns as fit; the id is never cut, because it is there to be copied."""
    tested = [name for name in ("test_loss",) if any(item.figures.get(name) is not None for item in listed)]
    heads = dict.fromkeys(name for item in listed if (name := headline(item.figures).name) in item.figures)
    sharpness = [name for name in ("adaptive_sharpness",) if any(item.figures.get(name) is not None for item in listed)]
    metrics = ("meta_loss", "validation_loss", *tested, *sharpness, *heads, "sharpness")
    ids = [present.text(item.id) for item in listed]
    rows = [_cells(item, metrics) for item in listed]
    left = width - max(len(text) for text in ids)
    table = output.lined(("id",))
    headings = []
    for heading in rows[0]:
        needed = output.GAP + max(*map(len, heading.split("\n")), *(len(row[heading]) for row in rows))
        if needed <= left:
            left -= needed
            headings.append(heading)
            table.add_column(heading, no_wrap=True, justify="left" if heading in ("state", "name") else "right")
    for text, row in zip(ids, rows, strict=True):
        table.add_row(text, *(row[heading] for heading in headings))
    return table
