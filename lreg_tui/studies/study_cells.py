"""What stands where in the grid of a study: the columns that fit, and the parts of every line. No widgets here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len

from lreg_tui.runs.run_columns import Cell
from lreg_tui.runs.run_lines import Line, Placed
from lreg_tui.studies.study_rows import BEST, WINNER, GridCell, GridRow
from lreg_tui.studies.study_scale import Scale
from lreg_tui.text import present
from lreg_tui.widgets import themes

SIGNS = {
    "missing": "·",
    "queued": "○",
    "running": "▸",
    "paused": "=",
    "stopped": "■",
    "failed": "✕",
    "crashed": "!",
}
CURSOR = ("[", "]")
RANKS = {WINNER: "★", BEST: "☆"}
FIGURE = 6  # characters of a figure; one less where room is short
LEAD = 1
GAP = 2
LEAST_LABEL = 16  # characters of arm and point together, before columns of seeds have to go
LONGEST_LABEL = 60
WIDE = 110  # characters from which figures are told with more room around them
MEAN, SO_FAR = "mean ± 95%", "so far"


@dataclass(frozen=True)
class Shown:
    """What a grid shows beside the rows themselves."""

    row: int = 0  # of the cursor
    seed: int = 0  # ... by its place among the seeds
    marked: Mapping[str, str] = field(default_factory=dict)  # run ids, and their signs
    top: int = 0  # the first row in view


@dataclass(frozen=True)
class Columns:
    """The columns of a grid and their widths, in so many characters."""

    arm: int = 0
    point: int = 0
    first: int = 0  # of the seeds in view
    seeds: int = 0  # ... how many
    figure: int = FIGURE
    mean: int = 0
    so_far: int = 0  # 0: no such column
    wide: bool = False
    scale: Scale | None = None
    plain: bool = False  # without colours
    brief: bool = False  # only the values of points

    @classmethod
    def of(
        cls,
        rows: Sequence[GridRow],
        seeds: int,
        room: int,
        first: int = 0,
        is_search: bool = False,
        plain: bool = False,
    ) -> Columns:
        """Seeds go where room is short, those from `first` on stay; the means are always there."""
        wide = room >= WIDE
        arm = max([3, *(cell_len(present.clean(row.arm, 40)) for row in rows)])
        mean = max([len(MEAN), *(len(_mean(row, wide)) for row in rows)]) + 2
        for brief, figure in ((False, FIGURE), (False, FIGURE - 1), (True, FIGURE - 1)):
            point = max([0, *(cell_len(_point(row, brief)) for row in rows)])
            so_far = figure + GAP if is_search else 0
            cell = figure + 2 + plain
            left = room - LEAD - 2 * GAP - mean - so_far
            label = min(arm + GAP + point if point else arm, LONGEST_LABEL)
            if label + seeds * cell <= left:
                break
        label = min(label, max(LEAST_LABEL, left - seeds * cell))
        arm = min(arm, max(label // 2, label - GAP - point)) if point else min(arm, label)
        fitting = max(1, min(seeds, (left - label) // cell)) if seeds else 0
        first = max(0, min(first, seeds - fitting))
        point = max(0, label - arm - GAP) if point else 0
        return cls(arm, point, first, fitting, figure, mean, so_far, wide, Scale.of(rows), plain, brief)

    @property
    def cell(self) -> int:
        """The width of a seed's column."""
        return self.figure + 2 + self.plain

    @property
    def cells_at(self) -> int:
        """Where the first seed's column begins."""
        return LEAD + self.arm + (GAP + self.point if self.point else 0) + GAP

    @property
    def mean_at(self) -> int:
        return self.cells_at + self.seeds * self.cell + GAP

    def seed_at(self, x: int) -> int | None:
        """The place of the seed whose column is there."""
        column = (x - self.cells_at) // self.cell
        return self.first + column if 0 <= column < self.seeds else None

    def heading(self, seeds: Sequence[int]) -> Line:
        """The names of the columns; arrows where there are more of them."""
        cells = [Placed(LEAD, self.arm, (("arm", "heading"),))]
        if self.point:
            cells.append(Placed(LEAD + self.arm + GAP, self.point, (("point", "heading"),)))
        for column in range(self.seeds):
            place = self.first + column
            is_cut = (column == 0 and place > 0) or (column == self.seeds - 1 and place < len(seeds) - 1)
            words = f"seed {seeds[place]}" if len(str(seeds[place])) < 2 and not is_cut else str(seeds[place])
            words = f"‹ {words}" if column == 0 and place > 0 else words
            words = f"{words} ›" if column == self.seeds - 1 and place < len(seeds) - 1 else words
            start = self.cells_at + column * self.cell
            cells.append(Placed(start, self.cell - 1, ((words, "heading"),), right=True))
        cells.append(Placed(self.mean_at, self.mean, ((f"  {MEAN}", "heading"),)))
        if self.so_far:
            cells.append(Placed(self.mean_at + self.mean, self.so_far, ((SO_FAR, "heading"),), right=True))
        return Line(tuple(cells))

    def line(self, rows: Sequence[GridRow], place: int, shown: Shown) -> Line:
        """A row by its place; an empty line beyond their end."""
        if not 0 <= place < len(rows):
            return Line()
        row = rows[place]
        is_first = place == shown.top or rows[place - 1].arm != row.arm
        cells = [Placed(LEAD, self.arm, ((present.clean(row.arm, 40) if is_first else "", "arm"),), ends=True)]
        if self.point:
            cells.append(Placed(LEAD + self.arm + GAP, self.point, ((_point(row, self.brief), row.rank),), ends=True))
        for column in range(self.seeds):
            number = self.first + column
            cell = row.cells[number]
            ends = _ends(cell, place == shown.row and number == shown.seed, shown.marked)
            cells.append(Placed(self.cells_at + column * self.cell, self.cell, self._cell(cell, *ends)))
        return Line((*cells, *self._figures(row)), place == shown.row)

    def _figures(self, row: GridRow) -> Iterator[Placed]:
        """What stands beside the cells of a row."""
        mean = (
            (f"{RANKS.get(row.rank, ' ')} ", "rank"),
            (_mean(row, self.wide), row.rank if row.is_whole else "muted"),
        )
        yield Placed(self.mean_at, self.mean, mean)
        if self.so_far:
            so_far = "" if row.best_so_far is None else figure(row.best_so_far, self.figure)
            at = self.mean_at + self.mean
            yield Placed(at, self.so_far, ((so_far, "" if row.rank else "muted"),), right=True)

    def _cell(self, cell: GridCell | None, before: str, after: str) -> Cell:
        """A cell: the figure on its colour, or what state the run is in."""
        if cell is None:
            return ((before + " " * (self.cell - 2) + after, ""),)
        if cell.state != "finished" or cell.value is None or self.scale is None:
            words = words_of(cell).rjust(self.cell - 2)
            return ((before, "mark" if before in themes.MARKERS else ""), (words, cell.state), (after, ""))
        text = figure(cell.value, self.figure).rjust(self.figure)
        if self.plain:
            return ((f"{before}{self.scale.shade(cell.value)}{text}{after}", ""),)
        return ((f"{before}{text}{after}", f"heat {self.scale.step(cell.value)}{' on' * (after == CURSOR[1])}"),)


