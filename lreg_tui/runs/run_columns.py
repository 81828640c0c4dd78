"""Columns of the run table: what a run shows in each, how it sorts, and which stay when room is short."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len, set_cell_size

from engine.base.metrics import USUAL_HEADLINE, headline, metric
from engine.base.status import STOPPING
from engine.runs.kinds import RUN
from lreg_tui.runs.feed import RunRow
from lreg_tui.text import present

Part = tuple[str, str]
"""A piece of a cell: text, and what it is (a component class of the table, without its prefix; "" is plain)."""
Cell = tuple[Part, ...]

STATE_ORDER = ("running", STOPPING, "queued", "paused", "crashed", "failed", "stopped", "finished")
BAR = 6  # characters of a progress bar
NAME = "name"
LEAST_RANK = 9  # columns from this rank on stand back
LONGEST_NAME = 44


@dataclass(frozen=True)
class Column:
    """`rank`: the lower, the longer it stays when room is short. `optional`: only where a row has something in it."""

    key: str
    heading: str
    width: int
    rank: int
    show: Callable[[RunRow], Cell]
    sort: Callable[[RunRow], Any]
    right: bool = False
    optional: bool = False


def fit(text: str, width: int, right: bool = False, ends: bool = False) -> str:
    """Text in so many columns of the terminal. An ellipsis shows where it was cut: in its middle, to keep `ends`."""
    long = cell_len(text)
    if long > width:
        end = (width - 1) * 2 // 5 if ends else 0
        kept = set_cell_size(text[::-1], end)[::-1] if end > 0 else ""
        return set_cell_size(text, max(0, width - 1 - end)) + "…" + kept if width else ""
    return " " * (width - long) + text if right else text + " " * (width - long)


def _name(row: RunRow) -> Cell:
    if row.kind is not RUN:
        return ((f"↳ {present.clean(row.name, 80)} {present.clean(row.id[-4:])}", "transfer"),)
    return ((present.clean(row.name, 80), ""),)


def _state(row: RunRow) -> Cell:
    return ((present.clean(row.state, 20), row.state if row.state in STATE_ORDER else ""),)


def _progress(row: RunRow) -> Cell:
    """A bar with a percentage, or of a transfer job with its evaluations: 3/12."""
    if not row.total:
        return (("", ""),)
    count = f"{row.step}/{row.total}" if not row.kind.has_curves else present.progress(row.step, row.total)
    width = max(0, BAR + 5 - max(5, len(count) + 1))
    halves = min(2 * width, int(2 * width * row.progress))
    done = "━" * (halves // 2) + "╸" * (halves % 2)
    style = "bar" if row.is_live else "done"
    return ((done, style), ("─" * (width - len(done)), "rest"), (count.rjust(BAR + 5 - width), "" if width else style))


def _eta(row: RunRow) -> Cell:
    return ((present.duration(row.eta_s) if row.is_live and row.eta_s is not None else "", ""),)


def _age(row: RunRow) -> Cell:
    shown = present.age(row.created)
    return (("now" if shown.endswith("s") else shown, "muted"),)


def _metric(name: str) -> Callable[[RunRow], Cell]:
    def show(row: RunRow) -> Cell:
        value = row.latest.get(name)
        if value is None and not row.kind.has_curves and name not in row.latest:
            return (("", ""),)
        kind = "muted" if value is None else "" if math.isfinite(value) else "failed"
        return ((number(name, value), kind),)

    return show


def number(name: str, value: float | None) -> str:
    """A figure in at most nine columns."""
    if metric(name).unit == "share":
        return present.percent(value)
    shown = present.number(value)
    return shown if len(shown) < 9 else present.number(value, 3)


def _latest(name: str) -> Callable[[RunRow], float | None]:
    def sort(row: RunRow) -> float | None:
        value = row.latest.get(name)
        return value if value is not None and math.isfinite(value) else None

    return sort


def _judged(row: RunRow) -> Cell:
    """What the run's task is judged by; its name where that is not what the column is called."""
    judged = headline(row.latest)
    if judged.name not in row.latest or judged == USUAL_HEADLINE:
        return _metric(USUAL_HEADLINE.name)(row)
    return (*_metric(judged.name)(row), (f" {present.label(judged)}", "muted"))


