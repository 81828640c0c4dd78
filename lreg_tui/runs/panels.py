"""Panels: the metrics of the selected runs beside each other, with one cursor and one x axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from textual.app import ComposeResult
from textual.containers import Container

from lreg_tui.charts.chart import Chart
from lreg_tui.charts.plot import EVALUATION
from lreg_tui.runs.metric_panel import MetricPanel, Source


class Panels(Container):
    """MetricPanels. `show_runs` and `update_from` go to all of them."""

    def __init__(self, metrics: Sequence[str], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.all = [MetricPanel(metric, classes="panel") for metric in metrics]

    def compose(self) -> ComposeResult:
        yield from self.all

    @property
    def metrics(self) -> list[str]:
        return [panel.metric for panel in self.all]

    def show_runs(self, runs: Sequence[tuple[str, str]], *, are_jobs: bool = False) -> None:
        """Ids and labels; the order is that of the colours. Evaluations of transfer jobs are no curves, but points."""
        for panel in self.all:
            panel.runs = tuple(runs)
            panel.chart.points_only = are_jobs
            panel.chart.x_label = EVALUATION if are_jobs else ""

    def update_from(self, feed: Source) -> None:
        for panel in self.all:
            panel.update_from(feed)

    def _others(self, chart: Chart) -> Iterator[Chart]:
        return (panel.chart for panel in self.all if panel.chart is not chart)

    def on_chart_cursor_moved(self, message: Chart.CursorMoved) -> None:
        for chart in self._others(message.chart):
            if chart.x_axis == message.x_axis:
                chart.cursor_x = message.x

    def on_chart_settings_changed(self, message: Chart.SettingsChanged) -> None:
        for chart in self._others(message.chart):
            chart.x_axis, chart.log_x = message.chart.x_axis, message.chart.log_x
