"""MetricPanel: one metric of several runs, live; and Panels: several of them, with one cursor and one x axis.

panel = MetricPanel("meta_loss")
panel.runs = [("20261121-...", "quickstart"), ...]  # ids and labels; of several ids the mean; colours follow the order
panel.update_from(app.feed)  # on SeriesChanged, and after `runs` or `metric` was set
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Container, Vertical
from textual.reactive import var

from engine.base import metrics
from lreg_tui.charts.chart import Chart
from lreg_tui.charts.curve import ChartLine
from lreg_tui.charts.plot import EVALUATION
from lreg_tui.runs.console_base import ConsoleBase
from lreg_tui.runs.feed import Feed
from lreg_tui.runs.followed import Series
from lreg_tui.text import present

if TYPE_CHECKING:
    from numpy import ndarray

INTERVALS = 12  # that are drawn along a mean
Ids = str | tuple[str, ...]
"""Of a run; or of several, whose mean is shown."""
Shown = tuple[Ids, str]
"""Ids and a label."""
LOGARITHMIC = ("loss", "sharpness", "norm", "eigenvalue", "trace", "gap")  # last words of metrics over several decades

NOISY = ("meta_loss", "update_norm", "meta_grad_norm", "inner_steps_per_s")
"""What goes up and down along each unroll and is smoothed to begin with; raw values stay in sight behind it."""
SMOOTHING = 0.9


class MetricPanel(Vertical):
    """A Chart (`panel.chart`) of one metric. `runs`, `metric` and `highlighted`, the ids of one of them, may be set at
    any time.
    """

    DEFAULT_CSS = "MetricPanel { width: 1fr; height: 1fr; }"

    metric: var[str] = var("", init=False)
    runs: var[Sequence[Shown]] = var((), init=False)
    highlighted: var[Ids | None] = var(None, init=False)

    def __init__(
        self,
        metric: str,
        runs: Sequence[Shown] = (),
        *,
        classes: str | None = None,
    ) -> None:
        super().__init__(classes=classes)
        self.set_reactive(MetricPanel.metric, metric)
        self.set_reactive(MetricPanel.runs, tuple(runs))
        self._drawn: tuple[object, ...] = ()  # what the lines were made of
        self._feed: Feed | None = None
        self.chart = Chart()
        self._aim_chart()

    def on_mount(self) -> None:
        self._name_chart()

    def compose(self) -> ComposeResult:
        yield self.chart

    def watch_metric(self) -> None:
        """Of the same runs the same steps stay in view."""
        view = self.chart.view
        self._name_chart()
        self._aim_chart()
        self.chart.view = replace(view, y=None)
        self._update()

    def watch_runs(self) -> None:
        self._aim_chart()
        self._update()

    def watch_highlighted(self) -> None:
        self._update()

    def _aim_chart(self) -> None:
        self.chart.about = self.metric, *(ids for ids, _ in self.runs)

    def _name_chart(self) -> None:
        """Title, units and axes as the metric wants them."""
        self.chart.title = present.label(self.metric)
        self.chart.show = partial(present.metric, self.metric)
        unit = metrics.metric(self.metric).unit
        self.chart.unit = "percent" if unit == "share" else unit
        self.chart.log_y = is_logarithmic(self.metric)
        chosen = self.app.config.smoothing if isinstance(self.app, ConsoleBase) else None
        smoothing = SMOOTHING if chosen is None else chosen
        self.chart.smoothing = smoothing if self.metric in NOISY else 0.0

    def update_from(self, feed: Feed) -> None:
        """Take over what the feed has now. Cheap when nothing has changed."""
        self._feed = feed
        self._update()

    def _update(self) -> None:
        if self._feed is None:
            return
        by_run = [[self._feed.series(run_id, self.metric) for run_id in ids_of(ids)] for ids, _ in self.runs]
        made_of = (self.metric, self.highlighted, self.runs, *(series for each in by_run for series in each))
        if len(made_of) == len(self._drawn) and all(map(operator.is_, made_of, self._drawn)):
            return  # the feed gives the same Series while nothing has been added
        self._drawn = made_of
        is_empty = all(series is None for each in by_run for series in each)
        lines = [self._line(index, *run) for index, run in enumerate(zip(self.runs, by_run, strict=True))]
        self.chart.lines = () if is_empty else lines

    def _line(self, index: int, run: Shown, of_runs: Sequence[Series | None]) -> ChartLine:
        import numpy

        ids, label = run
        dim = self.highlighted not in (None, ids)
        series = [each for each in of_runs if each is not None]
        if not series:  # in the legend only
            return ChartLine(label, numpy.empty(0), numpy.empty(0), index, dim=dim)
        if len(series) == 1:
            return ChartLine(label, series[0].steps, series[0].values, index, dim=dim, times=series[0].times)
        steps, mean, half = mean_of(series)
        half[numpy.arange(len(half)) % max(1, len(half) // INTERVALS) > 0] = numpy.nan
        return ChartLine(label, steps, mean, index, dim=dim, errors=half)


def mean_of(series: Sequence[Series]) -> tuple[ndarray, ndarray, ndarray]:
    """Steps that all runs have, the mean of their values there, and the half-width of its 95% t-interval."""
    import numpy

    from engine.runs.results import t_quantile

    firsts = [numpy.unique(each.steps, return_index=True) for each in series]
    steps = reduce(numpy.intersect1d, (each for each, _ in firsts))
    values = numpy.stack(
        [
            each.values[index[numpy.searchsorted(own_steps, steps)]].astype(float)
            for each, (own_steps, index) in zip(series, firsts, strict=True)
        ]
    )
    half = t_quantile(len(series) - 1) * values.std(axis=0, ddof=1) / math.sqrt(len(series))
    return steps, values.mean(axis=0), half


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

    def show_runs(self, runs: Sequence[Shown], *, are_jobs: bool = False, highlighted: Ids | None = None) -> None:
        """Ids and labels; the order is that of the colours. Evaluations of transfer jobs are no curves, but points."""
        for panel in self.all:
            panel.runs = tuple(runs)
            panel.highlighted = highlighted
            panel.chart.points_only = are_jobs
            panel.chart.x_label = EVALUATION if are_jobs else ""

    def update_from(self, feed: Feed) -> None:
        for panel in self.all:
            panel.update_from(feed)

    def _others(self, chart: Chart) -> Iterator[Chart]:
        return (panel.chart for panel in self.all if panel.chart is not chart)

    def on_chart_cursor_moved(self, message: Chart.CursorMoved) -> None:
        for chart in self._others(message.chart):
            if chart.x_axis == message.x_axis:
                chart.cursor_x = message.x

    def on_chart_view_changed(self, message: Chart.ViewChanged) -> None:
        seen = message.chart.view
        for chart in self._others(message.chart):
            if (chart.x_axis, chart.log_x) == (message.chart.x_axis, message.chart.log_x):
                chart.view = replace(chart.view, x=seen.x, following=seen.following)

    def on_chart_settings_changed(self, message: Chart.SettingsChanged) -> None:
        for chart in self._others(message.chart):
            chart.x_axis, chart.log_x = message.chart.x_axis, message.chart.log_x


def ids_of(ids: Ids) -> tuple[str, ...]:
    return (ids,) if isinstance(ids, str) else ids


def is_logarithmic(metric: str) -> bool:
    """True for metrics that run over several decades, whose y axis starts out logarithmic."""
    return metric.rsplit("_", 1)[-1] in LOGARITHMIC
