"""The list that `lreg runs` prints: a line for each run, as wide as the terminal allows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from engine.base.errors import SettingsError
from engine.base.metrics import RECORDED, headline, metric
from engine.base.settings import Setting
from lreg_tui.cli import output
from lreg_tui.runs import filters
from lreg_tui.runs.feed import RunRow
from lreg_tui.runs.run_columns import column
from lreg_tui.text import present

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

USUAL = ("meta_loss", "validation_loss", "adaptive_sharpness", "sharpness")
TESTED = tuple(name for name in RECORDED if metric(name).split == "test")
SORTS = ("id", "name", "state", "progress", "eta", "age", *USUAL[:2], *TESTED, *USUAL[2:])


def checked_key(option: str, key: str, rows: Sequence[RunRow]) -> str:
    """A column of these runs: one of SORTS, a metric, or a setting by the end of its path. Raises SettingsError."""
    names = filters.names_of(rows)
    if key in SORTS or key in names:
        return key
    paths = filters.settings_called(key, names)
    if len(paths) == 1:
        return paths[0]
    _, problem = Setting(option, ("str",), "", "", choices=tuple(paths) or SORTS).check(key)
    raise SettingsError([problem] if problem is not None else [])


def sort_value(row: RunRow, key: str) -> Any:
    """What comes first; what has none, or has diverged, comes last."""
    value = row.id if key == "id" else row.state if key == "state" else column(key).sort(row)
    return (value is None, value)


def as_json_line(row: RunRow, columns: Iterable[str]) -> dict[str, Any]:
    names = (*USUAL, *(name for name in row.latest if metric(name).split == "test"))
    told = {name: getattr(row, name) for name in ("id", "name", "state", "step", "total", "eta_s", "created")}
    extra = {key: row.settings.get(key, row.latest.get(key)) for key in columns}
    return {**told, "figures": {name: row.latest.get(name) for name in names}, **({"columns": extra} if extra else {})}


def _cells(row: RunRow, columns: Sequence[str], metrics: Iterable[str]) -> dict[str, Text]:
    """The cells of a run by column heading, the most telling first."""
    from rich.text import Text

    return {
        **{key: present.text("".join(text for text, _ in column(key).show(row))) for key in columns},
        "state": present.state_text(row.state),
        "done": Text(present.progress(row.step, row.total)),
        "age": Text(present.age(row.created)),
        "ETA": Text(present.duration(row.eta_s) if row.is_live else ""),
        **{present.heading(name): _value(name, row.latest.get(name)) for name in metrics},
        "name": present.text(row.name),
    }


def _value(name: str, value: float | None) -> Text:
    is_lost = value is not None and not math.isfinite(value)
    return present.text(present.metric(name, value), "bold red" if is_lost else "")


def run_table(listed: Sequence[RunRow], columns: Sequence[str], width: int) -> Table:
    """As many columns as fit; the id is never cut, because it is there to be copied."""
    optional = [name for name in ("test_loss", "adaptive_sharpness") if any(name in row.latest for row in listed)]
    heads = dict.fromkeys(name for row in listed if (name := headline(row.latest).name) in row.latest)
    metrics = ("meta_loss", "validation_loss", *optional, *heads, "sharpness")
    ids = [present.text(row.id) for row in listed]
    rows = [_cells(row, columns, metrics) for row in listed]
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
