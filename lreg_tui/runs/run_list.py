"""RunList: which runs a table shows, in which order, which of them are marked, and where its cursor is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from lreg_tui.runs.feed import RunRow
from lreg_tui.runs.groups import SEED, STUDY, GroupRow, group, group_of, seeds_name
from lreg_tui.runs.metric_panel import Shown
from lreg_tui.runs.run_columns import column
from lreg_tui.text.present import clean
from lreg_tui.widgets.themes import MARKERS

NEWEST_FIRST = "age"
NO_CURVE = -1
MOST_OVERLAID = len(MARKERS)


class RunList:
    """The cursor and the marks stay with their runs when rows move, come and go.

    Runs may stand in groups, and transfer jobs below the run that they evaluate: lines that open and close.
    """

    def __init__(self) -> None:
        self.listed: list[RunRow] = []  # what the filter leaves
        self.lines: list[RunRow] = []  # ... as lines, in order: without what is folded
        self.states: Counter[str] = Counter()  # how many runs are in each state, of those listed
        self.sorted_by = NEWEST_FIRST
        self.reverse = False
        self.grouped_by = STUDY  # "seed", "study", a setting, or "" for no groups
        self.cursor = 0  # place in `shown`
        self.cursor_id: str | None = None
        self.marked: dict[str, int] = {}  # ids that are marked and listed, with the numbers of their curves
        self._below: dict[str, list[RunRow]] = {}  # what can be folded, by the id of the line above it
        self._above: dict[str, str] = {}  # the other way round
        self._is_open: dict[str, bool] = {}  # as the user wants it
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
    def cursor_line(self) -> RunRow | None:
        return self.lines[self.cursor] if self.cursor < len(self.lines) else None

    @property
    def cursor_row(self) -> RunRow | None:
        """The run under the cursor, of a group the first."""
        return next(iter(self.under_cursor), None)

    @property
    def under_cursor(self) -> Sequence[RunRow]:
        return () if self.cursor_line is None else members(self.cursor_line)

    @property
    def overlaid(self) -> list[tuple[RunRow, ...]]:
        """Whose curves are shown: the marked runs, or else what is under the cursor; where repeats with other seeds are
        grouped, these together."""
        curves: dict[str, list[RunRow]] = {}
        for row in [row for row in self.selected if row.kind.has_curves] or self.selected[:1]:
            curves.setdefault(self._curve_of(row), []).append(row)
        return list(map(tuple, curves.values()))

    @property
    def curves(self) -> list[Shown]:
        """The same for charts: ids and labels, as many as they can tell apart."""
        return [
            (arm[0].id, clean(arm[0].name, 60))
            if len(arm) == 1
            else (tuple(row.id for row in arm), clean(seeds_name(arm), 60))
            for arm in self.overlaid[:MOST_OVERLAID]
        ]

    def _curve_of(self, row: RunRow) -> str:
        return row.arm if self.grouped_by == SEED and row.arm else row.id

    @property
    def selected(self) -> list[RunRow]:
        """The marked runs in the order of their marking, or else those of the line under the cursor."""
        if self.marked:
            rows = {row.id: row for row in self.listed if row.id in self.marked}
            return [rows[run_id] for run_id in self.marked]
        return list(self.under_cursor)

    def replace(self, rows: Sequence[RunRow], is_whole: bool = True) -> None:
        """Take over what is in the run store. Until it `is_whole`, a cursor that nobody has moved is on the first."""
        self._rows = rows
        if not (self._is_whole or self._has_moved):
            self.cursor, self.cursor_id = 0, None
        self._is_whole = is_whole
        ids = {row.id for row in rows}
        self._every_mark = {run_id: None for run_id in self._every_mark if run_id in ids}
        self.arrange()

    def filter_by(self, predicate: Callable[[RunRow], bool]) -> None:
        self._predicate = predicate
        self.arrange()

    def group_by(self, by: str) -> None:
        """`by`: see `grouped_by`. The cursor stays on its run, or goes to the group that has it."""
        row = self.cursor_line
        self.grouped_by, self._is_open = by, {}
        self.arrange()
        if row is not None:
            ids = {run.id for run in members(row)}
            holding = (index for index, line in enumerate(self.lines) if ids & {run.id for run in members(line)})
            self.move_to(next(holding, self.cursor))

    def move_to(self, index: int) -> None:
        if self.lines:
            self.cursor = max(0, min(index, len(self.lines) - 1))
            self.cursor_id = self.lines[self.cursor].id
            self._wanted = ""
            self._has_moved = True

    def select(self, run_id: str) -> None:
        """Put the cursor on a run, now or when it appears."""
        self._wanted = run_id
        self.arrange()

    # -- folds -------------------------------------------------------------------------------------------------------

    def is_open(self, row: RunRow) -> bool:
        """Transfer jobs that are at work are in view unless the user has folded them away."""
        jobs_are_live = any(below.is_live and below.of for below in self._below[row.id])
        return self._is_open.get(row.id, jobs_are_live and not isinstance(row, GroupRow))

    def fold_of(self, row: RunRow) -> str:
        """What stands before a name: how deep it is, and whether there is more below it."""
        if not self._below:
            return ""
        depth, above = 0, self._above.get(row.id)
        while above is not None:
            depth, above = depth + 1, self._above.get(above)
        return "  " * depth + (("▾ " if self.is_open(row) else "▸ ") if row.id in self._below else "  ")

    @property
    def fold(self) -> int:
        """The room before names."""
        return max((len(self.fold_of(row)) for row in self.lines), default=0)

    def unfold(self, is_open: bool) -> None:
        """Open the line under the cursor, or close it, or else the one above it."""
        row = self.cursor_line
        if row is None:
            return
        is_leaf = row.id not in self._below or not self.is_open(row)
        at = self._above.get(row.id, "") if is_leaf and not is_open else row.id
        if at in self._below:
            self._is_open[at] = is_open
            self.cursor_id = at
            self.arrange()

    # -- marks -------------------------------------------------------------------------------------------------------

    def mark(self) -> None:
        """Mark the runs of the line under the cursor, or no longer."""
        self._mark([row.id for row in self.under_cursor])

    def mark_all(self) -> None:
        """Mark every run that is listed; none, if all are. Transfer jobs only where nothing else is listed."""
        runs = [row.id for row in self.listed if row.kind.has_curves]
        self._mark(runs or [row.id for row in self.listed])

    def _mark(self, ids: Sequence[str]) -> None:
        if self._every_mark.keys() >= {*ids}:
            self._every_mark = {run_id: None for run_id in self._every_mark if run_id not in {*ids}}
        else:
            self._every_mark |= dict.fromkeys(ids)
        self._number_marks()

    def clear_marks(self) -> None:
        self._every_mark = {}
        self._number_marks()

    def mark_of(self, row: RunRow) -> int | None:
        """The number of a line's curve, of a group's first one; None where not all of it is marked."""
        marks = [self.marked.get(member.id) for member in members(row)]
        return None if None in marks else marks[0]

    def _number_marks(self) -> None:
        """Curves are numbered in the order of marking. Transfer jobs have none: their steps are evaluations."""
        rows = {row.id: row for row in self.listed}
        marked = [rows[run_id] for run_id in self._every_mark if run_id in rows]
        curves = dict.fromkeys(self._curve_of(row) for row in marked if row.kind.has_curves)
        numbers = {curve: number for number, curve in enumerate(curves)}
        self.marked = {row.id: numbers[self._curve_of(row)] if row.kind.has_curves else NO_CURVE for row in marked}

    # -- order -------------------------------------------------------------------------------------------------------

    def arrange(self) -> None:
        """Filter, group and sort, as also ages ask for that have grown."""
        before, self.listed = self.lines, [row for row in self._rows if self._predicate(row)]
        lines = self._folded(self.listed)
        if any(row.id == self._wanted for row in self._rows):
            self.cursor_id = self._wanted if any(row.id == self._wanted for row in self.listed) else self.cursor_id
            self._wanted = ""  # also where a filter hides it: later the cursor would leap
            above = self._above.get(self.cursor_id or "")
            while above is not None:
                self._is_open[above], above = True, self._above.get(above)
        self.lines = list(self._lines(lines))  # another list each time
        self.states = Counter(row.state for row in self.listed)
        positions = {row.id: index for index, row in enumerate(self.lines)}
        if self.cursor_id is not None and self.cursor_id not in positions:
            after, above_it = before[self.cursor :], reversed(before[: self.cursor])
            around = (self._above.get(self.cursor_id, ""), *(row.id for row in (*after, *above_it)))
            self.cursor_id = next((run_id for run_id in around if run_id in positions), None)
        self.cursor = positions.get(self.cursor_id or "", min(self.cursor, max(0, len(self.lines) - 1)))
        self.cursor_id = self.cursor_line.id if self.cursor_line is not None else None
        self._number_marks()

    def _folded(self, rows: Sequence[RunRow]) -> list[RunRow]:
        """The lines that stand below no other."""
        ids = {row.id for row in rows}
        groups: dict[str, list[RunRow]] = {}
        self._below, tops = {}, []
        for row in rows:
            run = next((run_id for run_id in row.of if run_id in ids), None)
            if run is not None:
                self._below.setdefault(run, []).append(row)
            elif key := group_of(row, self.grouped_by):
                groups.setdefault(key, []).append(row)
            else:
                tops.append(row)
        for key, runs in groups.items():
            if len(runs) > 1 or self.grouped_by == STUDY:
                jobs = [job for run in runs for job in self._below.get(run.id, ())] if self.grouped_by == STUDY else []
                line = group(self.grouped_by, key, tuple(runs), tuple(jobs))
                self._below[line.id] = runs
                tops.append(line)
            else:
                tops += runs
        self._above = {row.id: above for above, rows in self._below.items() for row in rows}
        return tops

    def _lines(self, rows: Sequence[RunRow]) -> Iterator[RunRow]:
        for row in self._sorted(rows):
            yield row
            if row.id in self._below and self.is_open(row):
                yield from self._lines(self._below[row.id])

    def _sorted(self, rows: Sequence[RunRow]) -> list[RunRow]:
        """Pinned runs stay first, what has no value comes last, and then the newest is first."""
        rows = sorted(rows, key=lambda row: row.created or 0.0, reverse=True)
        values = [(column(self.sorted_by).sort(row), row) for row in rows]
        pairs = sorted((pair for pair in values if pair[0] is not None), key=lambda pair: pair[0], reverse=self.reverse)
        missing = [row for value, row in values if value is None]
        return sorted((*(row for _, row in pairs), *missing), key=lambda row: not row.pinned)


def members(row: RunRow) -> Sequence[RunRow]:
    """The runs of a line: those of a group, or the one that it is."""
    return row.members if isinstance(row, GroupRow) else (row,)
