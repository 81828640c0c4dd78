"""CompareScreen: runs side by side, by their meta-training and by their transfer evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import ContentSwitcher, Static

from engine.jobs.landscape_worker import Where
from lreg_tui.charts.chart import Chart
from lreg_tui.compare import compare_text, comparing
from lreg_tui.compare.choosing import ChoosingScreen
from lreg_tui.compare.comparing import Wanted
from lreg_tui.compare.curves_pane import USUAL, CurvesPane
from lreg_tui.compare.landscape_pane import LandscapePane, Subject
from lreg_tui.runs.feed import RunRow
from lreg_tui.runs.messages import RunsChanged, SeriesChanged
from lreg_tui.text import present
from lreg_tui.text.sheets import Sheet
from lreg_tui.widgets import themes
from lreg_tui.widgets.key_footer import KeyFooter
from lreg_tui.widgets.sheet_view import SheetView

if TYPE_CHECKING:
    from engine.comparison import Comparison

TABS = ("curves", "settings", "results", "differences", "sharpness", "landscape")
SHEETS: dict[str, Callable[[Comparison, bool], Iterable[Sheet]]] = {
    "settings": comparing.settings_sheets,
    "results": lambda compared, _: comparing.result_sheets(compared),
    "differences": lambda compared, _: comparing.difference_sheets(compared),
}
PLOTS = {"curves": ("meta-loss",), "results": ("accuracy",), "sharpness": ("sharpness",), "landscape": ("landscape",)}


class CompareScreen(ChoosingScreen):
    """Tabs of one comparison. It is computed off the loop, again whenever a transfer file of its runs changes."""

    CSS_PATH = "compare_screen.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        *[
            Binding(str(number), f"show_tab('{tab}')", tab, show=False, tooltip=f"show the {tab}")
            for number, tab in enumerate(TABS, 1)
        ],
        Binding("a", "all_settings", "all settings", tooltip="settings that are the same as well, or only differences"),
        Binding("escape", "leave", "back", tooltip="to the screen before"),
    ]

    def __init__(self, run_ids: Sequence[str], *, tab: str = "", task: str | None = None, step: int | None = None):
        """`tab` to begin with (else the one of the last time), on a `task` and at an inner `step` if they are there."""
        super().__init__()
        self.run_ids = tuple(dict.fromkeys(run_ids))
        self.everything = False
        self.tab_at_first = tab
        self.wanted = Wanted((), task=task, step=step)

    def compose(self) -> ComposeResult:
        remembered = self.lreg.remembered.view("compare")
        metric = remembered.get("metric")
        yield Static(id="compare-title", markup=False)
        yield Static(id="compare-tabs", markup=False)
        with ContentSwitcher(initial="tab-curves"):
            yield CurvesPane(metric if isinstance(metric, str) else USUAL, id="tab-curves")
            for tab in SHEETS:
                yield SheetView("comparing …", id=f"tab-{tab}")
            yield Chart(points_only=True, log_x=True, log_y=True, x_label="radius", id="tab-sharpness")
            yield LandscapePane(data_dir=self.lreg.data_dir, id="tab-landscape")
        yield Static(id="compare-where", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        self.wanted = replace(self.wanted, paths=tuple(row.path for row in self.rows))
        self._follow()
        tab = self.tab_at_first or self.lreg.remembered.view("compare").get("tab")
        self.action_show_tab(tab if tab in TABS else TABS[0])
        self.show()
        if len(self.run_ids) > comparing.MOST:
            self.notify(f"the first {comparing.MOST} of {len(self.run_ids)} runs are compared", markup=False)
        self.compare()

    @property
    def rows(self) -> list[RunRow]:
        """The compared runs, in the order in which they were marked."""
        known = {row.id: row for row in self.lreg.feed.rows if "compare" in row.kind.actions}
        return [known[run_id] for run_id in self.run_ids if run_id in known][: comparing.MOST]

    # -- news --------------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        self.lreg.feed.follow({row.id: row.path for row in self.rows})

    def on_screen_resume(self) -> None:
        self._follow()  # screens above may have followed other runs

    def on_series_changed(self, message: SeriesChanged) -> None:
        if message.run_ids & {*self.run_ids}:
            self.query_one(CurvesPane).show_runs(self.rows, self.lreg.feed)

    def on_runs_changed(self, message: RunsChanged) -> None:
        paths = tuple(row.path for row in self.rows)
        if paths != self.wanted.paths:
            self.wanted = replace(self.wanted, paths=paths, reference=None)
            self._follow()
        self.compare()

    # -- showing -----------------------------------------------------------------------------------------------------

    @property
    def tab(self) -> str:
        return (self.query_one(ContentSwitcher).current or "").removeprefix("tab-")

    def action_show_tab(self, tab: str) -> None:
        self.query_one(ContentSwitcher).current = f"tab-{tab}"
        self.lreg.remember("compare", tab=tab)
        self.show()
        self.set_focus(self.query_one(CurvesPane).chart if tab == "curves" else self.query_one(f"#tab-{tab}"))

    def show(self) -> None:
        """Bring title, tabs, what is in sight, and the line below up to date; other tabs when they are opened."""
        self.query_one("#compare-title", Static).update(compare_text.head(self.found))
        self.query_one("#compare-tabs", Static).update(self._tabs())
        self.query_one("#compare-where", Static).update(self._where())
        if self.tab in SHEETS:
            self._show_sheets()
        elif self.tab == "curves":
            self.query_one(CurvesPane).show_runs(self.rows, self.lreg.feed)
        if self.found is not None and self.tab in ("curves", "sharpness"):
            self._show_charts()
        elif self.found is not None and self.tab == "landscape":
            self._show_landscape()
        self.refresh_bindings()

    def _tabs(self) -> Text:
        line = Text()
        for number, tab in enumerate(TABS, 1):
            click = Style(meta={"@click": f"screen.show_tab('{tab}')"})
            style = Style(bold=True, underline=True) if tab == self.tab else Style(dim=True)
            line.append(f"{number} ", click + Style(dim=True)).append(tab, click + style).append("  ")
        return line

    def _where(self) -> Text:
        """What the tables and charts are about, or what went wrong."""
        if self.problem:
            return present.text(self.problem, "bold red")
        if self.found is None:
            return Text("comparing …")
        return Text() if self.tab == "settings" else compare_text.where(self.found, self.tab)

    def shown_sheets(self) -> list[Sheet]:
        make = SHEETS.get(self.tab)
        return list(make(self.found.comparison, self.everything)) if make and self.found else []

    def _show_sheets(self) -> None:
        if self.found is None:
            return
        compared = self.found.comparison
        notes = [] if self.tab == "settings" else comparing.notes_of(compared)
        found = [comparing.with_legend(sheet) for sheet in self.shown_sheets()]
        self.query_one(f"#tab-{self.tab}", SheetView).show(found, notes, compare_text.why_empty(self.found))

    def _show_charts(self) -> None:
        assert self.found is not None
        compared, task = self.found.comparison, self.found.chart_task
        if self.tab == "curves":
            lines = comparing.chart_lines(self.found.curves, compared, self.found.wanted.paths)
            self.query_one(CurvesPane).show_learning(task, lines, self.found.wanted.paths)
            return
        chart = self.query_one("#tab-sharpness", Chart)
        chart.about = task, self.found.wanted.paths
        chart.title = f"sharpness on {present.clean(task, 60)}" if task else "sharpness"
        chart.lines = comparing.chart_lines(self.found.sharpness, compared, self.found.wanted.paths)

    def _show_landscape(self) -> None:
        assert self.found is not None
        where = comparing.landscape_of(self.found.comparison)
        subjects = [Subject(row.path, row.name, marker) for row, marker in zip(self.rows, themes.MARKERS, strict=False)]
        self.query_one(LandscapePane).aim(subjects, None if where is None else Where(*where))

    def plotted(self) -> Sequence[str]:
        if self.tab == "curves" and self.query_one(CurvesPane).chart is self.query_one(CurvesPane).learning:
            return ("curves",)
        return PLOTS.get(self.tab, ())

    # -- keys --------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        tab = self.tab if self.is_mounted else ""
        if action == "all_settings":
            return tab == "settings"
        if action in ("change_radius", "pick_reference", "pick_step"):
            return tab in ("results", "differences", "sharpness") or (action == "pick_reference" and tab == "settings")
        return True

    def on_curves_pane_picked(self, event: CurvesPane.Picked) -> None:
        self.lreg.remember("compare", metric=event.metric)
        self.show()

    def action_all_settings(self) -> None:
        self.everything = not self.everything
        self.show()

    def action_leave(self) -> None:
        self.dismiss()
