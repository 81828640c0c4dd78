"""StudyGrid: the runs of a study as cells in the colour of their results. Draws only the cells that change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message

from lreg_tui.runs.line_table import LineTable
from lreg_tui.runs.run_lines import Line
from lreg_tui.studies import study_scale
from lreg_tui.studies.study_cells import Columns, Shown
from lreg_tui.studies.study_rows import GridCell, GridRow, StudyLook
from lreg_tui.widgets import themes

STYLES = "heading cursor muted arm winner best rank mark queued missing running paused stopped failed crashed finished"
KINDS = frozenset(STYLES.split())


class StudyGrid(LineTable):
    """Rows are points of arms, columns are meta-seeds. A StudyLook goes down by `show`."""

    HELP_TITLE = "Grid"
    PREFIX = "study-grid"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "open", key_display="⏎", tooltip="everything about the run under the cursor"),
        Binding("space", "mark", "mark", tooltip="mark the run, to compare it with others"),
        Binding(
            "asterisk", "mark_row", "mark row", key_display="*", show=False, tooltip="the runs of the row, or none"
        ),
        Binding("up,k", "move(-1, 0)", "up", show=False),
        Binding("down,j", "move(1, 0)", "down", show=False),
        Binding("left", "move(0, -1)", "left", show=False),
        Binding("right", "move(0, 1)", "right", show=False),
        Binding("pageup", "page(-1)", "page up", show=False),
        Binding("pagedown", "page(1)", "page down", show=False),
        Binding("home", "go_to(0)", "first", show=False),
        Binding("end,G", "go_to(-1)", "last", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"study-grid--{name}" for name in KINDS}
    DEFAULT_CSS = """
    StudyGrid {
        scrollbar-color: $foreground 25%; scrollbar-background: $background;
        & > .study-grid--heading, & > .study-grid--missing, & > .study-grid--queued { color: $text-muted; }
        & > .study-grid--muted { color: $text-muted; }
        & > .study-grid--cursor { background: $foreground 10%; }
        &:focus > .study-grid--cursor { background: $primary 25%; }
        & > .study-grid--arm, & > .study-grid--winner { text-style: bold; }
        & > .study-grid--best { color: $foreground; }
        & > .study-grid--rank, & > .study-grid--mark { color: $accent; text-style: bold; }
        & > .study-grid--running { color: $success; text-style: bold; }
        & > .study-grid--finished { color: $foreground 75%; }
        & > .study-grid--paused, & > .study-grid--stopped { color: $warning; }
        & > .study-grid--failed, & > .study-grid--crashed { color: $error; text-style: bold; }
    }
    """

    @dataclass
    class CursorMoved(Message):
        """Another cell is under the cursor, or there is other news of it."""

    @dataclass
    class Opened(Message):
        run_id: str

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.rows: Sequence[GridRow] = ()
        self.seeds: Sequence[int] = ()
        self.marked: dict[str, None] = {}  # run ids in the order of their marking
        self.row = self.seed = 0  # of the cursor, by place
        self.columns = Columns()
        self._is_search = False
        self._first = 0  # of the seeds in view
        self._told: tuple[object, ...] = ()

    # -- data goes down, news comes up -------------------------------------------------------------------------------

    def show(self, look: StudyLook) -> None:
        """Take over what a study is like now. The cursor stays on its point, wherever that stands."""
        key = self.current_row.key if self.current_row is not None else None
        self.rows, self.seeds, self._is_search = look.rows, look.seeds, look.is_search
        self.row = next((place for place, row in enumerate(self.rows) if row.key == key), self.row)
        there = {cell.run_id for cell in look.cells if cell.state != "missing"}
        self.marked = {run_id: None for run_id in self.marked if run_id in there}
        self._change()

    @property
    def current_row(self) -> GridRow | None:
        return self.rows[self.row] if 0 <= self.row < len(self.rows) else None

    @property
    def current(self) -> GridCell | None:
        """The cell under the cursor."""
        row = self.current_row
        return row.cells[self.seed] if row is not None and 0 <= self.seed < len(row.cells) else None

    def _change(self, leaps: bool = False) -> None:
        """After a change: a cursor that was in view, or `leaps`, is in view; draw and tell what is different."""
        self.row = max(0, min(self.row, len(self.rows) - 1))
        self.seed = max(0, min(self.seed, len(self.seeds) - 1))
        self._fit()
        self._lay_out()
        if leaps:
            self._scroll_to_cursor()
        self.redraw_changed()
        told = (self.current_row, self.seed, tuple(self.marked))
        if told != self._told:
            self._told = told
            self.post_message(self.CursorMoved())

    # -- keys and mouse ----------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        return len(self.rows)

    @property
    def cursor(self) -> int:
        return self.row

    def move_to(self, place: int, seed: int | None = None) -> None:
        """Put the cursor on a row, and where a seed is given, on its cell; both by their place."""
        self.row, self.seed = place, self.seed if seed is None else seed
        self._change(leaps=True)

    def action_move(self, rows: int, seeds: int) -> None:
        self.move_to(self.row + rows, self.seed + seeds)

    def action_open(self) -> None:
        if self.current is not None:
            self.post_message(self.Opened(self.current.run_id))

    def action_mark(self) -> None:
        """Mark the run, or no longer; one that is not there cannot be."""
        if self.current is not None and self.current.state != "missing":
            self._mark([self.current.run_id], self.current.run_id not in self.marked)

    def action_mark_row(self) -> None:
        cells = self.current_row.cells if self.current_row is not None else ()
        ids = [cell.run_id for cell in cells if cell is not None and cell.state != "missing"]
        self._mark(ids, not set(ids) <= self.marked.keys())

    def _mark(self, run_ids: Sequence[str], is_marked: bool) -> None:
        for run_id in run_ids:
            if is_marked:
                self.marked.setdefault(run_id)
            else:
                self.marked.pop(run_id, None)
        self._change()

    def clear_marks(self) -> None:
        self.marked.clear()
        self._change()

    def on_click(self, event: events.Click) -> None:
        row, seed = event.y - 1 + self.scroll_offset.y, self.columns.seed_at(event.x)
        if event.y > 0 and row < len(self.rows):
            self.move_to(row, seed)
            if event.chain == 2 and seed is not None:
                self.action_open()

    # -- drawing -----------------------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        """The columns that fit, with that of the cursor among them."""
        found = self._columns(self._first)
        first = max(min(found.first, self.seed), self.seed - found.seeds + 1)
        found = found if first == found.first else self._columns(first)
        self._first = found.first
        if found != self.columns:
            self.columns = found
            self._draw_all()

    def _columns(self, first: int) -> Columns:
        options = {"is_search": self._is_search, "plain": self.app.no_color}
        return Columns.of(self.rows, len(self.seeds), self._room, first=first, **options)

    def on_resize(self) -> None:
        self._change(leaps=True)

    def heading(self) -> Line:
        return self.columns.heading(self.seeds)

    def line(self, place: int) -> Line:
        return self.columns.line(self.rows, place, self._shown())

    def _shown(self) -> Shown:
        signs = dict(zip(self.marked, themes.MARKERS, strict=False))
        marked = {run_id: signs.get(run_id, "+") for run_id in self.marked}
        return Shown(self.row, self.seed, marked, self.scroll_offset.y)

    def style_of(self, kind: str) -> Style:
        if kind.startswith("heat "):
            _, step, *cursor = kind.split()
            return study_scale.style(int(step)) + Style(bold=bool(cursor) or None)
        return super().style_of(kind) if kind in KINDS else Style()
