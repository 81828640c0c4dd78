"""Columns of the run table: what a run shows in each, how it sorts, and which stay when room is short."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from rich.cells import cell_len, set_cell_size

from engine.base.metrics import USUAL_HEADLINE, headline, metric
from engine.presets.catalog import NAMED_TABLES
from engine.runs.kinds import RUN, STUDY
from lreg_tui.runs.feed import SUMMARIES, RunRow
from lreg_tui.runs.groups import STATE_ORDER, Best, Means, state_place, value_text
from lreg_tui.text import present

Part = tuple[str, str]
"""A piece of a cell: text, and what it is (a component class of the table, without its prefix; "" is plain)."""
Cell = tuple[Part, ...]

BAR = 6  # characters of a progress bar
NAME = "name"
LEAST_RANK = 9  # columns from this rank on stand back
LONGEST_NAME = 44
LONGEST_SETTING = 16
WITH_INTERVAL = 15  # characters of a mean and its interval


@dataclass(frozen=True)
class RunColumn:
    """`rank`: the lower, the longer it stays when room is short. `optional`: only where a row has something in it."""

    key: str
    heading: str
    width: int
    rank: int
    show: Callable[[RunRow], Cell]
    sort: Callable[[RunRow], Any]
    right: bool = False
    optional: bool = False
    is_figure: bool = False  # a group shows its mean


def fit(text: str, width: int, right: bool = False, ends: bool = False) -> str:
    """Text in so many columns of the terminal. An ellipsis shows where it was cut: in its middle, to keep `ends`."""
    long = cell_len(text)
    if long > width:
        end = (width - 1) * 2 // 5 if ends else 0
        tail = set_cell_size(text[::-1], end)[::-1] if end > 0 else ""
        return set_cell_size(text, max(0, width - 1 - end)) + "…" + tail if width else ""
    return " " * (width - long) + text if right else text + " " * (width - long)


def _name(row: RunRow) -> Cell:
    if row.kind is STUDY:
        return (("study ", "muted"), (present.clean(row.name, 80), ""))
    if row.kind is not RUN:
        words = present.clean(row.name, 80) if row.of else f"{present.clean(row.name, 80)} {present.clean(row.id[-4:])}"
        return ((f"↳ {words}" + f", {row.step} of {row.total}" * bool(row.of), "transfer"),)
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
    return ((present.duration(row.eta_s) if row.eta_s is not None else "", ""),)


def _age(row: RunRow) -> Cell:
    age = present.age(row.created)
    return (("now" if age.endswith("s") else age, "muted"),)


def _metric(key: str) -> Callable[[RunRow], Cell]:
    """A metric, or a summary of it ("meta_loss best"); the means of groups with their intervals."""
    name = key.partition(" ")[0]

    def show(row: RunRow) -> Cell:
        figures = row.summaries if key != name else row.latest
        value = figures.get(key)
        if value is None and not row.kind.has_curves and key not in figures:
            return (("", ""),)
        if isinstance(figures, Best):
            return (("" if value is None else number(name, value), "muted"),)
        if isinstance(figures, Means) and figures.of(key).ci95 is not None:
            mean = figures.of(key)
            words = present.interval({"mean": mean.mean, "ci95": mean.ci95}, metric(name).unit == "share", "±")
            return ((words, ""),)
        kind = "muted" if value is None else "" if math.isfinite(value) else "failed"
        return ((number(name, value), kind),)

    return show


def number(name: str, value: float | None) -> str:
    """A figure in at most nine columns."""
    if metric(name).unit == "share":
        return present.percent(value)
    text = present.number(value)
    return text if len(text) < 9 else present.number(value, 3)


def _figure(key: str) -> Callable[[RunRow], float | None]:
    def sort(row: RunRow) -> float | None:
        value = (row.summaries if " " in key else row.latest).get(key)
        return value if value is not None and math.isfinite(value) else None

    return sort


def _judged(row: RunRow) -> Cell:
    """What the run's task is judged by; its name where that is not what the column is called."""
    judged = headline(row.latest)
    if judged.name not in row.latest or judged == USUAL_HEADLINE:
        return _metric(USUAL_HEADLINE.name)(row)
    return (*_metric(judged.name)(row), (f" {present.label(judged)}", "muted"))


def _words(get: Callable[[RunRow], Sequence[str]]) -> tuple[Callable[[RunRow], Cell], Callable[[RunRow], Any]]:
    def show(row: RunRow) -> Cell:
        return ((present.clean(" ".join(get(row)), 60), "muted"),)

    return show, lambda row: " ".join(get(row)).lower() or None


def _seed(row: RunRow) -> Cell:
    return (("" if row.seed is None else present.number(row.seed), "muted"),)


def _of_metric(key: str, heading: str, width: int, rank: int, optional: bool = False) -> RunColumn:
    return RunColumn(key, heading, width, rank, _metric(key), _figure(key), True, optional, is_figure=True)


