"""RunList: which runs a table shows, in which order, which of them are marked, and where its cursor is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from lreg_tui.runs.feed import RunRow
from lreg_tui.runs.run_columns import BY_KEY

NEWEST_FIRST = "age"
NO_CURVE = -1


class RunList:
    """The cursor and the marks stay with their runs when rows move, come and go."""

    def __init__(self) -> None:
        self.shown: list[RunRow] = []  # what the filter leaves, in order
        self.states: Counter[str] = Counter()  # how many runs are in each state, of those shown
        self.sorted_by = NEWEST_FIRST
        self.reverse = False
        self.cursor = 0  # place in `shown`
        self.cursor_id: str | None = None
        self.marked: dict[str, int] = {}  # ids that are marked and shown, with the numbers of their curves
        self._every_mark: dict[str, None] = {}
        self._rows: Sequence[RunRow] = ()
        self._is_whole = self._has_moved = False
        self._wanted = ""  # the run to put the cursor on when it appears
        self._predicate: Callable[[RunRow], bool] = lambda row: True

    @property
    def is_empty(self) -> bool:
        """True if there is no run at all, shown or not."""
        return not self._rows

    @property
    def cursor_row(self) -> RunRow | None:
        return self.shown[self.cursor] if self.cursor < len(self.shown) else None

    @property
    def overlaid(self) -> list[RunRow]:
        """Whose curves are shown: the marked runs, or else what is under the cursor."""
        return [row for row in self.selected if row.kind.has_curves] or self.selected[:1]

    @property
    def selected(self) -> list[RunRow]:
        """The marked runs in the order of their marking, or else the one under the cursor."""
        if self.marked:
            rows = {row.id: row for row in self.shown if row.id in self.marked}
            return [rows[run_id] for run_id in self.marked]
        return [self.cursor_row] if self.cursor_row is not None else []

    def replace(self, rows: Sequence[RunRow], is_whole: bool = True) -> None:
        """Take over what is in the run store. Until it `is_whole`, a cursor that nobody has moved is on the first."""
        self._rows = rows
        if not (self._is_whole or self._has_moved):
            self.cursor, self.cursor_id = 0, None
        self._is_whole = is_whole
        there = {row.id for row in rows}
        self._every_mark = {run_id: None for run_id in self._every_mark if run_id in there}
        self.arrange()

    def filter_by(self, predicate: Callable[[RunRow], bool]) -> None:
        self._predicate = predicate
        self.arrange()

    def sort_by(self, key: str, reverse: bool) -> None:
        """Sort by a column. Pinned runs stay first, what has no value comes last, and then the newest is first."""
        self.sorted_by, self.reverse = key, reverse
        self.arrange()

    def move_to(self, place: int) -> None:
        if self.shown:
            self.cursor = max(0, min(place, len(self.shown) - 1))
            self.cursor_id = self.shown[self.cursor].id
            self._wanted = ""
            self._has_moved = True

    def select(self, run_id: str) -> None:
        """Put the cursor on a run, now or when it appears."""
        self._wanted = run_id
        self.arrange()

    def mark(self) -> None:
        """Mark the run under the cursor, or no longer."""
        if self.cursor_id is not None:
            if self.cursor_id in self._every_mark:
                del self._every_mark[self.cursor_id]
            else:
                self._every_mark[self.cursor_id] = None
            self._number_marks()

    def mark_all(self) -> None:
        """Mark every run that is shown; none, if all are. Transfer jobs only where nothing else is shown."""
        runs = [row for row in self.shown if row.kind.has_curves]
        everything = dict.fromkeys(row.id for row in runs or self.shown)
        self._every_mark = {} if everything.keys() <= self._every_mark.keys() else {**self._every_mark, **everything}
        self._number_marks()

    def clear_marks(self) -> None:
        self._every_mark = {}
        self._number_marks()

    def arrange(self) -> None:
        """Filter and sort, as also ages ask for that have grown."""
        before, rows = self.shown, [row for row in self._rows if self._predicate(row)]
        rows.sort(key=lambda row: row.created or 0.0, reverse=True)
        key = BY_KEY[self.sorted_by].sort
        missing = [row for row in rows if key(row) is None]
        there = sorted((row for row in rows if key(row) is not None), key=key, reverse=self.reverse)
        self.shown = sorted((*there, *missing), key=lambda row: not row.pinned)  # another list each time
        self.states = Counter(row.state for row in self.shown)
        places = {row.id: place for place, row in enumerate(self.shown)}
        if self.cursor_id is not None and self.cursor_id not in places:
            after, above = before[self.cursor :], reversed(before[: self.cursor])
            self.cursor_id = next((row.id for row in (*after, *above) if row.id in places), None)
        if any(row.id == self._wanted for row in self._rows):
            self.cursor_id = self._wanted if self._wanted in places else self.cursor_id
            self._wanted = ""  # also where a filter hides it: later the cursor would leap
        self.cursor = places.get(self.cursor_id or "", min(self.cursor, max(0, len(self.shown) - 1)))
        self.cursor_id = self.cursor_row.id if self.cursor_row is not None else None
        self._number_marks()

    def _number_marks(self) -> None:
        """Curves are numbered in the order of marking. Transfer jobs have none: their steps are evaluations."""
        curves = {row.id: row.kind.has_curves for row in self.shown}
        kept = [run_id for run_id in self._every_mark if run_id in curves]
        numbers = {run_id: number for number, run_id in enumerate(run_id for run_id in kept if curves[run_id])}
        self.marked = {run_id: numbers.get(run_id, NO_CURVE) for run_id in kept}
