"""CompareScreen: runs side by side, by their meta-training and by their transfer evaluations."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import ContentSwitcher, Static

from engine.base.errors import LregError
from engine.jobs.landscape_worker import SliceSettings
from lreg_tui.charts.chart import Chart
from lreg_tui.compare import comparing, comparison_sheets
from lreg_tui.compare.comparing import EVERY, ComparisonRequest, ComparisonResult
from lreg_tui.compare.comparison_sheets import ENDINGS, PICTURES, target, wrong_name
from lreg_tui.compare.panes import USUAL, CurvesPane, LandscapePane, LandscapeSubject
from lreg_tui.runs.console_base import ConsoleScreen, RunsChanged, SeriesChanged
from lreg_tui.runs.feed import RunRow
from lreg_tui.runs.metric_panel import Shown, ids_of
from lreg_tui.text import present, sheets
from lreg_tui.text.sheets import Sheet
from lreg_tui.widgets import themes
from lreg_tui.widgets.dialog import PromptScreen
from lreg_tui.widgets.keys import KeyFooter, bind
from lreg_tui.widgets.page_tabs import PageTabs, page_keys
from lreg_tui.widgets.pick_list import Choice, pick_one
from lreg_tui.widgets.sheet_view import SheetView
from lreg_tui.widgets.threads import Helper, off_the_loop

if TYPE_CHECKING:
    from engine.comparison import Comparison

RADIUS_KEYS = Binding.Group("radius", compact=True)
TABS = ("curves", "settings", "results", "differences", "sharpness", "landscape")
SHEETS: dict[str, Callable[[Comparison, bool], Iterable[Sheet]]] = {
    "settings": comparing.settings_sheets,
    "results": lambda compared, _: comparing.result_sheets(compared),
    "differences": lambda compared, _: chain.from_iterable(
        comparison_sheets.effect_sheets(compared, table) for table in compared.tables
    ),
}
PLOTS = {"curves": ("meta-loss",), "results": ("accuracy",), "sharpness": ("sharpness",), "landscape": ("landscape",)}


class CompareScreen(ConsoleScreen):
    """Tabs of one comparison. It is computed off the loop, again whenever a transfer file of its runs changes."""

    CSS_PATH = "compare_screen.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("copy", "copy", tooltip="copy what is in sight as Markdown"),
        bind("save", "save", tooltip=f"save as {', '.join(ending[1:] for ending in ENDINGS)}"),
        bind("task", "pick_task", tooltip="compare on another task"),
        bind("reference", "pick_reference", tooltip="the arm that the others are compared with"),
        bind("step", "pick_step", tooltip="compare at another inner step"),
        bind("less", "change_radius(-1)", "smaller radius", group=RADIUS_KEYS),
        bind("more", "change_radius(1)", "larger radius", group=RADIUS_KEYS),
        bind("transfer", "transfer", tooltip="start transfer evaluations of these runs"),
        *page_keys(TABS),
        bind("differing", "all_settings", tooltip="only settings that differ, or those that are the same as well"),
        bind("group", "group", tooltip="the mean of runs that differ by seed only, or every run", show=False),
        bind("highlight", "highlight", tooltip="one curve after the other stands out, then none", show=False),
        bind("back", "leave", tooltip="to the screen before"),
    ]

    def __init__(self, run_ids: Sequence[str], *, tab: str = "", task: str | None = None, step: int | None = None):
        """`tab` to begin with (else the one of the last time), on a `task` and at an inner `step` if they are there."""
        super().__init__()
        self.run_ids = tuple(dict.fromkeys(run_ids))
        self.everything = False
        self.tab_at_first = tab
        self.request = ComparisonRequest((), task=task, step=step)
        self.result: ComparisonResult | None = None  # what that came to
        self.problem = ""  # why it came to nothing
        self.radius: str | None = None
        self.by_arm = True  # repeats with other seeds are one curve, their mean
        self.highlighted: int | None = None  # which of the curves stands out
        self._due = self._looking = False

    def compose(self) -> ComposeResult:
        remembered = self.lreg.remembered.view("compare")
        metric = remembered.get("metric")
        yield Static(id="compare-title", markup=False)
        yield PageTabs(TABS)
        with ContentSwitcher(initial="tab-curves"):
            self.pane = CurvesPane(metric if isinstance(metric, str) else USUAL, id="tab-curves")
            yield self.pane
            for tab in SHEETS:
                yield SheetView("comparing …", id=f"tab-{tab}")
            yield Chart(points_only=True, log_x=True, log_y=True, x_label="radius", id="tab-sharpness")
            yield LandscapePane(data_dir=self.lreg.data_dir, id="tab-landscape")
        yield Static(id="compare-where", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        self.request = replace(self.request, paths=tuple(row.path for row in self.rows))
        self._follow()
        tab = self.tab_at_first or self.lreg.remembered.view("compare").get("tab")
        self.action_show_tab(tab if tab in TABS else TABS[0])
        self.show()
        if (count := len(self.rows)) < len(self.run_ids):
            self.tell(f"the first {count} of {len(self.run_ids)} runs are compared")
        self.compare()

    @property
    def rows(self) -> list[RunRow]:
        """The compared runs, in the order in which they were marked."""
        by_id = {row.id: row for row in self.lreg.feed.rows if "compare" in row.kind.actions}
        rows = [by_id[run_id] for run_id in self.run_ids if run_id in by_id][: comparing.MOST_RUNS]
        arms = list(dict.fromkeys(row.arm or row.id for row in rows))[: comparing.MOST]
        return [row for row in rows if (row.arm or row.id) in arms]

    # -- comparing ---------------------------------------------------------------------------------------------------

    def want(self, **changes: Any) -> None:
        self.request = replace(self.request, **changes)
        self.compare()

    @work(group="compare")
    async def compare(self) -> None:
        """Compute what is wanted unless it is there. One at a time: what is asked for meanwhile comes next."""
        self._due = True
        if self._looking:
            return
        self._looking = True
        try:
            while self._due:
                self._due = False
                if await self._look(self.request):
                    self.show()
        finally:
            self._looking = False

    async def _look(self, request: ComparisonRequest) -> bool:
        """Whether there is something new. What cannot be done leaves the comparison as it was, and says why."""
        if not request.paths:
            self.problem = "none of these runs is there"
            return True
        if self.result is not None and self.result.request == request:
            if await off_the_loop(lambda: comparing.stamp_of(request.paths)) == self.result.stamp:
                return False
        try:
            self.result = (await off_the_loop(lambda: comparing.look(request))).at_radius(self.radius)
            self.problem = ""
        except LregError as error:
            self.problem = str(error).splitlines()[0]
            # asked for by whoever opened the screen
            if self.result is None and (request.task or request.step is not None):
                self.request, self._due = replace(self.request, task=None, step=None), True
            elif self.result is not None and request == self.request:
                self.request = self.result.request
        return True

    # -- news --------------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        self.lreg.feed.follow({row.id: row.path for row in self.rows})

    def on_screen_resume(self) -> None:
        self._follow()  # screens above may have followed other runs

    def on_series_changed(self, message: SeriesChanged) -> None:
        if message.run_ids & {*self.run_ids}:
            self._show_curves()

    def on_runs_changed(self, message: RunsChanged) -> None:
        paths = tuple(row.path for row in self.rows)
        if paths != self.request.paths:
            self.request = replace(self.request, paths=paths, reference=None)
            self.highlighted = None
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
        self.set_focus(self.pane.chart if tab == "curves" else self.query_one(f"#tab-{tab}"))

    def show(self) -> None:
        """Bring title, tabs, what is in sight, and the line below up to date; other tabs when they are opened."""
        self.query_one("#compare-title", Static).update(comparing.head(self.result, self.by_arm))
        self.query_one(PageTabs).show_page(self.tab)
        self.query_one("#compare-where", Static).update(self._where())
        if self.tab in SHEETS:
            self._show_sheets()
        elif self.tab == "curves":
            self._show_curves()
        if self.result is not None and self.tab in ("curves", "sharpness"):
            self._show_charts()
        elif self.result is not None and self.tab == "landscape":
            self._show_landscape()
        self.refresh_bindings()

    def _where(self) -> Text:
        if self.problem:
            return present.text(self.problem, "bold red")
        if self.result is None:
            return Text("comparing …")
        return Text() if self.tab == "settings" else comparing.where(self.result, self.tab)

    def shown_sheets(self) -> list[Sheet]:
        make = SHEETS.get(self.tab)
        return list(make(self.result.comparison, self.everything)) if make and self.result else []

    def _show_sheets(self) -> None:
        if self.result is None:
            return
        notes = [] if self.tab == "settings" else comparing.notes_of(self.result.comparison)
        marked = [comparing.with_legend(sheet) for sheet in self.shown_sheets()]
        self.query_one(f"#tab-{self.tab}", SheetView).show(marked, notes, comparing.why_empty(self.result))

    @property
    def curves(self) -> list[Shown]:
        return comparing.curves_of(self.result, self.rows, self.by_arm)

    def _show_curves(self) -> None:
        curves = self.curves
        bright = next((ids for number, (ids, _) in enumerate(curves) if number == self.highlighted), None)
        self.pane.show_runs(curves, self.lreg.feed, bright)

    def _show_charts(self) -> None:
        assert self.result is not None
        task, paths = self.result.chart_task, self.result.request.paths
        numbers = comparing.numbers_of(self.result.comparison, paths, self.by_arm)
        if self.tab == "curves":
            lines = comparing.chart_lines(self.result.curves, numbers, self.highlighted)
            self.pane.show_learning(task, lines, paths)
            return
        chart = self.query_one("#tab-sharpness", Chart)
        chart.about = task, paths
        chart.title = f"sharpness on {present.clean(task, 60)}" if task else "sharpness"
        chart.lines = comparing.chart_lines(self.result.sharpness, numbers, self.highlighted)

    def _show_landscape(self) -> None:
        assert self.result is not None
        where = comparing.landscape_of(self.result.comparison)
        numbers = {run_id: number for number, (ids, _) in enumerate(self.curves) for run_id in ids_of(ids)}
        signs = {run_id: themes.MARKERS[number % comparing.MOST] for run_id, number in numbers.items()}
        subjects = [LandscapeSubject(row.path, row.name, signs.get(row.id, "")) for row in self.rows[: comparing.MOST]]
        self.query_one(LandscapePane).aim(subjects, None if where is None else SliceSettings(*where))

    # -- keys --------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        tab = self.tab if self.is_mounted else ""
        if action == "all_settings":
            return tab == "settings"
        if action in ("group", "highlight"):
            return tab in ("curves", "sharpness")
        if action in ("change_radius", "pick_reference", "pick_step"):
            return tab in ("results", "differences", "sharpness") or (action == "pick_reference" and tab == "settings")
        return True

    def on_curves_pane_picked(self, event: CurvesPane.Picked) -> None:
        self.lreg.remember("compare", metric=event.metric)
        self.show()

    def action_group(self) -> None:
        self.by_arm, self.highlighted = not self.by_arm, None
        self.show()

    def action_highlight(self) -> None:
        following = 0 if self.highlighted is None else self.highlighted + 1  # one after the other, then none
        self.highlighted = following if following < len(self.curves) else None
        self.show()

    def action_all_settings(self) -> None:
        self.everything = not self.everything
        self.show()

    def action_pick_task(self) -> None:
        """The task to compare on; where nothing was evaluated yet, the screen that does it."""
        if self.result is None or not self.result.tasks:
            self.action_transfer()
            return
        choices = [Choice(EVERY), *(Choice(task) for task in self.result.tasks)]
        now = self.request.task or EVERY
        pick_one(
            self.app, "task", choices, lambda task: self.want(task=None if task == EVERY else task, step=None), now
        )

    def action_pick_reference(self) -> None:
        if self.result is None:
            return
        compared = self.result.comparison
        choices = [Choice(str(index), arm.label) for index, arm in enumerate(compared.arms)]
        paths = [arm.runs[0].reader.path for arm in compared.arms]
        now = str(compared.arms.index(compared.reference))
        pick_one(self.app, "reference arm", choices, lambda index: self.want(reference=paths[int(index)]), now)

    def action_pick_step(self) -> None:
        if self.result is None or not self.result.steps:
            return
        choices = [Choice("", "the last in common"), *(Choice(str(step)) for step in self.result.steps)]
        now = "" if self.request.step is None else str(self.request.step)
        pick_one(self.app, "inner step", choices, lambda step: self.want(step=int(step) if step else None), now)

    def action_change_radius(self, by: int) -> None:
        if self.result is None or self.result.comparison.radius is None:
            return
        radii = self.result.comparison.radii
        index = radii.index(self.result.comparison.radius) + by
        self.radius = radii[max(0, min(index, len(radii) - 1))]
        self.result = self.result.at_radius(self.radius)
        self.show()

    def action_transfer(self) -> None:
        self.lreg.open_transfer([row.id for row in self.rows])

    # -- saving ------------------------------------------------------------------------------------------------------

    def action_copy(self) -> None:
        """The tables in sight as Markdown; where there are none, the whole comparison."""
        if self.result is None:
            return
        copied = self.shown_sheets()
        parts = [sheets.markdown(sheet) for sheet in copied]
        self.app.copy_to_clipboard("\n".join(parts) or comparison_sheets.text(self.result.comparison, "markdown"))
        label = present.count(len(copied), "table") if copied else "the whole comparison"
        self.tell(f"copied {label} as Markdown")

    @work(group="save", exclusive=True)
    async def action_save(self) -> None:
        result = self.result
        if result is None:
            return
        note = f"by its ending: {', '.join(ENDINGS)}"
        name = await self.app.push_screen_wait(PromptScreen("Save as", "comparison.md", note=note, check=wrong_name))
        if name is None:
            return
        path, is_of_learning = target(name), self.tab == "curves" and self.pane.chart is self.pane.learning
        figures = ("curves",) if is_of_learning else PLOTS.get(self.tab, ())
        if os.path.lexists(path) and not await self.agree(f"Replace {present.clean(path)}?", "replace"):
            return
        try:
            if path.suffix.lower() in PICTURES:
                self.tell("drawing")
                arguments = comparing.plotting(result, path, figures)
                if problem := await Helper().run("lreg_tui.cli.app", arguments):
                    raise LregError(problem)
            else:
                await off_the_loop(lambda: comparison_sheets.save(result.comparison, path))
        except LregError as error:
            self.tell(str(error), "error")
        else:
            self.tell(f"saved {path}")