COLUMNS = (
    RunColumn(NAME, "name", 17, 0, _name, lambda row: row.name.lower()),
    RunColumn("state", "state", 8, 1, _state, lambda row: state_place(row.state)),
    RunColumn("progress", "progress", BAR + 5, 2, _progress, lambda row: row.progress),
    RunColumn("eta", "ETA", 7, 7, _eta, lambda row: row.eta_s, right=True),
    _of_metric("meta_loss", "meta-loss", 9, 3),
    _of_metric("adaptive_sharpness", "ad. sharp.", 10, 4, optional=True),
    _of_metric("sharpness", "sharpness", 9, 6),
    replace(
        _of_metric(USUAL_HEADLINE.name, "accuracy", 8, 5),
        show=_judged,
        sort=lambda row: _figure(headline(row.latest).name)(row),
    ),
    RunColumn("age", "age", 4, 8, _age, lambda row: None if row.created is None else -row.created, right=True),
    _of_metric("validation_loss", "valid. loss", 11, 13),
    _of_metric("test_loss", "test loss", 9, 9),
    RunColumn("tags", "tags", 14, 10, *_words(lambda row: row.tags)),
    RunColumn("task", "task", 16, 11, *_words(lambda row: [row.task])),
    RunColumn("penalty", "penalty", 10, 12, *_words(lambda row: row.penalties)),
    RunColumn("optimizer", "optimizer", 10, 14, *_words(lambda row: [row.optimizer])),
    RunColumn("seed", "seed", 5, 15, _seed, lambda row: row.seed, right=True),
)
BY_KEY = {column.key: column for column in COLUMNS}


@lru_cache(maxsize=512)
def column(key: str) -> RunColumn:
    """The column of any key: one of COLUMNS, a setting by its path, a metric, or a summary of one."""
    if key in BY_KEY:
        return BY_KEY[key]
    if "." in key:
        heading = next((key.removeprefix(f"{table}.") for table in NAMED_TABLES if key.startswith(f"{table}.")), key)
        return RunColumn(key, present.clean(heading, 40), 0, 0, *_setting(key))
    name, _, summary = key.partition(" ")
    heading = f"{present.label(name)} {summary}".strip()
    return _of_metric(key, BY_KEY[name].heading + f" {summary}" if name in BY_KEY else heading, 9, 0)


def is_column(key: Any) -> bool:
    """Whether a remembered key may be that of a column."""
    words = key.split(" ") if isinstance(key, str) and key.isprintable() else []
    return 0 < len(words) < 3 and all(words) and words[1:] in ([], *([name] for name in SUMMARIES))


def _setting(key: str) -> tuple[Callable[[RunRow], Cell], Callable[[RunRow], Any]]:
    def show(row: RunRow) -> Cell:
        return ((present.clean(value_text(row.settings[key]), 40) if key in row.settings else "", ""),)

    def sort(row: RunRow) -> Any:
        """Numbers by size, then words."""
        value = row.settings.get(key)
        if value is None:
            return None
        return (0, value, "") if isinstance(value, (int, float)) else (1, 0, value_text(value))

    return show, sort


def longest_name(rows: Sequence[RunRow]) -> int:
    """Columns that the names of these rows need, within reason."""
    lengths = (cell_len(row.name) + (0 if row.kind is RUN else 14 if row.of else 7) for row in rows)  # as in _name
    return min(LONGEST_NAME, max(lengths, default=0))


def fitted(column: RunColumn, rows: Sequence[RunRow]) -> RunColumn:
    """The column as wide as these rows need it."""
    if column.is_figure and any(type(row.latest) is Means for row in rows):
        return replace(column, width=max(len(column.heading), WITH_INTERVAL))
    if "." not in column.key:
        return replace(column, width=max(len(column.heading), column.width))
    values = {row.settings[column.key] for row in rows if column.key in row.settings}
    longest = max(map(cell_len, (column.heading, *map(value_text, values))))
    right = all(isinstance(value, (int, float)) for value in values)
    return replace(column, width=min(LONGEST_SETTING, longest), right=right)


def chosen(
    room: int,
    gap: int,
    rows: Sequence[RunRow] = (),
    first: Sequence[str] = (),
    only: bool = False,
    fold: int = 0,
) -> tuple[tuple[RunColumn, ...], int]:
    """The columns that fit into so many characters: the name, those of the keys `first`, and unless `only` those are
    wanted, the others in their order; and how many with something in them do not. `fold`: the room that names need
    before them.

    Those that stand back are left out where the rows have nothing to show in them, and where names need the room.
    """
    left = room + gap
    wish = longest_name(rows) + fold - BY_KEY[NAME].width
    columns: dict[str, RunColumn] = {}

    def take(column: RunColumn) -> bool:
        nonlocal left
        fits = left >= column.width + gap or not columns
        if fits:
            left -= column.width + gap
            columns[column.key] = column
        return fits

    name = BY_KEY[NAME]
    take(replace(name, width=max(name.width, min(longest_name(rows) + fold, room // 3))) if first or fold else name)
    missing = 0
    for key in dict.fromkeys(first):
        if key not in columns:
            missing += not take(fitted(column(key), rows))
    candidates = (
        column
        for column in COLUMNS
        if column.key not in columns
        and not only
        and ((column.rank < LEAST_RANK and not column.optional) or any(map(column.sort, rows)))
    )
    has_room = True
    for each in sorted(candidates, key=lambda column: column.rank):
        if each.rank >= LEAST_RANK and wish > 0:
            left, wish = left - wish, 0
        if has_room and take(fitted(each, rows)):
            continue
        if each.rank < LEAST_RANK:
            has_room = False
            missing += any(each.sort(row) is not None for row in rows)
    ordered = [NAME, *(key for key in first if key in columns), *(c.key for c in COLUMNS if c.key in columns)]
    return tuple(columns[key] for key in dict.fromkeys(ordered)), missing
