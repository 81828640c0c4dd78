"""PanelledScreen: a run table with panels, of which one is chosen: keys go to it, narrow screens show it alone."""

from __future__ import annotations

from textual import work
from textual.widget import Widget

from engine.base.metrics import is_known
from lreg_tui.runs.acting import ActingScreen
from lreg_tui.runs.layout import METRICS
from lreg_tui.runs.metric_panel import MetricPanel
from lreg_tui.runs.panels import Panels
from lreg_tui.runs.run_lines import MOST_OVERLAID
from lreg_tui.runs.run_table import RunTable
from lreg_tui.text import present
from lreg_tui.widgets.log_tail import LogTail
from lreg_tui.widgets.pick_list import Choice, PickList


class PanelledScreen(ActingScreen):
    """The panels are those of the metrics, and #log, which holds a LogTail."""

    ESCAPE_TO_MINIMIZE = False  # keys give the focus back as well

    def __init__(self) -> None:
        super().__init__()
        self.place = 0  # of the chosen panel

    @property
    def table(self) -> RunTable:
        return self.query_one(RunTable)

    @property
    def panels(self) -> Panels:
        return self.query_one(Panels)

    @property
    def every_panel(self) -> list[Widget]:
        return [*self.panels.all, self.query_one("#log")]

    @property
    def panel(self) -> Widget:
        """The chosen one."""
        return self.every_panel[self.place]

    def keep(self, **values: object) -> None:
        """Called with what is worth being found again the next time."""
        raise NotImplementedError

    def choose_panel(self, place: int) -> None:
        self.place = place
        for number, panel in enumerate(self.every_panel):
            panel.set_class(number == place, "-chosen")
        self.set_class(place == len(METRICS), "-log-chosen")
        if self.maximized is not None:
            self.maximized = self.panel
        self.keep(panel=place)

    def focus_panel(self) -> None:
        panel = self.panel
        self.set_focus(panel.chart if isinstance(panel, MetricPanel) else self.query_one(LogTail))

    def on_descendant_focus(self) -> None:
        for number, panel in enumerate(self.every_panel):
            if self.focused is not None and panel in self.focused.ancestors and panel is not self.panel:
                self.choose_panel(number)

    # -- keys --------------------------------------------------------------------------------------------------------

    def action_next_panel(self, direction: int) -> None:
        """The focus goes from the table through the panels, and back to the table."""
        place = 0 if self.focused is self.table else self.place + 1
        place = (place + direction) % (len(self.every_panel) + 1)
        if place:
            self.choose_panel(place - 1)  # before it gets the focus: what is not displayed cannot have it
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
        """The panel fills the screen and has the focus; again, and the table has it."""
        if self.maximized is None:
            self.maximized = self.panel
            self.focus_panel()
        else:
            self.maximized = None
            self.table.focus()

    @work(group="ask", exclusive=True)
    async def action_metric(self) -> None:
        panel = self.panel if isinstance(self.panel, MetricPanel) else self.panels.all[0]
        rows = self.table.runs.overlaid[:MOST_OVERLAID]
        known = {name for row in rows for name in (*self.lreg.feed.metrics(row.id), *row.latest)}
        names = sorted(known | set(METRICS), key=lambda name: (not is_known(name), name))
        choices = [Choice(name, present.label(name), name) for name in names]
        picked = await self.app.push_screen_wait(PickList("metric", choices, (panel.metric,)))
        if picked:
            panel.metric = picked[0]
            panel.update_from(self.lreg.feed)
            self.keep(metrics=self.panels.metrics)
