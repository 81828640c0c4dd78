"""MetricPanel: one metric of several runs, live.

panel = MetricPanel("meta_loss")
panel.runs = [("20261121-...", "quickstart"), ...]  # ids and labels; colours follow the order
panel.update_from(app.feed)  # on SeriesChanged, and after `runs` or `metric` was set
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.reactive import var

from engine.base import metrics
from lreg_tui.charts.chart import Chart
from lreg_tui.charts.line import Line
from lreg_tui.runs.followed import Series
from lreg_tui.text import present

LOGARITHMIC = ("loss", "sharpness", "norm", "eigenvalue", "trace", "gap")  # last words of metrics over several decades

NOISY = {"meta_loss": 0.9, "update_norm": 0.9, "meta_grad_norm": 0.9, "inner_steps_per_s": 0.9}
"""Smoothing to begin with, of what goes up and down along each unroll; raw values stay in sight behind it."""


class Source(Protocol):
    """What a panel reads: the feed."""

    def series(self, run_id: str, metric: str) -> Series | None: ...


class MetricPanel(Vertical):
    """A Chart (`panel.chart`) of one metric. `runs`, `metric` and `colours` may be set at any time.

    `colours`, run id to place in `themes.SERIES`, keeps a run's colour while others come and go.
    """

    DEFAULT_CSS = "MetricPanel { width: 1fr; height: 1fr; }"

    metric: var[str] = var("", init=False)
    runs: var[Sequence[tuple[str, str]]] = var((), init=False)
    colours: var[Mapping[str, int]] = var({}, init=False)

    def __init__(
        self,
        metric: str,
        runs: Sequence[tuple[str, str]] = (),
        *,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.set_reactive(MetricPanel.metric, metric)
        self.set_reactive(MetricPanel.runs, tuple(runs))
        self._drawn: tuple[object, ...] = ()  # what the lines were made of
        self._source: Source | None = None
        self.chart = Chart()
        self._name_chart()
        self._aim_chart()

    def compose(self) -> ComposeResult:
        yield self.chart

    def watch_metric(self) -> None:
        self._name_chart()
        self._aim_chart()
        self._update()

    def watch_runs(self) -> None:
        self._aim_chart()
        self._update()

    def watch_colours(self) -> None:
        self._update()

    def _aim_chart(self) -> None:
        self.chart.about = self.metric, *(run_id for run_id, _ in self.runs)

    def _name_chart(self) -> None:
        """Title, units and axes as the metric wants them."""
        self.chart.title = present.label(self.metric)
        self.chart.show = partial(present.metric, self.metric)
        unit = metrics.metric(self.metric).unit
        self.chart.unit = "percent" if unit == "share" else unit
        self.chart.log_y = is_logarithmic(self.metric)
        self.chart.smoothing = NOISY.get(self.metric, 0.0)

    def update_from(self, source: Source) -> None:
        """Take over what the feed has now. Cheap when nothing has changed."""
        self._source = source
        self._update()

    def _update(self) -> None:
        if self._source is None:
            return
        found = [(run_id, label, self._source.series(run_id, self.metric)) for run_id, label in self.runs]
        made_of = (self.metric, self.colours, self.runs, *(series for _, _, series in found))
        if len(made_of) == len(self._drawn) and all(map(operator.is_, made_of, self._drawn)):
            return  # the feed gives the same Series while nothing has been added
        self._drawn = made_of
        is_empty = all(series is None for _, _, series in found)
        self.chart.lines = () if is_empty else [self._line(place, *run) for place, run in enumerate(found)]

    def _line(self, place: int, run_id: str, label: str, series: Series | None) -> Line:
        import numpy

        colour = self.colours.get(run_id, place)
        if series is None:  # in the legend only
            return Line(label, numpy.empty(0), numpy.empty(0), colour)
        return Line(label, series.steps, series.values, colour, times=series.times)


def is_logarithmic(metric: str) -> bool:
    """True for metrics that run over several decades, whose y axis starts out logarithmic."""
    return metric.rsplit("_", 1)[-1] in LOGARITHMIC