def _judged_value(row: RunRow) -> float | None:
    return _latest(headline(row.latest).name)(row)


def _words(get: Callable[[RunRow], Sequence[str]]) -> tuple[Callable[[RunRow], Cell], Callable[[RunRow], Any]]:
    def show(row: RunRow) -> Cell:
        return ((present.clean(" ".join(get(row)), 60), "muted"),)

    return show, lambda row: " ".join(get(row)).lower() or None


def _seed(row: RunRow) -> Cell:
    return (("" if row.seed is None else present.number(row.seed), "muted"),)


def _state_place(row: RunRow) -> int:
    return STATE_ORDER.index(row.state) if row.state in STATE_ORDER else len(STATE_ORDER)


COLUMNS = (
    Column(NAME, "name", 17, 0, _name, lambda row: row.name.lower()),
    Column("state", "state", 8, 1, _state, _state_place),
    Column("progress", "progress", BAR + 5, 2, _progress, lambda row: row.progress),
    Column("eta", "ETA", 7, 7, _eta, lambda row: row.eta_s if row.is_live else None, right=True),
    Column("meta_loss", "meta-loss", 9, 3, _metric("meta_loss"), _latest("meta_loss"), right=True),
    Column(
        "adaptive_sharpness",
        "ad. sharp.",
        10,
        4,
        _metric("adaptive_sharpness"),
        _latest("adaptive_sharpness"),
        right=True,
        optional=True,
    ),
    Column("sharpness", "sharpness", 9, 6, _metric("sharpness"), _latest("sharpness"), right=True),
    Column(USUAL_HEADLINE.name, "accuracy", 8, 5, _judged, _judged_value, right=True),
    Column("age", "age", 4, 8, _age, lambda row: None if row.created is None else -row.created, right=True),
    Column(
        "validation_loss", "valid. loss", 11, 13, _metric("validation_loss"), _latest("validation_loss"), right=True
    ),
    Column("test_loss", "test loss", 9, 9, _metric("test_loss"), _latest("test_loss"), right=True),
    Column("tags", "tags", 14, 10, *_words(lambda row: row.tags)),
    Column("task", "task", 16, 11, *_words(lambda row: [row.task])),
    Column("penalty", "penalty", 10, 12, *_words(lambda row: row.penalties)),
    Column("optimizer", "optimizer", 10, 14, *_words(lambda row: [row.optimizer])),
    Column("seed", "seed", 5, 15, _seed, lambda row: row.seed, right=True),
)
BY_KEY = {column.key: column for column in COLUMNS}


def longest_name(rows: Sequence[RunRow]) -> int:
    """Columns that the names of these rows need, within reason."""
    return min(LONGEST_NAME, max((cell_len(row.name) + 7 * (row.kind is not RUN) for row in rows), default=0))


def chosen(room: int, gap: int, rows: Sequence[RunRow] = ()) -> tuple[Column, ...]:
    """The columns that fit into so many characters, in their order; the name is always there.

    Those that stand back are left out where the rows have nothing to show in them, and where names need the room.
    """
    left = room + gap
    wish = longest_name(rows) - BY_KEY[NAME].width
    kept: set[str] = set()
    useful = (
        column
        for column in COLUMNS
        if (column.rank < LEAST_RANK and not column.optional) or any(map(column.sort, rows))
    )
    for column in sorted(useful, key=lambda column: column.rank):
        if column.rank >= LEAST_RANK and wish > 0:
            left, wish = left - wish, 0
        if left >= column.width + gap or not kept:
            left -= column.width + gap
            kept.add(column.key)
        elif column.rank < LEAST_RANK:
            break
    return tuple(column for column in COLUMNS if column.key in kept)
