"""MetricGrid: every metric of one run, as many panels at a time as the room gives, page by page."""

from __future__ import annotations

from collections.abc import Iterable

from textual.events import Resize
from textual.geometry import Size
from textual.message import Message

from engine.base.metrics import MACHINE, metric
from lreg_tui.runs.feed import Feed
from lreg_tui.runs.metric_panel import MetricPanel, Panels

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
        across, down = self.shape
        return across * down

    @property
    def pages(self) -> int:
        return max(1, -(-len(self.names) // self.per_page))

    @property
    def focused_panel(self) -> MetricPanel | None:
        return next((panel for panel in self.all if panel.chart.has_focus), None)

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
        self._mount(len(visible) - len(self.all))
        for index, panel in enumerate(self.all):
            panel.display = index < len(visible)
            if index < len(visible) and panel.metric != visible[index]:
                panel.metric = visible[index]
        self._update()
        if (self.page, self.pages) != self._paged:
            self._paged = self.page, self.pages
            self.post_message(self.Paged())

    def _mount(self, count: int) -> None:
        """That many panels more."""
        new = [MetricPanel(FIRST[0], [self._run] if self._run else (), classes="panel") for _ in range(count)]
        self.all += new
        self.mount_all(new)

    def _update(self) -> None:
        for panel in self.all:
            if panel.display and self._feed is not None:
                panel.update_from(self._feed)

    def turn(self, by: int) -> None:
        self.page = (self.page + by) % self.pages
        self._lay_out()

    def zoom(self) -> None:
        """From the grid to the panel in focus alone, and back to the page that it is on."""
        metric = (self.all[0] if self.is_zoomed else self.focused_panel or self.all[0]).metric
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
