"""CurvesPane: metrics of the compared runs over meta-training, or the learning curves of what they train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.message import Message

from engine.base.metrics import primary_sharpness
from lreg_tui.charts.chart import Chart
from lreg_tui.charts.curve import ChartLine
from lreg_tui.runs.feed import Feed
from lreg_tui.runs.metric_panel import Ids, MetricPanel, Panels, Shown, ids_of
from lreg_tui.text import present
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.pick_list import Choice, PickList

USUAL = "meta_loss"
LEARNING = "learning curves"  # stands for them among the metrics
WIDE = 110  # columns from which there is room for sharpness beside the metric


class CurvesPane(Container):
    """`metric` is the one shown; where it is wide, sharpness beside it. They share cursor, x axis and zoom."""

    HELP_TITLE = "Curves"
    DEFAULT_CSS = """
    CurvesPane { padding: 0 1; }
    CurvesPane > * { height: 1fr; }
    CurvesPane Panels { layout: horizontal; }
    CurvesPane MetricPanel.-second { margin-left: 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [bind("metric", "pick_metric")]

    @dataclass
    class Picked(Message):
        """The user has picked another metric."""

        metric: str

    def __init__(self, metric: str = USUAL, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.metric = metric
        self.run_ids: tuple[str, ...] = ()
        self.feed: Feed | None = None

    def compose(self) -> ComposeResult:
        yield Panels([USUAL if self.metric == LEARNING else self.metric, "sharpness"])
        yield Chart(log_x=True, log_y=True, x_label="inner step")

    def on_mount(self) -> None:
        self._second.add_class("-second")
        self._switch()

    def on_resize(self) -> None:
        self._switch()

    @property
    def _panels(self) -> Panels:
        return self.query_one(Panels)

    @property
    def _second(self) -> MetricPanel:
        return self._panels.all[1]

    @property
    def learning(self) -> Chart:
        """The chart of the learning curves."""
        return self.query_children(Chart).first()

    @property
    def chart(self) -> Chart:
        """The one in sight, the first of two."""
        return self.learning if self.metric == LEARNING else self._panels.all[0].chart

    def show_runs(self, curves: Sequence[Shown], feed: Feed, highlighted: Ids | None = None) -> None:
        """Whose metrics, and where they come from. Cheap when nothing has changed."""
        self.feed, self.run_ids = feed, tuple(run_id for ids, _ in curves for run_id in ids_of(ids))
        sharpness = primary_sharpness(self._known()).name
        if self._second.metric != sharpness:
            self._second.metric = sharpness
        self._switch()
        self._panels.show_runs(curves, highlighted=highlighted)
        self._panels.update_from(feed)

    def _known(self) -> dict[str, None]:
        feed = self.feed
        return dict.fromkeys(name for run_id in self.run_ids for name in (feed.metrics(run_id) if feed else ()))

    def show_learning(self, task: str, lines: Sequence[ChartLine], paths: Sequence[Path]) -> None:
        """The learning curves of runs on a task."""
        self.learning.about = task, *paths
        self.learning.title = f"train loss on {present.clean(task, 60)}" if task else "train loss of optimizees"
        self.learning.lines = lines

    def _switch(self) -> None:
        first, second = self._panels.all
        self._panels.display = self.metric != LEARNING
        self.learning.display = self.metric == LEARNING
        if self.metric not in (LEARNING, first.metric):
            first.metric = self.metric
        second.display = self.size.width >= WIDE and second.metric != first.metric

    def action_pick_metric(self) -> None:
        choices = [Choice(name, present.label(name), name) for name in self._known()]
        learning = Choice(LEARNING, LEARNING, "train loss of the optimizees of transfer evaluations")

        def take(values: tuple[str, ...] | None) -> None:
            if values:
                self.metric = values[0]
                self._switch()
                self.chart.focus()
                self.post_message(self.Picked(self.metric))

        self.app.push_screen(PickList("metric", [learning, *choices], (self.metric,)), take)
