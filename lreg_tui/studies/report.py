"""ReportScreen: the report of a study, with its figures as charts, and where it lies."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.console import Console
from rich.markdown import Markdown
from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static

from engine.base.errors import LregError
from engine.base.files import read_limited
from engine.base.metrics import metric
from lreg_tui.charts.chart import Chart
from lreg_tui.charts.curve import ChartLine
from lreg_tui.runs.console_base import ConsoleScreen
from lreg_tui.text.present import clean, clean_block, label
from lreg_tui.widgets.keys import KeyFooter, bind
from lreg_tui.widgets.threads import off_the_loop

if TYPE_CHECKING:
    from engine.figures import Block, Panel

LARGEST = 2**20  # bytes
IMAGE = re.compile(r"^!\[[^\]\n]*\]\(([\w.-]+)\)$", re.MULTILINE)


class Prose(Widget):
    """Markdown, by Rich: Textual's own has a widget for every cell of a table, half a minute's work for a long report.

    It is laid out off the loop, which takes a second.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self._lines: list[Strip] = []
        self._width = 0  # that they are for

    def on_resize(self) -> None:
        if self.content_size.width != self._width:
            self._lay_out(self.content_size.width)

    @work(exclusive=True)
    async def _lay_out(self, width: int) -> None:
        self._width = width
        console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
        markdown = Markdown(self.text, hyperlinks=False)
        self._lines = await off_the_loop(lambda: [Strip(line) for line in console.render_lines(markdown)])
        self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return max(1, len(self._lines))

    def render_line(self, y: int) -> Strip:
        line = self._lines[y] if y < len(self._lines) else Strip.blank(self._width)
        return line.apply_style(self.rich_style)


class Figure(Vertical):
    """The place of a figure: its file's name, until there are charts."""

    def __init__(self, name: str) -> None:
        super().__init__(Static(f"figure {clean(name, 80)}", markup=False))
        self.file = name


class ReportScreen(ConsoleScreen):
    """The file may have been written by strangers, and is only read: no link in it leads anywhere."""

    CSS_PATH = "report.tcss"
    HELP_TITLE = "Report"
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("copy", "copy_path", "copy path", "copy where the report lies to the clipboard"),
        bind("back", "leave", tooltip="to the screen before"),
    ]

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def compose(self) -> ComposeResult:
        yield Static(clean(self.path), id="where", markup=False)
        with VerticalScroll():
            yield Static("reading …", id="reading", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()
        self._read()

    @work(group="report")
    async def _read(self) -> None:
        """The text at once, its figures as soon as their data are read."""
        page = self.query_one(VerticalScroll)
        text = await off_the_loop(lambda: text_of(self.path), "report")
        await page.mount_all(parts_of(text))
        await page.remove_children("#reading")
        blocks = await off_the_loop(lambda: blocks_of(self.path.parent.parent), "figures")
        for figure in self.query(Figure):
            if block := blocks.get(figure.file):
                await figure.remove_children()
                await figure.mount_all(map(chart_of, block.panels))

    def action_copy_path(self) -> None:
        self.app.copy_to_clipboard(clean(self.path))
        self.tell(f"copied {self.path}")


def text_of(path: Path) -> str:
    try:
        return clean_block(read_limited(path, LARGEST, path.parent.parent).decode(errors="replace"))
    except OSError as error:
        return f"{clean(path)}: cannot be read: {clean(error.strerror or error)}"


def parts_of(text: str) -> Iterator[Prose | Figure]:
    """What is written, and the places of the figures in between."""
    for number, part in enumerate(IMAGE.split(text)):
        if number % 2:
            yield Figure(part)
        elif part.strip():
            yield Prose(part)


def blocks_of(study: Path) -> dict[str, Block]:
    """The data of a study's figures, by the names of their files; none of a study that cannot be read."""
    from engine.study.plan.state import plan_of
    from engine.study.report.evidence import gather
    from engine.study.report.figures import figures

    try:
        return dict(figures(gather(plan_of(study), study)))
    except LregError:
        return {}


def chart_of(panel: Panel) -> Chart:
    """A pair of axes as a chart: lines, or points with the half-widths of their intervals in y."""
    drawn = [(line.who, line.x, line.y, line.low, line.high) for line in panel.lines]
    for point in panel.points:
        middle, low, high = ((value,) for value in point.y)
        drawn.append((point.who, point.x[:1], middle, low, high))
    chart = Chart(f"{label(panel.y.name, panel.y.radius)} · {clean(panel.title, 60)}")
    chart.log_x, chart.log_y = panel.x.scale == "log", panel.y.scale == "log"
    chart.points_only = bool(panel.points) or any(line.bars for line in panel.lines)
    chart.x_label, chart.unit = label(panel.x.name, panel.x.radius), panel.y.unit or metric(panel.y.name).unit
    chart.lines = [
        ChartLine.between(clean(who.label, 60), *values, colour=number) for number, (who, *values) in enumerate(drawn)
    ]
    return chart