def _ends(cell: GridCell | None, has_cursor: bool, marked: Mapping[str, str]) -> tuple[str, str]:
    """What a cell begins and ends with: brackets for the cursor, the sign of a mark."""
    before, after = CURSOR if has_cursor else (" ", " ")
    return (marked.get(cell.run_id, before) if cell is not None else before), after


def words_of(cell: GridCell) -> str:
    """A run that has no figure yet: the sign of its state, and how far it is."""
    if cell.state == "finished":
        return present.NOTHING
    sign = SIGNS.get(cell.state, "?")
    return sign if cell.state in ("missing", "queued") else f"{sign} {present.percent(min(cell.done, 0.99), 0)}"


def figure(value: float, width: int) -> str:
    """A figure in so many characters at most: 0.2341, 12.34, 1.2e-5."""
    for digits in (4, 3, 2, 1):
        text = present.number(value, digits).replace("e-0", "e-").replace("e+0", "e")
        if len(text) <= width:
            return text
    return text[:width]


def _point(row: GridRow, brief: bool) -> str:
    number = f"#{row.number} " if row.number else ""
    return number + present.clean(row.brief if brief else row.point, 120)


def _mean(row: GridRow, wide: bool) -> str:
    """The mean over the seeds that have finished; how many these are, while there are others."""
    if not row.mean.n:
        return ""
    found = present.interval({"mean": row.mean.mean, "ci95": row.mean.ci95}, plus_minus=" ± " if wide else "±")
    seeds = sum(cell is not None for cell in row.cells)
    return f"{found} ({row.mean.n}/{seeds})" if wide and not row.is_whole else found
