"""RunTable: every run on a line, live. Draws only the cells that change, so a thousand runs cost what is in view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

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
from lreg_tui.runs.groups import GroupRow, differing
from lreg_tui.runs.run_columns import BY_KEY, RunColumn, column
from lreg_tui.runs.run_lines import LEAD, Grid, TableLine, drawn
from lreg_tui.runs.run_list import RunList
from lreg_tui.widgets import themes
from lreg_tui.widgets.contrast import visible
from lreg_tui.widgets.keys import bind

AGES_EVERY_S = 20.0
RESULT = "meta_loss"  # beside settings, where runs are sorted by no figure
LOOKS = {  # of kinds of parts: the component class of each
    **dict.fromkeys(("heading", "muted", "queued"), "muted"),
    **dict.fromkeys(("finished", "transfer"), "quiet"),
    **dict.fromkeys(("bar", "running"), "good"),
    **dict.fromkeys(("paused", STOPPING, "stopped"), "warning"),
    **dict.fromkeys(("failed", "crashed"), "bad"),
    **{kind: kind for kind in ("sorted", "cursor", "pin", "done", "rest")},
}


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
        self.picked: tuple[str, ...] = ()  # keys of the columns that the user wants; none: whichever fit
        self.differing = False  # first the settings in which runs differ
        self._grid = Grid()
        self._drawn: dict[int, TableLine] = {}  # by line of the widget
        self._styles: dict[str, Style] = {}  # of kinds of parts, as they look now
        self._laid_out: tuple[object, ...] = ((),)  # what it is for
        self._told: tuple[tuple[str, ...], str | None] = ((), None)

    def on_mount(self) -> None:
        self.set_interval(AGES_EVERY_S, lambda: self._change(self.runs.arrange))

    # -- data goes down, news comes up -------------------------------------------------------------------------------

    def show_runs(self, rows: Sequence[RunRow], is_whole: bool = True) -> None:
        """Take over what is in the run store, or as much of it as is read by now."""
        self._change(lambda: self.runs.replace(rows, is_whole))

    def select(self, run_id: str) -> None:
        """Put the cursor on a run, now or when it appears."""
        self._change(lambda: self.runs.select(run_id), leaps=True)

    def filter_by(self, predicate: Callable[[RunRow], bool]) -> None:
        self._change(lambda: self.runs.filter_by(predicate))

    def show_as(self, *, sort: str, reverse: bool, columns: Sequence[str], differing: bool, group: str) -> None:
        """See RunList, `picked` and `differing`."""
        self.picked, self.differing = tuple(columns), differing
        self.runs.sorted_by, self.runs.reverse = sort, reverse
        self._change(lambda: self.runs.group_by(group) if group != self.runs.grouped_by else self.runs.arrange())
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
        return bool(self.runs.shown) if action in ("mark", "mark_all", "open") else True

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
        self.move_to(index if index >= 0 else len(self.runs.shown) - 1)

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
        """As the user wants it: some of what `show_as` takes."""
        self.show_as(**{**self.shown_as, **changes})
        self.post_message(self.LayoutChanged())

    @property
    def shown_as(self) -> dict[str, Any]:
        """What `show_as` was last given."""
        runs = self.runs
        return {
            "sort": runs.sorted_by,
            "reverse": runs.reverse,
            "columns": [*self.picked],
            "differing": self.differing,
            "group": runs.grouped_by,
        }

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            if (column := self._grid.column_at(event.x)) is not None:
                self.choose(sort=column.key, reverse=column.key == self.runs.sorted_by and not self.runs.reverse)
            return
        index = event.y - 1 + self.scroll_offset.y
        if index < len(self.runs.shown):
            self.move_to(index)
            if event.x < LEAD:
                self.action_mark()
            elif event.chain == 2:
                self.action_open()

    # -- drawing -----------------------------------------------------------------------------------------------------

    @property
    def columns(self) -> tuple[RunColumn, ...]:
        """The columns in view."""
        return self._grid.columns

    def _lay_out(self) -> None:
        runs = self.runs
        now = runs.shown, self._room, self.picked, self.differing, runs.sorted_by
        if now[0] is self._laid_out[0] and now[1:] == self._laid_out[1:]:
            return  # which looks at every run
        self._laid_out = now
        first = [*(differing(runs.listed) if self.differing else ()), *self.picked]
        if runs.sorted_by not in BY_KEY or (first and column(runs.sorted_by).is_figure):
            first.insert(0, runs.sorted_by)
        elif self.differing:
            first.insert(0, RESULT)
        grid = Grid.of(runs.shown, self._room, first, bool(self.picked), runs.fold)
        if grid != self._grid:
            self._grid = grid
            self._draw_all()

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
        self.virtual_size = Size(self._room, len(self.runs.shown) + 1)

    def _scroll_to_cursor(self) -> None:
        offset = self.scroll_offset.y
        target = min(max(offset, self.runs.cursor - self._page + 1), self.runs.cursor)
        if target != offset:
            self.scroll_to(y=target, animate=False, force=True)

    def _draw_all(self) -> None:
        """Draw everything again: the columns are others."""
        self._drawn.clear()
        self.refresh()

    def redraw_changed(self) -> None:
        """Draw again the cells in view that show something else than before."""
        for y in range(1, self.size.height):
            before, now = self._drawn.get(y), self._line_at(y)
            if before is None or before.has_cursor != now.has_cursor or len(before.cells) != len(now.cells):
                self.refresh(Region(0, y, self._room, 1))
                continue
            for old, new in zip(before.cells, now.cells, strict=True):
                if old != new:
                    self.refresh(Region(new.start, y, new.width, 1))

    def _line_at(self, y: int) -> TableLine:
        return self._grid.line(self.runs, y - 1 + self.scroll_offset.y)

    def render_line(self, y: int) -> Strip:
        if self._laid_out[1:2] != (self._room,):
            self._lay_out()  # it is drawn before it is told that it has another size
        if y == 0:
            line = self._grid.heading(self.runs.sorted_by, self.runs.reverse)
        else:
            line = self._drawn[y] = self._line_at(y)
        style = self.rich_style
        if line.has_cursor:
            style += self.get_component_rich_style("run-table--cursor")
        return drawn(line, self._room, style, self.style_of)

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
