"""StudyGrid: the runs of a study as cells in the colour of their results, a row a point, a column a meta-seed.

Colours are even steps of brightness that every kind of colour vision tells apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.binding import BindingType
from textual.color import Gradient
from textual.coordinate import Coordinate
from textual.message import Message

from lreg_tui.charts.heat_map import COLOURS
from lreg_tui.charts.heat_map import SHADES as DENSITIES
from lreg_tui.studies.study_rows import BEST, WINNER, GridCell, GridRow, StudyLook
from lreg_tui.text import present
from lreg_tui.text.present import clean
from lreg_tui.widgets import themes
from lreg_tui.widgets.keyed_table import KeyedTable
from lreg_tui.widgets.keys import bind

SIGNS = {
    "missing": "·",
    "queued": "○",
    "running": "▸",
    "paused": "=",
    "stopped": "■",
    "failed": "✕",
    "crashed": "!",
}
RANKS = {WINNER: "★", BEST: "☆"}
FIGURE = 6  # characters of a figure
WIDE = 110  # characters from which points are told with their keys
STEPS = 32  # colours of the scale
CAP = 0.9  # the share of the figures within the scale: a run that failed to learn must not take all colours
GRADIENT = Gradient.from_colors(*reversed(COLOURS))  # bright is best
SHADES = " " + DENSITIES[1:]  # whose dot means another thing here


@dataclass(frozen=True)
class ColourScale:
    """Where figures are between the least, which is best, and most of the greatest; logarithmic where that goes."""

    low: float = 0.0
    high: float = 0.0

    @classmethod
    def of(cls, rows: Iterable[GridRow]) -> ColourScale | None:
        """None where there are no figures."""
        cells = (cell for row in rows for cell in row.cells if cell is not None)
        values = sorted(cell.value for cell in cells if cell.value is not None and math.isfinite(cell.value))
        return cls(values[0], values[math.ceil(CAP * (len(values) - 1))]) if values else None

    def place(self, value: float) -> float:
        """0 for the best, 1 for what is as bad as the scale goes."""
        low, high = self.low, self.high
        if low > 0:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.0

    def step(self, value: float) -> int:
        return min(int(self.place(value) * STEPS), STEPS - 1)

    def legend(self, plain: bool) -> Text:
        """The scale, best first. `plain`: without colours."""
        text = Text(f"{present.setting(self.low, 3)} ", "dim", end="")
        for step in range(0, STEPS, STEPS // 8):
            text.append(shade(step / STEPS) if plain else " ", "" if plain else style(step))
        return text.append(f" {present.setting(self.high, 3)}", "dim")


def shade(position: float) -> str:
    """The denser, the better."""
    return SHADES[min(int((1 - position) * len(SHADES)), len(SHADES) - 1)]


@lru_cache(STEPS)
def style(step: int) -> Style:
    """Black or white, whichever can be read on a colour of the scale."""
    ground = GRADIENT.get_color(step / (STEPS - 1))
    return Style(color=ground.get_contrast_text(1.0).rich_color, bgcolor=ground.rich_color)


class StudyGrid(KeyedTable):
    """A StudyLook goes down by `show_study`. Arms, points and means stay in view where the seeds scroll."""

    HELP_TITLE = "Grid"
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("open", "select_cursor", tooltip="everything about the run under the cursor"),
        bind("mark", "mark", tooltip="mark the run, to compare it with others"),
        bind("mark_all", "mark_row", "mark row", "the runs of the row, or none", show=False),
    ]
    DEFAULT_CSS = """
    StudyGrid {
        & > .datatable--fixed { background: $background; }
        & > .datatable--cursor { background: $background; text-style: underline; }
        &:focus > .datatable--cursor { background: $background; text-style: bold reverse; }
    }
    """

    @dataclass
    class Marked(Message):
        """Other runs are marked than before."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, cursor_type="cell", cursor_background_priority="renderable")
        self.study: StudyLook | None = None
        self.scale: ColourScale | None = None
        self.marked: dict[str, None] = {}  # run ids in the order of their marking

    def show_study(self, study: StudyLook) -> None:
        """Take over what a study is like now. The cursor stays on its point, wherever that stands."""
        self.study, self.scale = study, ColourScale.of(study.rows)
        run_ids = {cell.run_id for cell in study.cells if cell.state != "missing"}
        self.marked = {run_id: None for run_id in self.marked if run_id in run_ids}
        self._fill()

    def _fill(self) -> None:
        if (study := self.study) is None:
            return
        before = ["arm", *["point"] * any(row.point for row in study.rows), "  mean ± 95%"]
        before += ["so far"] * study.is_search
        seeds = [f" seed {seed}" if len(str(seed)) < 2 else str(seed) for seed in study.seeds]
        self.fixed_columns = len(before)
        is_other = self.lay_out([Text(name) for name in (*before, *seeds)])
        self.show({"\0".join(map(str, row.key)): list(self._cells(row, before)) for row in study.rows})
        if is_other:
            self.move_cursor(column=len(before))

    def on_resize(self) -> None:
        self._fill()

    # -- the one under the cursor --------------------------------------------------------------------------------------

    def validate_cursor_coordinate(self, value: Coordinate) -> Coordinate:
        """The cursor is on a run, never on what stands before the runs."""
        row, column = super().validate_cursor_coordinate(value)
        return Coordinate(row, max(column, min(self.fixed_columns, len(self.columns) - 1)))

    @property
    def current_row(self) -> GridRow | None:
        rows = self.study.rows if self.study is not None else ()
        return rows[self.cursor_row] if self.cursor_row < len(rows) and self.row_count else None

    @property
    def current(self) -> GridCell | None:
        row, column = self.current_row, self.cursor_column - self.fixed_columns
        return row.cells[column] if row is not None and 0 <= column < len(row.cells) else None

    # -- marks ---------------------------------------------------------------------------------------------------------

    def action_mark(self) -> None:
        self._mark([self.current])

    def action_mark_row(self) -> None:
        self._mark(self.current_row.cells if self.current_row is not None else ())

    def _mark(self, cells: Sequence[GridCell | None]) -> None:
        """Mark these runs, or no longer where all are marked; one that is not there cannot be."""
        ids = [cell.run_id for cell in cells if cell is not None and cell.state != "missing"]
        if set(ids) <= self.marked.keys():
            self.marked = {run_id: None for run_id in self.marked if run_id not in ids}
        else:
            self.marked |= dict.fromkeys(ids)
        self._fill()
        self.post_message(self.Marked())

    def clear_marks(self) -> None:
        self.marked.clear()
        self._fill()
        self.post_message(self.Marked())

    # -- cells ---------------------------------------------------------------------------------------------------------

    def _cells(self, row: GridRow, before: Sequence[str]) -> Iterator[Text]:
        limit = max(8, self.size.width // 4)  # so that seeds have room beside what stays in view
        rank = "bold" if row.rank else ""
        yield Text(clean(row.arm, limit), "bold")
        if "point" in before:
            number = f"#{row.number} " if row.number else ""
            yield Text(clean(number + (row.point if self.size.width >= WIDE else row.brief), limit), rank)
        mean = Text.assemble((f"{RANKS.get(row.rank, ' ')} ", "bold"), (_mean(row), rank if row.is_whole else "dim"))
        yield mean
        if "so far" in before:
            best = "" if row.best_so_far is None else figure(row.best_so_far)
            yield Text(best.rjust(FIGURE), "" if row.rank else "dim")
        signs = dict(zip(self.marked, themes.MARKERS, strict=False))
        for cell in row.cells:
            is_marked = cell is not None and cell.run_id in self.marked
            mark = signs.get(cell.run_id, "+") if cell is not None and is_marked else " "
            yield Text(mark) if cell is None else self._run(cell, mark)

    def _run(self, cell: GridCell, mark: str) -> Text:
        """A run: the figure on its colour, or what state it is in."""
        if cell.state != "finished" or cell.value is None or self.scale is None:
            return Text(f"{mark}{words_of(cell):>{FIGURE}} ", present.STATE_STYLES.get(cell.state, "dim"))
        words = f"{figure(cell.value):>{FIGURE}}"
        if self.app.no_color:
            return Text(f"{mark}{shade(self.scale.place(cell.value))}{words}")
        return Text(f"{mark}{words} ", style(self.scale.step(cell.value)))


def words_of(cell: GridCell) -> str:
    """A run that has no figure yet: the sign of its state, and how far it is."""
    if cell.state == "finished":
        return present.NOTHING
    sign = SIGNS.get(cell.state, "?")
    return sign if cell.state in ("missing", "queued") else f"{sign} {present.percent(min(cell.done, 0.99), 0)}"


def figure(value: float) -> str:
    """A metric in few characters: 0.2341, 12.34, 1.2e-5."""
    texts = (present.number(value, digits).replace("e-0", "e-").replace("e+0", "e") for digits in (4, 3, 2, 1))
    return next((text for text in texts if len(text) <= FIGURE), present.number(value, 1)[:FIGURE])


def _mean(row: GridRow) -> str:
    """The mean over the seeds that have finished; how many these are, while there are others."""
    if not row.mean.n:
        return ""
    interval = present.interval({"mean": row.mean.mean, "ci95": row.mean.ci95}, plus_minus="±")
    seeds = sum(cell is not None for cell in row.cells)
    return interval if row.is_whole else f"{interval} ({row.mean.n}/{seeds})"
