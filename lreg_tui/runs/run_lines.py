"""What stands where in the run table: the columns that fit, and the cells of every line. No widgets here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from lreg_tui.runs.feed import RunRow
from lreg_tui.runs.run_columns import NAME, Cell, RunColumn, chosen, fit, longest_name
from lreg_tui.runs.run_list import MOST_OVERLAID, RunList
from lreg_tui.system.keys import key_of
from lreg_tui.widgets import themes

LEAD = 2  # characters before the first column: mark, pin
WIDE = 110  # characters from which columns stand further apart


@dataclass(frozen=True)
class PlacedCell:
    """A cell of a line: where it begins, its width, what it shows, whether it stands at the right, and whether its
    `ends` stay where it has to be cut.
    """

    start: int
    width: int
    cell: Cell
    right: bool = False
    ends: bool = False


@dataclass(frozen=True)
class TableLine:
    """A line as it is drawn."""

    cells: tuple[PlacedCell, ...] = ()
    has_cursor: bool = False


@dataclass(frozen=True)
class Grid:
    """Columns and their widths in a table of so many characters."""

    columns: tuple[RunColumn, ...] = ()
    widths: tuple[int, ...] = ()
    gap: int = 1
    missing: int = 0  # columns that do not fit

    @classmethod
    def of(
        cls, rows: Sequence[RunRow], room: int, first: Sequence[str] = (), only: bool = False, fold: int = 0
    ) -> Grid:
        """The columns that fit (see `chosen`); the name takes what is left, as far as names with folds are long."""
        gap = 2 if room >= WIDE else 1
        columns, missing = chosen(room - LEAD, gap, rows, first, only, fold)
        left = room - LEAD - sum(column.width for column in columns) - gap * (len(columns) - 1)
        more = min(left, max(0, longest_name(rows) + fold - columns[0].width))
        return cls(columns, tuple(column.width + more * (column.key == NAME) for column in columns), gap, missing)

    def places(self) -> Iterator[tuple[RunColumn, int, int]]:
        """Columns with where they begin, and their widths."""
        start = LEAD
        for column, width in zip(self.columns, self.widths, strict=True):
            yield column, start, width
            start += width + self.gap

    def column_at(self, x: int) -> RunColumn | None:
        return next((column for column, start, width in self.places() if start <= x < start + width), None)

    def heading(self, sorted_by: str, reverse: bool) -> TableLine:
        """The names of the columns, beside the first how many there is no room for; an arrow shows the order."""
        cells = []
        for column, start, width in self.places():
            is_sorted = column.key == sorted_by
            arrow = ("▼" if reverse else "▲") if is_sorted else ""
            text = arrow + column.heading if column.right else column.heading + arrow
            cell: Cell = ((text, "sorted" if is_sorted else "heading"),)
            if column.key == NAME and self.missing:
                cell += ((f"  {key_of('columns')}: {self.missing} more", "muted"),)
            cells.append(PlacedCell(start - column.right, width + column.right, cell, column.right))  # arrow in the gap
        return TableLine(tuple(cells))

    def line(self, runs: RunList, index: int) -> TableLine:
        """The line of a run, by its place in the list; an empty one beyond its end."""
        if not 0 <= index < len(runs.shown):
            return TableLine()
        row = runs.shown[index]
        lead = PlacedCell(0, LEAD, (_mark(runs, row), ("*" if row.pinned else " ", "pin")))
        fold = ((words, "muted"),) if (words := runs.fold_of(row)) else ()
        cells = []
        for column, start, width in self.places():
            is_name = column.key == NAME  # of which the end stays: it tells runs apart
            cell = (*fold, *column.show(row)) if is_name else column.show(row)
            cells.append(PlacedCell(start, width, cell, column.right, is_name))
        return TableLine((lead, *cells), index == runs.cursor)


def _mark(runs: RunList, row: RunRow) -> tuple[str, str]:
    """The marker that tells a run in the charts; a plus for marked ones that the charts leave out."""
    series = runs.mark_of(row)
    if series is None:
        return (" ", "")
    return (themes.MARKERS[series], f"series {series}") if 0 <= series < MOST_OVERLAID else ("+", "")


def drawn(line: TableLine, room: int, style: Style, style_of: Callable[[str], Style]) -> Strip:
    """A line in so many characters; `style_of` says how a kind of part looks."""
    segments: list[Segment] = []
    x = 0
    for placed in line.cells:
        segments.append(Segment(" " * (placed.start - x), style))
        left = placed.width
        for number, (text, kind) in enumerate(placed.cell, start=1):
            fitted = fit(text, left, placed.right, placed.ends) if number == len(placed.cell) else text
            left -= cell_len(text)
            segments.append(Segment(fitted, style + style_of(kind)))
        x = placed.start + placed.width
    told = [segment for segment in segments if segment.text]  # an empty first one would move the line beside an outline
    return Strip(told).adjust_cell_length(room, style)
