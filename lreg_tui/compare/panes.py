"""CurvesPane: metrics of the compared runs, or what they train; LandscapePane: the loss around their minima."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Grid, VerticalScroll
from textual.message import Message
from textual.widgets import Static

from engine.base.metrics import headline, primary_sharpness
from engine.jobs import landscape_worker
from engine.jobs.landscape_worker import SliceSettings
from lreg_tui.charts.arrays import numpy
from lreg_tui.charts.chart import Chart
from lreg_tui.charts.curve import ChartLine
from lreg_tui.charts.heat_map import HeatMap
from lreg_tui.runs.feed import Feed
from lreg_tui.runs.metric_panel import Ids, Panels, Shown, ids_of
from lreg_tui.text import present
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.pick_list import Choice, pick_one
from lreg_tui.widgets.threads import Computing, off_the_loop

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
        self._panels = Panels([USUAL if metric == LEARNING else metric, "sharpness"])
        self._second = self._panels.all[1]
        self._second.add_class("-second")
        self.learning = Chart(log_x=True, log_y=True, x_label="inner step")  # of the learning curves
        self._switch()

    def compose(self) -> ComposeResult:
        yield self._panels
        yield self.learning

    def on_resize(self) -> None:
        self._switch()

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

        def take(metric: str) -> None:
            self.metric = metric
            self._switch()
            self.chart.focus()
            self.post_message(self.Picked(metric))

        pick_one(self.app, "metric", [learning, *choices], take, self.metric)


NARROWEST_MAP = 36  # columns
LOWEST_MAP = 11  # lines
WORDS = 3  # lines above the maps


class LandscapeSubject(NamedTuple):
    """A run whose surroundings are looked at, what it is called, and the marker that it has in charts."""

    path: Path
    label: str
    marker: str = ""


class LandscapePane(Computing, VerticalScroll, can_focus=True):
    """Heat maps with one range of colours for all, so that they can be compared."""

    HELP_TITLE = "Landscape"
    DEFAULT_CSS = """
    LandscapePane { padding: 0 1; scrollbar-size-vertical: 1; }
    LandscapePane #landscape-words { height: auto; max-height: 2; color: $text-muted; margin-bottom: 1; }
    LandscapePane Grid { height: auto; grid-gutter: 1 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("open", "compute", "compute", "compute the slices of the landscape"),
        bind("take_back", "give_up", "give up", "stop computing them"),
    ]

    def __init__(self, *, data_dir: Path | None = None, id: str | None = None) -> None:
        super().__init__(id=id)
        self.data_dir = data_dir
        self.subjects: tuple[LandscapeSubject, ...] = ()
        self.where: SliceSettings | None = None
        self.landscapes: dict[Path, Mapping[str, Any]] = {}
        self._drawing = asyncio.Lock()

    def compose(self) -> ComposeResult:
        yield Static(id="landscape-words", markup=False)
        yield Grid()

    # -- what is shown -----------------------------------------------------------------------------------------------

    def aim(self, subjects: Sequence[LandscapeSubject], where: SliceSettings | None) -> None:
        if (tuple(subjects), where) == (self.subjects, self.where):
            return
        self.action_give_up()
        self.subjects, self.where, self.landscapes = tuple(subjects), where, {}
        self._recall()

    @work(exclusive=True, group="recall")
    async def _recall(self) -> None:
        """Show what is kept in the runs' folders."""
        landscapes, where, paths = self.landscapes, self.where, [subject.path for subject in self.subjects]
        if where is not None:
            landscapes |= await off_the_loop(
                lambda: {path: saved for path in paths if (saved := landscape_worker.read(path, where))}
            )
        await self._draw()
        self._say("")

    async def _draw(self) -> None:
        """A map for each run, in one range of colours. What is recalled and what is computed take turns."""
        async with self._drawing:
            await self._draw_maps()

    async def _draw_maps(self) -> None:
        landscapes = {
            subject: self.landscapes[subject.path] for subject in self.subjects if subject.path in self.landscapes
        }
        grids = [numpy.array(landscape["losses"], dtype=float) for landscape in landscapes.values()]  # None: NaN
        losses = numpy.concatenate([grid[numpy.isfinite(grid)] for grid in grids] or [numpy.empty(0)])
        bounds = (float(losses.min()), float(losses.max())) if len(losses) else None
        page = self.query_one(Grid)
        if len(page.children) != len(grids):
            await page.remove_children()
            await page.mount(*(HeatMap() for _ in grids))
        self._arrange(len(grids))
        is_log = bounds is not None and bounds[0] > 0
        for (subject, landscape), grid, heat in zip(landscapes.items(), grids, page.query(HeatMap), strict=True):
            ends = (float(landscape["offsets"][0]), float(landscape["offsets"][-1]))
            heat.show(grid, x=ends, y=ends, bounds=bounds, log=is_log, title=_title(subject, landscape))

    def on_resize(self) -> None:
        self._arrange(len(self.query(HeatMap)))

    def _arrange(self, count: int) -> None:
        if not count:
            return
        room = self.scrollable_content_region
        columns = max(1, min(count, room.width // NARROWEST_MAP))
        rows = math.ceil(count / columns)
        page = self.query_one(Grid)
        page.styles.grid_size_columns = columns
        free = room.height - WORDS - (rows - 1)  # a line between two rows
        height = max(LOWEST_MAP, free // rows)
        page.styles.grid_rows = str(height)
        page.styles.height = rows * height + rows - 1

    def _say(self, words: str) -> None:
        line = self.query_one("#landscape-words", Static)
        missing = [subject for subject in self.subjects if subject.path not in self.landscapes]
        if self.where is None:
            words = "no run here has a preset that can be read"
        elif not words and missing:
            subject = "these runs" if len(missing) == len(self.subjects) else f"{len(missing)} of the runs"
            words = f"The landscape of {subject} is not computed yet: enter computes it, which takes a while."
        words = (
            words or "Train loss along two random directions, in equal colours; titles: loss at centre, test accuracy."
        )
        if self.where is not None:
            words = f"{self.where.task} after {self.where.steps} inner steps. {words}"
        line.update(present.clean(words, 400))
        self.refresh_bindings()

    # -- computing ---------------------------------------------------------------------------------------------------

    @property
    def can_compute(self) -> bool:  # type: ignore[override]
        return self.where is not None and any(subject.path not in self.landscapes for subject in self.subjects)

    @work(exclusive=True, group="landscape", exit_on_error=False)
    async def action_compute(self) -> None:
        where, subjects = self.where, [subject for subject in self.subjects if subject.path not in self.landscapes]
        if where is None:
            return
        arguments = ["--task", where.task.split(" ")[0], "--steps", str(where.steps)]
        arguments += ["--data-dir", str(self.data_dir)] if self.data_dir else []
        arguments += [str(subject.path) for subject in subjects]
        labels, label, landscapes = {subject.path: subject.label for subject in subjects}, "", self.landscapes

        async def on_event(event: dict[str, Any]) -> None:
            nonlocal label
            if event.get("event") == "computing":
                label = labels.get(Path(str(event.get("run"))), "")
            elif landscape_worker.is_landscape(event):
                landscapes[Path(str(event.get("run")))] = event
                if landscapes is self.landscapes:  # else other runs, or another place, are looked at meanwhile
                    await self._draw()

        def on_poll(elapsed_s: float) -> None:
            self._say(f"Computing {label or '…'}, {present.duration(elapsed_s)} so far.")

        self._say(await self._helper.run("engine.jobs.landscape_worker", arguments, on_event, on_poll))
        self.refresh_bindings()


def _title(subject: LandscapeSubject, landscape: Mapping[str, Any]) -> str:
    judged = headline(landscape)
    loss, value = (
        float(number) if isinstance(number := landscape.get(key), (int, float)) else None
        for key in ("train_loss", judged.name)
    )
    name = f"{subject.marker} {present.clean(subject.label, 40)}".strip()
    return f"{name}: {present.number(loss, 3)}, {present.metric(judged.name, value)}"
