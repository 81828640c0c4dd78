"""RunTable: every run on a line, live. Draws only the cells that change, so a thousand runs cost what is in view."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import BindingType
from textual.color import Color
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from engine.base.status import STOPPING
from lreg_tui.runs.feed import RunRow
from lreg_tui.runs.groups import STUDY, GroupRow, differing
from lreg_tui.runs.run_columns import BY_KEY, NAME, Cell, RunColumn, chosen, column, fit, longest_name
from lreg_tui.runs.run_list import MOST_OVERLAID, NEWEST_FIRST, RunList
from lreg_tui.system.keys import key_of
from lreg_tui.widgets import themes
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.themes import visible

AGES_EVERY_S = 20.0
LEAD = 2  # characters before the first column: mark, pin
WIDE = 110  # characters from which columns stand further apart
RESULT = "meta_loss"  # beside settings, where runs are sorted by no figure
LOOKS = {  # of kinds of parts: the component class of each
    **dict.fromkeys(("heading", "muted", "queued"), "muted"),
    **dict.fromkeys(("finished", "transfer"), "quiet"),
    **dict.fromkeys(("bar", "running"), "good"),
    **dict.fromkeys(("paused", STOPPING, "stopped"), "warning"),
    **dict.fromkeys(("failed", "crashed"), "bad"),
    **{kind: kind for kind in ("sorted", "cursor", "pin", "done", "rest")},
}


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
        for each, width in zip(self.columns, self.widths, strict=True):
            yield each, start, width
            start += width + self.gap

    def heading(self, sorted_by: str, reverse: bool) -> Iterator[tuple[int, int, Cell, RunColumn]]:
        """The names of the columns, beside the first how many there is no room for; an arrow shows the order."""
        for each, start, width in self.places():
            is_sorted = each.key == sorted_by
            arrow = ("▼" if reverse else "▲") if is_sorted else ""
            text = arrow + each.heading if each.right else each.heading + arrow
            cell: Cell = ((text, "sorted" if is_sorted else "heading"),)
            if each.key == NAME and self.missing:
                cell += ((f"  {key_of('columns')}: {self.missing} more", "muted"),)
            yield start - each.right, width + each.right, cell, each  # the arrow in the gap

    def line(self, runs: RunList, row: RunRow) -> Iterator[tuple[int, int, Cell, RunColumn]]:
        """Where each cell of a run begins, its width, what it shows, and its column."""
        fold = ((words, "muted"),) if (words := runs.fold_of(row)) else ()
        for each, start, width in self.places():
            yield start, width, (*fold, *each.show(row)) if each.key == NAME else each.show(row), each


def _mark(runs: RunList, row: RunRow) -> Cell:
    """The marker that tells a run in the charts, a plus for marked ones that the charts leave out; and the pin."""
    series, pin = runs.mark_of(row), ("*" if row.pinned else " ", "pin")
    if series is None:
        return ((" ", ""), pin)
    return ((themes.MARKERS[series], f"series {series}") if 0 <= series < MOST_OVERLAID else ("+", ""), pin)


@dataclass(frozen=True)
class TableLayout:
    """`columns`: keys of those that the user wants (none: whichever fit); `differing`: first the settings in which runs
    differ; for `sort`, `reverse` and `group` see RunList.
    """

    sort: str = NEWEST_FIRST
    reverse: bool = False
    columns: tuple[str, ...] = ()
    differing: bool = False
    group: str = STUDY


class RunTable(ScrollView, can_focus=True):
    """Runs sorted, filtered and marked (see RunList). Rows go down by `show_runs`."""

    HELP_TITLE = "Table"
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("mark", "mark", tooltip="mark for overlay, compare, transfer and actions"),
        bind("open", "open", tooltip="everything about the run; what is in a group"),
        bind("right", "unfold(True)", "unfold", "what is below the line: runs, transfers", show=False),
        bind("left", "unfold(False)", "fold", "fold it away", show=False),
        bind("up", "move(-1)", show=False),
        bind("down", "move(1)", show=False),
        bind("page_up", "page(-1)", show=False),
        bind("page_down", "page(1)", show=False),
        bind("first", "go_to(0)", show=False),
        bind("last", "go_to(-1)", show=False),
        bind("mark_all", "mark_all", tooltip="every run, or none", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"run-table--{name}" for name in LOOKS.values()}
    DEFAULT_CSS = """
    RunTable {
        overflow-x: hidden; overflow-y: auto; scrollbar-size: 1 1; scrollbar-gutter: stable;
        & > .run-table--muted { color: $text-muted; }
        & > .run-table--sorted { color: $primary; text-style: bold; }
        & > .run-table--cursor { background: $foreground 12%; }
        &:focus > .run-table--cursor { background: $primary 30%; text-style: bold; }
        & > .run-table--quiet { color: $foreground 75%; }
        & > .run-table--pin { color: $accent; }
        & > .run-table--good { color: $success; }
        & > .run-table--done { color: $foreground 45%; }
        & > .run-table--rest { color: $foreground 20%; }
        & > .run-table--warning { color: $warning; }
        & > .run-table--bad { color: $error; text-style: bold; }
    }
    """

    @dataclass
    class Selected(Message):
        """Other runs are selected (in the order of their marking; the one under the cursor is first), or another line
        is under the cursor."""

        run_ids: tuple[str, ...]

    @dataclass
    class Opened(Message):
        run_id: str

    @dataclass
    class LayoutChanged(Message):
        """The user has other columns, another order, or other groups."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.runs = RunList()
        self.arrangement = TableLayout()
        self._grid = Grid()
        self._drawn: dict[int, Strip] = {}  # by line of the widget
        self._styles: dict[str, Style] = {}  # of kinds of parts, as they look now
        self._laid_out: tuple[object, ...] = ((),)  # what it is for
        self._told: tuple[tuple[str, ...], str | None] = ((), None)

    def on_mount(self) -> None:
        self.set_interval(AGES_EVERY_S, lambda: self._change(self.runs.arrange))

    # -- data goes down, news comes up -------------------------------------------------------------------------------

    def show_runs(self, rows: Sequence[RunRow], is_whole: bool = True) -> None:
        self._change(lambda: self.runs.replace(rows, is_whole))

    def select(self, run_id: str) -> None:
        """Put the cursor on a run, now or when it appears."""
        self._change(lambda: self.runs.select(run_id), leaps=True)

    def filter_by(self, predicate: Callable[[RunRow], bool]) -> None:
        self._change(lambda: self.runs.filter_by(predicate))

    def show_as(self, arrangement: TableLayout) -> None:
        self.arrangement, runs = arrangement, self.runs
        runs.sorted_by, runs.reverse = arrangement.sort, arrangement.reverse
        by = arrangement.group
        self._change(lambda: runs.group_by(by) if by != runs.grouped_by else runs.arrange())
        self.refresh(Region(0, 0, self._room, 1))

    def _change(self, change: Callable[[], None], leaps: bool = False) -> None:
        """Change the list; a cursor that was in view, or `leaps`, is in view then; draw and tell what is different."""
        before, offset = self.runs.cursor, self.scroll_offset.y
        change()
        self._fit()
        if leaps or offset <= before < offset + self._page:
            self._scroll_to_cursor()
        self._lay_out()
        self.redraw_changed()
        self._tell()

    def _tell(self) -> None:
        ids, cursor = tuple(row.id for row in self.runs.selected), self.runs.cursor_id
        if (ids, cursor) != self._told:
            self._told = ids, cursor
            self.post_message(self.Selected(ids))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """An empty table has no keys."""
        if action == "unfold":
            return bool(self.runs.fold)
        return bool(self.runs.lines) if action in ("mark", "mark_all", "open") else True

    # -- keys and mouse ----------------------------------------------------------------------------------------------

    def move_to(self, index: int) -> None:
        """Only the two lines are drawn again between which the cursor moves: nothing else is different."""
        before = self.runs.cursor
        self.runs.move_to(index)
        self._scroll_to_cursor()
        for index in (before, self.runs.cursor):
            y = index + 1 - self.scroll_offset.y
            if 0 < y < self.size.height:
                self.refresh(Region(0, y, self._room, 1))
        self._tell()

    def action_move(self, rows: int) -> None:
        self.move_to(self.runs.cursor + rows)

    def action_page(self, pages: int) -> None:
        self.move_to(self.runs.cursor + pages * max(1, self._page - 1))

    def action_go_to(self, index: int) -> None:
        self.move_to(index if index >= 0 else len(self.runs.lines) - 1)

    def clear_marks(self) -> None:
        self._change(self.runs.clear_marks)

    def action_mark(self) -> None:
        self._change(self.runs.mark)

    def action_mark_all(self) -> None:
        self._change(self.runs.mark_all)

    def action_open(self) -> None:
        row = self.runs.cursor_line
        if isinstance(row, GroupRow):
            self.action_unfold(not self.runs.is_open(row))
        elif row is not None:
            self.post_message(self.Opened(row.id))

    def action_unfold(self, is_open: bool) -> None:
        self._change(lambda: self.runs.unfold(is_open))

    def choose(self, **changes: Any) -> None:
        self.show_as(replace(self.arrangement, **changes))
        self.post_message(self.LayoutChanged())

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            keys = (each.key for each, start, width in self._grid.places() if start <= event.x < start + width)
            if key := next(keys, ""):
                self.choose(sort=key, reverse=key == self.runs.sorted_by and not self.runs.reverse)
            return
        index = event.y - 1 + self.scroll_offset.y
        if index < len(self.runs.lines):
            self.move_to(index)
            if event.x < LEAD:
                self.action_mark()
            elif event.chain == 2:
                self.action_open()

    # -- drawing -----------------------------------------------------------------------------------------------------

    @property
    def columns(self) -> tuple[RunColumn, ...]:
        return self._grid.columns

    def _lay_out(self) -> None:
        runs = self.runs
        picked, puts_differing_first = self.arrangement.columns, self.arrangement.differing
        now = runs.lines, self._room, picked, puts_differing_first, runs.sorted_by
        if now[0] is self._laid_out[0] and now[1:] == self._laid_out[1:]:
            return  # which looks at every run
        self._laid_out = now
        first = [*(differing(runs.listed) if puts_differing_first else ()), *picked]
        if runs.sorted_by not in BY_KEY or (first and column(runs.sorted_by).is_figure):
            first.insert(0, runs.sorted_by)
        elif puts_differing_first:
            first.insert(0, RESULT)
        grid = Grid.of(runs.lines, self._room, first, bool(picked), runs.fold)
        if grid != self._grid:
            self._grid = grid
            self._drawn.clear()
            self.refresh()

    def on_resize(self) -> None:
        self._fit()
        self._lay_out()
        self._scroll_to_cursor()

    @property
    def _room(self) -> int:
        """Characters in a line."""
        return self.scrollable_content_region.width

    @property
    def _page(self) -> int:
        """Lines in view."""
        return max(1, self.size.height - 1)

    def _fit(self) -> None:
        """Be as high as there are lines."""
        self.virtual_size = Size(self._room, len(self.runs.lines) + 1)

    def _scroll_to_cursor(self) -> None:
        offset = self.scroll_offset.y
        target = min(max(offset, self.runs.cursor - self._page + 1), self.runs.cursor)
        if target != offset:
            self.scroll_to(y=target, animate=False, force=True)

    def redraw_changed(self) -> None:
        """Draw again the cells in view that show something else than before."""
        for y in range(1, self.size.height):
            before, now = self._drawn.get(y), self._strip(y)
            if before is None or [part.cell_length for part in before] != [part.cell_length for part in now]:
                self.refresh(Region(0, y, self._room, 1))
                continue
            x = 0
            for old, new in zip(before, now, strict=True):
                if old != new:
                    self.refresh(Region(x, y, new.cell_length, 1))
                x += new.cell_length

    def _strip(self, y: int) -> Strip:
        """A line of the widget: the headings, a run, or nothing."""
        runs, index, style = self.runs, y - 1 + self.scroll_offset.y, self.rich_style
        segments: list[Segment] = []
        if y == 0:
            cells = self._grid.heading(runs.sorted_by, runs.reverse)
        elif index < len(runs.lines):
            row = runs.lines[index]
            style += self.get_component_rich_style("run-table--cursor") if index == runs.cursor else Style()
            segments = [Segment(text, style + self.style_of(kind)) for text, kind in _mark(runs, row)]
            cells = self._grid.line(runs, row)
        else:
            return Strip.blank(self._room, style)
        x = len(segments)
        for start, width, cell, of in cells:
            segments.append(Segment(" " * (start - x), style))
            left, x = width, start + width
            for number, (text, kind) in enumerate(cell, start=1):
                is_last = number == len(cell)  # of a name the end stays where it is cut: it tells runs apart
                fitted = fit(text, left, of.right, of.key == NAME) if is_last else text
                left -= cell_len(text)
                segments.append(Segment(fitted, style + self.style_of(kind)))
        told = [segment for segment in segments if segment.text]  # an empty first one would move the line
        return Strip(told).adjust_cell_length(self._room, style)

    def render_line(self, y: int) -> Strip:
        if self._laid_out[1:2] != (self._room,):
            self._lay_out()  # it is drawn before it is told that it has another size
        self._drawn[y] = self._strip(y)
        return self._drawn[y]

    def notify_style_update(self) -> None:
        self._styles.clear()
        super().notify_style_update()

    def style_of(self, kind: str) -> Style:
        """How a kind of part looks: as its component class says. The background is that of the line."""
        if kind not in self._styles:
            self._styles[kind] = self._make_style(kind)
        return self._styles[kind]

    def _make_style(self, kind: str) -> Style:
        if kind.startswith("series "):
            colour = visible(Color.parse(themes.SERIES[int(kind[7:])]), self.background_colors[1])  # as the charts do
            return Style(color=colour.rich_color)
        if kind not in LOOKS:
            return Style()
        style = self.get_component_rich_style(f"run-table--{LOOKS[kind]}")
        return Style(color=style.color, bold=style.bold or None)
