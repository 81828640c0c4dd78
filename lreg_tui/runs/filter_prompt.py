"""FilterPrompt: the filter of the run table, applied while it is typed, with completion by the right arrow key."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.suggester import Suggester
from textual.widgets import Input

from lreg_tui.runs import filters
from lreg_tui.runs.feed import RunRow
from lreg_tui.widgets.prompt import PromptScreen

NOTE = f"words, or {' '.join(f'{name}:' for name in filters.FIELDS)} meta_loss<0.5 age<2d gam.rho>0.1 name~^lo-; "
NOTE += "- turns a term round"


class FilterPrompt(PromptScreen):
    """Ends with a filter that `filters.compile` takes, or with None. `changed` is told what can be used meanwhile."""

    def __init__(self, value: str, rows: Callable[[], Sequence[RunRow]], changed: Callable[[str], None]) -> None:
        super().__init__(
            "Filter",
            value,
            note=NOTE,
            check=lambda text: filters.problem(text, filters.names_of(rows())),
            suggester=FilterSuggester(rows),
        )
        self._rows = rows
        self._tell = changed
        self._told = settled(value, rows())

    def on_input_changed(self, event: Input.Changed) -> None:
        """Its base shows what is wrong. A filter that left something stays while what is typed means nothing."""
        rows = self._rows()
        names = filters.names_of(rows)
        if not filters.problem(event.value, names) or not any(map(filters.compile(self._told, names), rows)):
            self._told = settled(event.value, rows)
            self._tell(self._told)


def settled(text: str, rows: Sequence[RunRow]) -> str:
    """A filter that is being typed, without what is not whole yet: `state:`, or `sta` where no run is called so."""
    names = filters.names_of(rows)
    usable = filters.understood(text, names)
    before, _, last = usable.rpartition(" ")
    begins_field = text.endswith(last) and filters.complete(last, ()) != last
    return before if begins_field and not any(map(filters.compile(usable, names), rows)) else usable


class FilterSuggester(Suggester):
    """Completes the last word of a filter with fields, and with what runs have."""

    def __init__(self, rows: Callable[[], Sequence[RunRow]]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self.rows = rows

    async def get_suggestion(self, value: str) -> str | None:
        return filters.complete(value, self.rows())
