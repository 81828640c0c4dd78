"""ChartCanvas: a chart as a widget, without keys and mouse. It sends the terminal only lines that look different."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.color import Color
from textual.geometry import Region
from textual.reactive import var
from textual.strip import Strip
from textual.widget import Widget

from lreg_tui.charts import frame
from lreg_tui.charts.curve import Curve
from lreg_tui.charts.line import Line
from lreg_tui.charts.picture import NOTHING_YET, paint
from lreg_tui.charts.plot import Picture, Sheet
from lreg_tui.charts.view import View
from lreg_tui.text import present
from lreg_tui.widgets.contrast import contrast
from lreg_tui.widgets.themes import SERIES

FAINT = 0.45  # share of its colour that a raw curve keeps behind the smoothed one
CONTRAST = 3.0  # least ratio of a line's brightness to that of its background


class ChartCanvas(Widget):
    """Lines on a braille canvas. Every reactive may be set at any time; what has changed is painted once, soon."""

    DEFAULT_CSS = "ChartCanvas { width: 1fr; height: 1fr; min-height: 3; }"
    ALLOW_SELECT = False  # dragging pans

    lines: var[Sequence[Line]] = var((), init=False)
    title: var[str] = var("", init=False)
    x_axis: var[str] = var("step", init=False)  # "step" or "time"
    log_x: var[bool] = var(False, init=False)
    log_y: var[bool] = var(False, init=False)
    smoothing: var[float] = var(0.0, init=False)  # share of the past in each smoothed value, 0 to below 1
    cursor_x: var[float | None] = var(None, init=False)
    view: var[View] = var(View(), init=False)
    about: var[Hashable] = var(None, init=False)  # what is shown, whatever the state: zoom and cursor belong to it
    points_only: var[bool] = var(False, init=False)
    x_label: var[str] = var("", init=False)  # "" for meta-steps
    unit: var[str] = var("", init=False)  # of the ticks of y, one of charts.axes.UNITS

    def __init__(
        self,
        title: str = "",
        *,
        points_only: bool = False,
        log_x: bool = False,
        log_y: bool = False,
        x_axis: str = "step",
        x_label: str = "",
        unit: str = "",
        smoothing: float = 0.0,
        show: Callable[[float], str] = present.number,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        """`show` writes values in title, legend and cursor."""
        super().__init__(id=id, classes=classes)
        self.show = show
        given = {"title": title, "points_only": points_only, "log_x": log_x, "log_y": log_y, "x_axis": x_axis}
        for name, value in {**given, "x_label": x_label, "unit": unit, "smoothing": smoothing}.items():
            self.set_reactive(getattr(ChartCanvas, name), value)
        self.curves: list[Curve] = []
        self._picture: Picture | None = None  # as the terminal shows it; None: it must be painted anew
        self._strips: dict[int, Strip] = {}
        self._styles: dict[int, Style] = {}
        self._colours: tuple[Color, ...] = ()  # that the styles were made for
        self._is_due = False

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _: self._start_anew())

    # -- what changes --------------------------------------------------------------------------------------------------

    def watch_lines(self) -> None:
        """Make the lines ready; a curve whose data has grown, or not changed, keeps what was computed of it."""
        by_time = self.x_axis == "time"
        left, before, changed = list(self.curves), self.curves, False
        self.curves = []
        for line in self.lines:
            curve = next((known for known in left if known.line.label == line.label), None)
            if curve is None:
                curve = Curve(line, by_time)
            else:
                left.remove(curve)
                changed |= curve.take(line, by_time)
            self.curves.append(curve)
        if changed or self.curves != before:
            self.redraw()

    def watch_about(self) -> None:
        self.view = View()
        self.cursor_x = None

    def watch_x_axis(self) -> None:
        self.cursor_x = None
        self.view = View(y=self.view.y)
        self.watch_lines()
        self.redraw()

    def watch_log_x(self) -> None:
        self.view = View(y=self.view.y)
        self.redraw()

    def _watch_looks(self) -> None:
        self.redraw()

    watch_title = watch_log_y = watch_smoothing = watch_cursor_x = watch_view = _watch_looks
    watch_points_only = watch_x_label = watch_unit = _watch_looks

    def on_focus(self) -> None:
        self.redraw()

    def on_blur(self) -> None:
        self.redraw()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        if self.is_mounted and self.colors != self._colours:
            self._start_anew()

    def on_show(self, _: events.Show) -> None:
        self._start_anew()

    # -- drawing -------------------------------------------------------------------------------------------------------

    def redraw(self) -> None:
        """Paint soon, once for all that has changed by then."""
        if not self._is_due:
            self._is_due = True
            self.call_next(self._redraw)

    def _redraw(self) -> None:
        self._is_due = False
        old = self._picture
        if old is None or not self.is_on_screen:
            self._start_anew()
            return
        self._picture = None
        new = self.picture
        if new.frame.shape != old.frame.shape:
            self._start_anew()
            return
        changed = list(new.frame.changes(old.frame))
        for row, _, _ in changed:
            self._strips.pop(row, None)
        if changed:
            self.refresh(*(Region(start, row, end - start, 1) for row, start, end in changed))

    def _start_anew(self) -> None:
        """Draw every line anew: a first picture, another size, other colours, or nobody sees it at the moment."""
        self._picture = None
        self._strips.clear()
        self._styles.clear()
        self._colours = self.colors
        self.refresh()

    @property
    def picture(self) -> Picture:
        """The picture of the present state, painted if there is none."""
        width, height = self.size
        if self._picture is None or self._picture.frame.shape != (height, width):
            self._strips.clear()
            self._picture = paint(self._sheet(width, height))
        return self._picture

    def _sheet(self, width: int, height: int) -> Sheet:
        return Sheet(
            width,
            height,
            self.curves,
            title=self.title,
            view=self.view,
            log_x=self.log_x,
            log_y=self.log_y,
            smoothing=self.smoothing,
            by_time=self.x_axis == "time",
            points_only=self.points_only,
            x_label=self.x_label,
            unit=self.unit,
            show=self.show,
            cursor=self.cursor_x,
            focused=self.has_focus,
        )

    def render_line(self, y: int) -> Strip:
        if not self.curves:
            return self._empty_line(y)
        picture = self.picture
        if y >= picture.frame.height:
            return Strip.blank(self.size.width)
        if y not in self._strips:
            segments = [Segment(text, self._style(role)) for text, role in picture.frame.runs(y)]
            self._strips[y] = Strip(segments, picture.frame.width)
        return self._strips[y]

    def _empty_line(self, y: int) -> Strip:
        """A line of a chart without lines. It needs no numpy, whose import would hold up the console's first paint."""
        width, height = self.size
        text, role = "", frame.QUIET
        if y == 0:
            text, role = present.clean(self.title, width), frame.FOCUSED if self.has_focus else frame.TITLE
        elif y == 1 + max(height - 2, 0) // 2:
            text = NOTHING_YET.center(width)
        return Strip([Segment(text, self._style(role))]).adjust_cell_length(width, self._style(frame.BLANK))

    def _style(self, role: int) -> Style:
        if role not in self._styles:
            self._styles[role] = self._make_style(role)
        return self._styles[role]

    def _make_style(self, role: int) -> Style:
        _, _, background, foreground = self.colors
        ground = background.rich_color
        if role >= frame.SERIES:
            colour = visible(Color.parse(SERIES[(role - frame.SERIES) % (frame.DIMMED - frame.SERIES)]), background)
            shown = background.blend(colour, FAINT) if role >= frame.DIMMED else colour
            return Style(color=shown.rich_color, bgcolor=ground)
        theme = self.app.theme_variables
        found = {
            frame.TITLE: foreground,
            frame.FOCUSED: Color.parse(theme["accent"]),
            frame.VALUE: foreground,
            frame.QUIET: background.blend(foreground, 0.6),
            frame.FAINT: background.blend(foreground, 0.4),
            frame.GRID: background.blend(foreground, 0.2),
            frame.CURSOR: Color.parse(theme["accent"]),
        }.get(role, foreground)
        return Style(color=found.rich_color, bgcolor=ground, bold=role in (frame.TITLE, frame.FOCUSED))


def visible(colour: Color, background: Color) -> Color:
    """The colour, moved away from the background until it stands out."""
    towards = Color(0, 0, 0) if background.brightness > 0.5 else Color(255, 255, 255)
    found = (colour.blend(towards, share) for share in (0.0, 0.15, 0.3, 0.45))
    return next((one for one in found if contrast(one, background) >= CONTRAST), colour.blend(towards, 0.6))
