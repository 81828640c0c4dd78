"""CurvesPane: one metric of the compared runs over meta-training, or the learning curves of what they train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.message import Message

from lreg_tui.charts.chart import Chart
from lreg_tui.charts.curve import Line
from lreg_tui.runs.feed import Feed, RunRow
from lreg_tui.runs.metric_panel import MetricPanel
from lreg_tui.text import present
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.pick_list import Choice, PickList

USUAL = "meta_loss"
LEARNING = "learning curves"  # stands for them among the metrics


class CurvesPane(Container):
    """`metric` is the one shown."""

    HELP_TITLE = "Curves"
    DEFAULT_CSS = """
    CurvesPane { padding: 0 1; }
    CurvesPane > * { height: 1fr; }
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
        yield MetricPanel(USUAL if self.metric == LEARNING else self.metric)
        yield Chart(log_x=True, log_y=True, x_label="inner step")

    def on_mount(self) -> None:
        self._switch()

    @property
    def learning(self) -> Chart:
        """The chart of the learning curves."""
        return self.query_children(Chart).first()

    @property
    def chart(self) -> Chart:
        """The one in sight."""
        return self.learning if self.metric == LEARNING else self.query_one(MetricPanel).chart

    def show_runs(self, rows: Sequence[RunRow], feed: Feed) -> None:
        """Whose metrics, and where they come from. Cheap when nothing has changed."""
        self.feed, self.run_ids = feed, tuple(row.id for row in rows)
        panel = self.query_one(MetricPanel)
        labels = tuple((row.id, present.clean(row.name, 40)) for row in rows)
        if labels != panel.runs:
            panel.runs = labels
        panel.update_from(feed)

    def show_learning(self, task: str, lines: Sequence[Line], paths: Sequence[Path]) -> None:
        """The learning curves of runs on a task."""
        self.learning.about = task, *paths
        self.learning.title = f"train loss on {present.clean(task, 60)}" if task else "train loss of optimizees"
        self.learning.lines = lines

    def _switch(self) -> None:
        panel = self.query_one(MetricPanel)
        panel.display = self.metric != LEARNING
        self.learning.display = self.metric == LEARNING
        if self.metric != LEARNING:
            panel.metric = self.metric

    def action_pick_metric(self) -> None:
        names = dict.fromkeys(
            name for run_id in self.run_ids for name in (self.feed.metrics(run_id) if self.feed else ())
        )
        choices = [Choice(name, present.label(name), name) for name in names]
        learning = Choice(LEARNING, LEARNING, "train loss of the optimizees of transfer evaluations")

        def take(values: tuple[str, ...] | None) -> None:
            if values:
                self.metric = values[0]
                self._switch()
                self.chart.focus()
                self.post_message(self.Picked(self.metric))

        self.app.push_screen(PickList("metric", [learning, *choices], (self.metric,)), take)
