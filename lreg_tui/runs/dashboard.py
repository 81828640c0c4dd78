"""DashboardScreen: the runs beside their curves, the log of the one under the cursor, and the machine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Static

from engine.base.metrics import USUAL_HEADLINE, headline, is_known, primary_sharpness
from lreg_tui.charts.chart import Chart
from lreg_tui.runs import filters
from lreg_tui.runs.acting import ACTIONS
from lreg_tui.runs.console_base import RunsChanged, SeriesChanged
from lreg_tui.runs.dashboard_text import METRICS, OF_STORE, TABLE, DashboardLayout, head, instead
from lreg_tui.runs.feed import RunRow
from lreg_tui.runs.metric_panel import MetricPanel, Panels, ids_of
from lreg_tui.runs.run_list import MOST_OVERLAID
from lreg_tui.runs.run_notice import RunNotice
from lreg_tui.runs.run_table import RunTable
from lreg_tui.runs.table_screen import TableScreen, filter_prompt
from lreg_tui.text import present
from lreg_tui.widgets.keys import KeyFooter, bind
from lreg_tui.widgets.pick_list import Choice, PickList

if TYPE_CHECKING:
    from lreg_tui.widgets.log_tail import LogTail

SETTLE_S = 0.12  # the cursor rests so long on a run before its metrics are read
LOG_LINES = 500
PANEL_KEYS = "choose a panel (narrow screens show it alone); 4: the log"
BACK = "to the table, then without marks, then without filter"
NAME = "dashboard"  # in what the console remembers
FOR_RUNS = (*TABLE, "highlight", "metric", "full_screen", "next_panel", "show_panel")  # of no use where none is shown


class DashboardScreen(TableScreen, inherit_bindings=False):
    """What the console opens with: a run table, a panel for each of some metrics, and #log, which holds a LogTail.

    One panel is chosen: keys go to it, and narrow screens show it alone.
    """

    DEFAULT_CSS = Path(__file__).with_suffix(".tcss").read_text("utf-8")  # CSS_PATH is read of pushed screens alone
    ESCAPE_TO_MINIMIZE = False  # keys give the focus back as well
    HELP_TITLE = "Runs"
    HELP_TEXT = f"Filter\n{filters.HELP}"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-medium"), (160, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-low"), (32, "-high")]
    BINDINGS: ClassVar[list[BindingType]] = [  # in the order of the footer, of which narrow screens show the beginning
        bind("search", "filter", "filter", "show some of the runs only"),
        bind("add", "app.new_run", "new run", "pick a preset and start a run"),
        bind("compare", "compare", tooltip=f"the marked runs, 2 to {MOST_OVERLAID}, or pick some"),
        *(ACTIONS[name] for name in ("undo", "stop_run", "pause_run", "continue_run", "resume_run", "transfer")),
        bind("edit", "edit", tooltip="a new run from the preset of the one under the cursor, edited"),
        bind("studies", "app.studies", tooltip="studies: many runs as one, with a report"),
        bind("help", "app.help", tooltip="this list", keys="?"),
        bind("panel", "next_panel(1)", tooltip="on to the next panel, with its own keys"),
        bind("panel_before", "next_panel(-1)", show=False),
        bind("full_screen", "full_screen"),
        bind("full_screen", "small", "leave full screen", "back to all panels"),
        bind("metric", "metric", tooltip="another metric for the panel"),
        bind("sort", "sort", tooltip="sort by any column, metric or setting"),
        bind("reverse", "reverse", tooltip="the same column, the other way round", show=False),
        bind("columns", "columns", tooltip="pick columns: any setting, any metric"),
        bind("differing", "differing", tooltip="first the settings in which the runs differ, or not"),
        bind("highlight", "highlight", tooltip="of the curves shown, that of the line under the cursor", show=False),
        bind("group", "group", tooltip="group runs by seed, study or any setting, or no longer"),
        bind("processes", "processes", show=False),
        *(ACTIONS[name] for name in ("rename_run", "tag_run", "pin_run", "copy_id", "delete_run")),
        bind("quit", "app.quit", tooltip="leave the console; runs go on"),
        *(bind("show", f"show_panel({key})", f"panel {key}", PANEL_KEYS, keys=key, show=False) for key in "1234"),
        # before a chart's own: where it has no cursor to take away, its key leads back
        bind("back", "back", tooltip=BACK, priority=True),
    ]

    CHANGING = (*TableScreen.CHANGING, *FOR_RUNS, "edit", "filter")

    def __init__(self) -> None:
        super().__init__(classes="-nothing")
        self.panel_index = 0  # of the chosen panel
        self.highlights = False  # the curve of what is under the cursor
        self.arrangement = DashboardLayout()
        self._title = Text()
        self._judged_by = (USUAL_HEADLINE.name, "sharpness")  # what the panels for it show
        self._names: set[str] = set()  # what the runs can be filtered by
        self._log: LogTail | None = None
        self._waiting: Timer | None = None
        self._has_looked = False  # the feed has told what there is

    @property
    def _name_here(self) -> str:
        """What fits only the runs that it was chosen for is remembered by this name."""
        return f"{NAME} of {self.lreg.store.root}"

    @property
    def panels(self) -> Panels:
        return self.query_one(Panels)

    @property
    def every_panel(self) -> list[Widget]:
        return [*self.panels.all, self.query_one("#log")]

    @property
    def panel(self) -> Widget:
        return self.every_panel[self.panel_index]

    def compose(self) -> ComposeResult:
        everywhere, of_store = (self.lreg.remembered.view(name) for name in (NAME, self._name_here))
        self.arrangement = DashboardLayout.from_json(
            {"columns": list(self.lreg.config.columns), **everywhere, **of_store}
        )
        with Horizontal(id="head"):
            yield Static(id="title", markup=False)
            yield Static(id="brief", markup=False)
        with Container(id="body"):
            with Vertical(id="runs"):
                yield self.table
                yield Static(id="instead", markup=False)
                yield RunNotice(id="notice")
            yield Panels(self.arrangement.metrics, id="panels")
            with Horizontal(id="foot"):
                with Vertical(id="log", classes="panel"):
                    yield Static("log", id="log-title", markup=False)
                with Vertical(id="machine"):
                    yield Static("machine", classes="title", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        self.table.show_as(self.arrangement)
        self._summarize()
        self._filter(self.arrangement.filter)
        self.choose_panel(self.arrangement.panel)
        self.watch(self.table, "virtual_size", lambda: self.call_next(self._show_state), init=False)  # its columns
        self.table.focus()
        self.call_after_refresh(self._furnish)

    def _furnish(self) -> None:
        """What the first paint does without."""
        from lreg_tui.runs.machine_panel import MachinePanel
        from lreg_tui.widgets.log_tail import LogTail

        log, machine = self.query_one("#log"), self.query_one("#machine")
        if not machine.is_attached:  # the console ends already
            return
        self._log = LogTail(lines=LOG_LINES, short_times=True)
        log.mount(self._log)
        brief = self.query_one("#brief", Static)  # its width is that of the text
        machine.mount(MachinePanel(self.lreg.store.root, brief.update, slow=self.lreg.slow_link))
        self._follow()

    # -- panels ------------------------------------------------------------------------------------------------------

    def choose_panel(self, index: int) -> None:
        self.panel_index = index
        for number, panel in enumerate(self.every_panel):
            panel.set_class(number == index, "-chosen")
        self.set_class(index == len(METRICS), "-log-chosen")
        if self.maximized is not None:
            self.maximized = self.panel
        self.keep(panel=index)

    def focus_panel(self) -> None:
        panel = self.panel
        self.set_focus(panel.chart if isinstance(panel, MetricPanel) else self._log)

    def on_descendant_focus(self) -> None:
        for number, panel in enumerate(self.every_panel):
            if self.focused is not None and panel in self.focused.ancestors and panel is not self.panel:
                self.choose_panel(number)

    def action_next_panel(self, direction: int) -> None:
        """The focus goes from the table through the panels, and back to the table."""
        index = 0 if self.focused is self.table else self.panel_index + 1
        index = (index + direction) % (len(self.every_panel) + 1)
        if index:
            self.choose_panel(index - 1)  # before it gets the focus: what is not displayed cannot have it
            self.focus_panel()
        else:
            self.maximized = None
            self.table.focus()

    def action_show_panel(self, number: int) -> None:
        """The focus goes along where a panel has it: the one before may not be in view any more."""
        had_focus = self.focused is not None and self.focused is not self.table
        self.choose_panel(number - 1)
        if had_focus:
            self.focus_panel()

    def action_full_screen(self) -> None:
        """The panel fills the screen and has the focus."""
        self.maximized = self.panel
        self.focus_panel()

    def action_small(self) -> None:
        self.maximized = None
        self.table.focus()

    @work(group="ask", exclusive=True)
    async def action_metric(self) -> None:
        panel = self.panel if isinstance(self.panel, MetricPanel) else self.panels.all[0]
        recorded = {name for row in self._overlaid for name in (*self.lreg.feed.metrics(row.id), *row.latest)}
        names = sorted(recorded | set(METRICS), key=lambda name: (not is_known(name), name))
        choices = [Choice(name, present.label(name), name) for name in names]
        picked = await self.app.push_screen_wait(PickList("metric", choices, (panel.metric,)))
        if picked:
            panel.metric = picked[0]
            panel.update_from(self.lreg.feed)
            self.keep(metrics=self.panels.metrics)

    # -- what comes from the feed ------------------------------------------------------------------------------------

    def on_runs_changed(self, message: RunsChanged) -> None:
        self._has_looked = self.lreg.feed.is_whole
        if self.arrangement.filter and (names := filters.names_of(message.rows)) != self._names:
            self._names = names  # among which are settings that the filter means
            self._filter(self.arrangement.filter)
        self.table.show_runs(message.rows, self._has_looked)
        self._show_state()

    def on_series_changed(self, message: SeriesChanged) -> None:
        if self.is_current or isinstance(self.app.screen, ModalScreen):
            self.panels.update_from(self.lreg.feed)

    def on_screen_resume(self) -> None:
        self._follow()  # another screen may have followed other runs

    def action_processes(self) -> None:
        from lreg_tui.runs.machine_panel import ProcessScreen

        self.app.push_screen(ProcessScreen(self.lreg.feed))

    # -- what comes from the table -----------------------------------------------------------------------------------

    def on_run_table_selected(self) -> None:
        self._settle()

    def on_run_table_opened(self, message: RunTable.Opened) -> None:
        self.lreg.open_run(message.run_id)

    def on_run_table_layout_changed(self, message: RunTable.LayoutChanged) -> None:
        self.keep(**{key: getattr(self.table.arrangement, key) for key in TABLE})
        self._summarize()
        self._show_state()

    def _summarize(self) -> None:
        """Only what the table shows smoothed, or at its best, is read of every run."""
        keys = (self.table.runs.sorted_by, *self.table.arrangement.columns)
        self.lreg.feed.summarize({key.split(" ")[0] for key in keys if " " in key})

    def _settle(self) -> None:
        """Metrics and log are read only of runs that the cursor rests on."""
        self._show_state()
        if self._waiting is not None:
            self._waiting.stop()
        self._waiting = self.set_timer(SETTLE_S, self._follow)

    def _follow(self) -> None:
        rows, curves = self._overlaid, self.table.runs.curves
        self.lreg.feed.follow({row.id: row.path for row in rows})
        under_cursor = {row.id for row in self.table.runs.under_cursor} if self.highlights else set()
        bright = next((ids for ids, _ in curves if under_cursor & {*ids_of(ids)}), None)
        self.panels.show_runs(curves, are_jobs=not all(row.kind.has_curves for row in rows), highlighted=bright)
        self._show_what_they_are_judged_by({name for row in rows for name in row.latest})
        self.panels.update_from(self.lreg.feed)
        cursor = self.table.runs.cursor_row
        if self._log is not None:
            self._log.path = cursor.path / "log.txt" if cursor is not None else None
        words = f"log  {present.clean(cursor.name, 60)}" if cursor else "log"
        self.query_one("#log-title", Static).update(words, layout=False)

    @property
    def _overlaid(self) -> list[RunRow]:
        """The runs whose curves the panels show."""
        return [row for curve in self.table.runs.overlaid[:MOST_OVERLAID] for row in curve]

    def action_highlight(self) -> None:
        """The curve of the line under the cursor stands out among those of the marked runs, or no longer."""
        self.highlights = not self.highlights
        self._follow()

    def _show_what_they_are_judged_by(self, names: set[str]) -> None:
        """Runs of tasks that measure something else than is usual have that in the panel for it; where adaptive
        sharpness was measured, it takes the place of sharpness."""
        judged = headline(names) if names and USUAL_HEADLINE.name not in names else USUAL_HEADLINE
        before, self._judged_by = self._judged_by, (judged.name, primary_sharpness(names).name)
        others = dict(zip(before, self._judged_by, strict=True))
        for panel in self.panels.all if before != self._judged_by else ():
            panel.metric = others.get(panel.metric, panel.metric)

    def _show_state(self) -> None:
        """Head, notice and footer, as far as they have changed."""
        runs, root = self.table.runs, str(self.lreg.store.root)
        title = head(self.table, self.arrangement.filter, root)
        if title != self._title:
            self._title = title
            self.query_one("#title", Static).update(title, layout=False)
        self.query_one(RunNotice).show_run(runs.cursor_row)
        self.set_class(not runs.lines, "-nothing")
        if runs.lines and self.focused is None and self.app.app_focus:  # a table that is not in sight has lost it
            self.call_after_refresh(self.table.focus)
        if not runs.lines:
            filter_text = self.arrangement.filter if not runs.is_empty else ""
            self.query_one("#instead", Static).update(instead(root, self._has_looked, filter_text))
        self.note_subjects()

    # -- actions on runs ---------------------------------------------------------------------------------------------

    def subjects(self) -> Sequence[RunRow]:
        return self.table.runs.selected

    def after_deleting(self, run_ids: Sequence[str]) -> None:
        self.table.clear_marks()

    def after_undoing(self, run_ids: Sequence[str]) -> None:
        self.table.select(run_ids[0])

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        runs = self.table.runs
        if action == "edit":
            return runs.cursor_row is not None and "edit" in runs.cursor_row.kind.actions
        if action == "small" or (action == "full_screen" and self.maximized is not None):
            return action == "small" and self.maximized is not None
        if action in FOR_RUNS:
            return bool(runs.lines) or self.maximized is not None
        if action == "filter":
            return bool(self.arrangement.filter) or not runs.is_empty or not self._has_looked
        return super().check_action(action, parameters)

    def action_edit(self) -> None:
        if (row := self.table.runs.cursor_row) is not None and "edit" in row.kind.actions:
            self.lreg.open_editor(str(row.path / "preset.toml"))

    def action_compare(self) -> None:
        rows = [row for row in self.subjects() if "compare" in row.kind.actions]
        arms = len({row.arm or row.id for row in rows})  # repeats with other seeds are one arm
        if rows and len(self.table.runs.overlaid) == 1:
            self.compare_with_others()
        elif rows and arms <= MOST_OVERLAID:
            self.lreg.open_compare([row.id for row in rows])
        else:
            self.tell(f"to compare, mark runs of 2 to {MOST_OVERLAID} arms with space; marked: {arms}", "warning")

    # -- order and filter --------------------------------------------------------------------------------------------

    @work(group="ask", exclusive=True)
    async def action_filter(self) -> None:
        before = self.arrangement.filter
        text = await self.app.push_screen_wait(filter_prompt(before, lambda: self.lreg.feed.rows, self._filter))
        self._filter(before if text is None else text)
        self.keep(filter=self.arrangement.filter)

    def _filter(self, text: str) -> None:
        names = filters.names_of(self.lreg.feed.rows)
        with suppress(filters.FilterError):  # of a setting that no run has by now
            self.table.filter_by(filters.compile(text, names))
            self.arrangement = replace(self.arrangement, filter=text.strip())
            self._show_state()

    def action_back(self) -> None:
        """One step towards the plain table."""
        runs = self.table.runs
        if isinstance(self.focused, Chart) and self.focused.cursor_x is not None:
            self.focused.action_clear_cursor()
        elif self.maximized is not None:
            self.action_small()
        elif self.focused is not self.table and runs.lines:
            self.table.focus()
        elif self.table.runs.marked:
            self.table.clear_marks()
        elif self.arrangement.filter:
            self._filter("")
            self.keep(filter="")

    def keep(self, **values: object) -> None:
        """For the next time: what fits these runs, with this run store; else wherever the console is."""
        for name, is_here in ((NAME, False), (self._name_here, True)):
            if changed := {key: value for key, value in values.items() if (key in OF_STORE) == is_here}:
                self.lreg.remember(name, **changed)
