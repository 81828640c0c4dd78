"""FilterPrompt: the filter of the run table, applied while it is typed, with completion by the right arrow key."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.suggester import Suggester

from lreg_tui import filters
from lreg_tui.feed import RunRow
from lreg_tui.screens.prompt import PromptScreen

NOTE = f"words, or {' '.join(f'{name}:' for name in filters.FIELDS)} meta_loss<0.5 age<2d; - turns a term round"


class FilterPrompt(PromptScreen):
    """Ends with a filter that `filters.compile` takes, or with None."""

    def __init__(self, value: str, rows: Callable[[], Sequence[RunRow]], changed: Callable[[str], None]) -> None:
        super().__init__(
            "Filter",
            value,
            note=NOTE,
            check=lambda text: problem(text, rows()),
            changed=changed,
            suggester=FilterSuggester(rows),
        )


def metrics_of(rows: Sequence[RunRow]) -> set[str]:
    return {name for row in rows for name in row.latest}


def problem(text: str, rows: Sequence[RunRow]) -> str:
    """What is wrong with a filter, or ""."""
    try:
        filters.compile(text, metrics_of(rows))
    except filters.FilterError as error:
        return str(error)
    return ""


class FilterSuggester(Suggester):
    """Completes the last word of a filter with fields, and with what runs have."""

    def __init__(self, rows: Callable[[], Sequence[RunRow]]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self.rows = rows

    async def get_suggestion(self, value: str) -> str | None:
        return filters.complete(value, self.rows())
