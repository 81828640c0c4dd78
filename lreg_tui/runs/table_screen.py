"""TableScreen: a screen with a run table, and what it can be asked for: a filter, columns, an order, groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from textual import work
from textual.suggester import Suggester

from engine.base.metrics import metric
from lreg_tui.runs import filters
from lreg_tui.runs.acting import ActingScreen
from lreg_tui.runs.feed import SUMMARIES, RunRow
from lreg_tui.runs.filters import names_of
from lreg_tui.runs.groups import SEED, STUDY, differing, value_text
from lreg_tui.runs.run_columns import BY_KEY, NAME, column
from lreg_tui.runs.run_table import RunTable
from lreg_tui.text import present
from lreg_tui.widgets.dialog import PromptScreen
from lreg_tui.widgets.pick_list import Choice, PickList
from lreg_tui.widgets.threads import off_the_loop

NOTE = f"words, or {' '.join(f'{name}:' for name in filters.FIELDS)} meta_loss<0.5 age<2d gam.rho>0.1 name~^lo-; "
NOTE += "- turns a term round"


def filter_prompt(value: str, rows: Callable[[], Sequence[RunRow]], changed: Callable[[str], None]) -> PromptScreen:
    """Ends with a filter that `filters.compile` takes, or None. `changed` is told meanwhile what leaves some runs."""

    def tell(text: str) -> None:
        if not text or any(map(filters.compile(text, names_of(rows())), rows())):
            changed(text)

    check = lambda text: filters.compile(text, names_of(rows()))  # noqa: E731
    return PromptScreen("Filter", value, note=NOTE, check=check, suggester=FilterSuggester(rows), changed=tell)


class FilterSuggester(Suggester):
    """Completes the last word of a filter with fields, and with what runs have."""

    def __init__(self, rows: Callable[[], Sequence[RunRow]]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self.rows = rows

    async def get_suggestion(self, value: str) -> str | None:
        return filters.complete(value, self.rows())


MOST_VALUES = 6  # that are told of a setting


class TableScreen(ActingScreen):
    """Keys for order, columns and groups; subclasses bind them, and show the table."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.table = RunTable(id="table")

    @work(group="ask", exclusive=True)
    async def action_sort(self) -> None:
        choices = orders_of(self.table.runs.listed)
        if picked := await self.app.push_screen_wait(PickList("sort by", choices, (self.table.runs.sorted_by,))):
            by_figure = column(picked[0]).is_figure
            if by_figure and self.table.runs.grouped_by == STUDY and has_repeats(self.table.runs.listed):
                await self._group_by(SEED)
            best_is_last = by_figure and metric(picked[0].partition(" ")[0]).better == "higher"
            self.table.choose(sort=picked[0], reverse=best_is_last)
            if by_figure:
                self.table.action_go_to(0)

    def action_reverse(self) -> None:
        self.table.choose(reverse=not self.table.runs.reverse)

    @work(group="ask", exclusive=True)
    async def action_columns(self) -> None:
        """What is new goes to the front, where there is room for it."""
        now = [column.key for column in self.table.columns[1:]]
        choices = columns_of(self.table.runs.listed)
        picked = await self.app.push_screen_wait(PickList("columns (none: whichever fit)", choices, now, several=True))
        if picked is not None:
            new = [key for key in picked if key not in now]
            self.table.choose(columns=(*new, *(key for key in picked if key in now)), differing=False)

    def action_differing(self) -> None:
        self.table.choose(differing=not self.table.arrangement.differing)

    @work(group="group", exclusive=True)  # no other question is to end it while it imports
    async def action_group(self) -> None:
        choices = groups_of(self.table.runs.listed, self.table.runs.grouped_by)
        if picked := await self.app.push_screen_wait(PickList("group by", choices)):
            await self._group_by(picked[0])

    async def _group_by(self, by: str) -> None:
        """Grouped by seed, lines are told apart by the settings in which they differ."""
        await off_the_loop(partial(import_module, "scipy.special"))  # for intervals; it takes long the first time
        self.table.choose(group=by, differing=self.table.arrangement.differing or by == SEED)


def has_repeats(rows: Iterable[RunRow]) -> bool:
    """Whether runs differ by their seeds only: which is the best is then a question about arms."""
    seeds: dict[str, set[int | None]] = {}
    for row in rows:
        seeds.setdefault(row.arm, set()).add(row.seed)
    return any(len(each) > 1 for arm, each in seeds.items() if arm)


def columns_of(rows: Sequence[RunRow]) -> list[Choice]:
    standard = [Choice(key, column(key).heading) for key in BY_KEY if key != NAME]
    metrics = [Choice(name, present.label(name), "metric") for name in metrics_of(rows) if name not in BY_KEY]
    return [*standard, *settings_of(rows), *metrics]


def orders_of(rows: Sequence[RunRow]) -> list[Choice]:
    """Every column; metrics as they are, smoothed, and at their best."""
    standard = [key for key in BY_KEY if not BY_KEY[key].is_figure]
    figures = [
        Choice(f"{name} {summary}".strip(), f"{present.label(name)}, {summary or 'last'}")
        for name in metrics_of(rows)
        for summary in ("", *SUMMARIES)
    ]
    return [*(Choice(key, column(key).heading) for key in standard), *figures, *settings_of(rows)]


def groups_of(rows: Sequence[RunRow], now: str) -> list[Choice]:
    """What undoes the present groups is first, else the usual ones."""
    usual = [Choice(SEED, "seed", "runs that differ by their seed only"), Choice(STUDY, "study", "the runs of a study")]
    nothing = Choice("", "no groups", "every run on a line")
    remaining = [choice for choice in usual if choice.value != now]
    return [*([nothing, *remaining] if now not in ("", STUDY) else [*remaining, nothing]), *settings_of(rows)]


def metrics_of(rows: Sequence[RunRow]) -> list[str]:
    """What was measured of these runs, first what the table shows."""
    names = [name for name in names_of(rows) if "." not in name]
    return sorted(names, key=lambda name: (name not in BY_KEY, name))


def settings_of(rows: Sequence[RunRow]) -> Iterator[Choice]:
    """Settings with their values; first those in which the runs differ."""
    first = differing(rows)
    for key in dict.fromkeys([*first, *(key for row in rows for key in row.settings)]):
        values = dict.fromkeys(value_text(row.settings[key]) for row in rows if key in row.settings)
        words = ", ".join(sorted(values)[:MOST_VALUES]) + ", …" * (len(values) > MOST_VALUES)
        yield Choice(key, key, words)
