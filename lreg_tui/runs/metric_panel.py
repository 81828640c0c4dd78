"""MetricPanel: one metric of several runs, live. Panels: several of them, with one cursor and one x axis; MetricGrid:
every metric of one run, page by page.

panel = MetricPanel("meta_loss")
panel.runs = [("20261121-...", "quickstart"), ...]  # ids and labels; of several ids the mean; colours follow the order
panel.update_from(app.feed)  # on SeriesChanged, and after `runs` or `metric` was set
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Container, Vertical
from textual.events import Resize
from textual.geometry import Size
from textual.message import Message
from textual.reactive import var

from engine.base import metrics
from engine.base.metrics import MACHINE, metric
from lreg_tui.charts.chart import Chart
from lreg_tui.charts.curve import ChartLine
from lreg_tui.charts.frame import EVALUATION
from lreg_tui.runs.console_base import ConsoleBase
from lreg_tui.runs.feed import Feed, Series
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

    def __init__(self, metric: str, runs: Sequence[Shown] = (), *, classes: str | None = None) -> None:
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
        self.chart.log_y = self.metric.rsplit("_", 1)[-1] in LOGARITHMIC
        chosen = self.app.config.smoothing if isinstance(self.app, ConsoleBase) else None
        usual = SMOOTHING if chosen is None else chosen
        self.chart.smoothing = usual if self.metric in NOISY else 0.0

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
        self.all = [self._panel(metric) for metric in metrics]

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

    def _panel(self, metric: str, runs: Sequence[Shown] = ()) -> MetricPanel:
        """One more, whose chart goes along with the others."""
        panel = MetricPanel(metric, runs, classes="panel")
        panel.chart.sisters = lambda: (other.chart for other in self.all if other is not panel)
        return panel


def ids_of(ids: Ids) -> tuple[str, ...]:
    return (ids,) if isinstance(ids, str) else ids


FIRST = ("meta_loss", "validation_loss", "test_loss", "adaptive_sharpness")
THEN = ("sharpness", "parameter_norm", "train_loss", "max_grad_norm", "surrogate_gap")
LAST = ("skipped", "diverged", "dropped_terms", "meta_epoch", "stage", "evaluated_steps", "validation_diverged")
LEAST_WIDTH, LEAST_HEIGHT = 40, 10  # of a panel
MOST_ACROSS, MOST_DOWN = 4, 4


class MetricGrid(Panels):
    """The screen around it has the keys, so that they work whatever has the focus; `page` says where one is."""

    HELP_TITLE = "Curves"
    DEFAULT_CSS = """
    MetricGrid { layout: grid; grid-gutter: 0 1; height: 1fr; }
    MetricGrid > MetricPanel { display: none; padding: 0 1; background: $surface; }
    MetricGrid > MetricPanel:focus-within { background: $panel; }
    """

    class Paged(Message):
        """Another page, or another number of pages."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__([FIRST[0]], id=id)  # more are mounted when there are metrics and room for them
        self.names: list[str] = []
        self.page = 0
        self.is_zoomed = False
        self._run: tuple[str, str] | None = None
        self._feed: Feed | None = None
        self._paged = (0, 1)  # page and pages when they were last told
        self._room = Size()  # when it was last in sight

    def on_resize(self, event: Resize) -> None:
        if event.size:  # it has none behind another tab
            self._room = event.size
            self._lay_out()

    @property
    def shape(self) -> tuple[int, int]:
        """Panels across and down."""
        if self.is_zoomed:
            return 1, 1
        across = max(1, min(MOST_ACROSS, self._room.width // LEAST_WIDTH))
        return across, max(1, min(MOST_DOWN, self._room.height // LEAST_HEIGHT))

    @property
    def per_page(self) -> int:
        return math.prod(self.shape)

    @property
    def pages(self) -> int:
        return max(1, -(-len(self.names) // self.per_page))

    def show_run(self, run_id: str, label: str, feed: Feed) -> None:
        """Take over what the feed has of a run now. Cheap when nothing has changed."""
        self._feed = feed
        metrics = ordered(feed.metrics(run_id))
        if (run_id, label) != self._run or metrics != self.names:
            self._run, self.names = (run_id, label), metrics
            self.show_runs([self._run])
            self._lay_out()
        self._update()

    def _lay_out(self) -> None:
        """Give the panels of this page their metrics, hide the others."""
        across, down = self.shape
        self.page = min(self.page, self.pages - 1)
        visible = self.names[self.page * self.per_page :][: self.per_page]
        rows = -(-len(visible) // across) if visible else 1
        self.styles.grid_size_columns = max(1, -(-len(visible) // rows))  # five are three above two
        self.styles.grid_size_rows = min(down, rows)
        new = [self._panel(FIRST[0], [self._run] if self._run else ()) for _ in visible[len(self.all) :]]
        self.all += new
        self.mount_all(new)
        for index, panel in enumerate(self.all):
            panel.display = index < len(visible)
            if index < len(visible) and panel.metric != visible[index]:
                panel.metric = visible[index]
        self._update()
        if (self.page, self.pages) != self._paged:
            self._paged = self.page, self.pages
            self.post_message(self.Paged())

    def _update(self) -> None:
        for panel in self.all:
            if panel.display and self._feed is not None:
                panel.update_from(self._feed)

    def turn(self, by: int) -> None:
        self.page = (self.page + by) % self.pages
        self._lay_out()

    def zoom(self) -> None:
        """From the grid to the panel in focus alone, and back to the page that it is on."""
        focused = next((panel for panel in self.all if panel.chart.has_focus), self.all[0])
        metric = (self.all[0] if self.is_zoomed else focused).metric
        self.is_zoomed = not self.is_zoomed
        if metric in self.names:
            self.page = self.names.index(metric) // self.per_page
        self._lay_out()
        panel = next((panel for panel in self.all if panel.display and panel.metric == metric), None)
        if panel is not None:
            panel.chart.focus()


def ordered(metrics: Iterable[str]) -> list[str]:
    """What people steer by, the meta-objective with penalties and terms, the rest by name, counts, the machine."""
    names = sorted(metrics)
    parts = [name for name in names if metric(name).is_of_objective]
    tested = [name for name in names if metric(name).split == "test" and name not in FIRST]
    first = [name for name in (*FIRST, *tested, *THEN) if name in names]
    last = [name for name in (*LAST, *MACHINE) if name in names]
    remaining = [name for name in names if name not in (*first, *parts, *last)]
    return [*first, *parts, *remaining, *last]
