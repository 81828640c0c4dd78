"""Chart: lines over meta-steps or time, with zoom, pan, cursor, log axes and smoothing.

    chart = Chart("meta-loss")
    chart.lines = [ChartLine("run a", steps, values, colour=0), ChartLine("run b", steps, values, colour=1)]

Data goes down as `lines`. What the user does with the x axis and the cursor goes to `sisters`, too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.reactive import var
from textual.strip import Strip
from textual.widget import Widget

from lreg_tui.charts import frame, marks
from lreg_tui.charts.axes import View, usable
from lreg_tui.charts.curve import SMOOTHING_STEPS, ChartLine, Curve
from lreg_tui.charts.frame import Canvas, Picture, Scene
from lreg_tui.charts.picture import NOTHING_YET, paint
from lreg_tui.text import present
from lreg_tui.widgets.keys import bind

PAN = 0.15  # share of the axis that one step moves
ZOOM = 0.6  # length of the axis after one step of zooming in
JUMP = 10  # columns of a fast move of the cursor
ZOOM_KEYS = Binding.Group("zoom", compact=True)
CURSOR_KEYS = Binding.Group("cursor", compact=True)
SHOWN = ("title", "view", "log_x", "log_y", "smoothing", "points_only", "x_label", "unit", "show")  # as they are


class Chart(Canvas, can_focus=True):
    """Lines on a braille canvas. Every reactive may be set at any time; what has changed is painted once, soon.

    The terminal is sent only lines that look different.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        bind("zoom_in", "zoom_x(True)", group=ZOOM_KEYS),
        bind("zoom_out", "zoom_x(False)", group=ZOOM_KEYS),
        bind("left", "pan_x(-1)", "pan left", show=False),
        bind("right", "pan_x(1)", "pan right", show=False),
        bind("up", "pan_y(1)", "pan up", show=False),
        bind("down", "pan_y(-1)", "pan down", show=False),
        bind("zoom_in_y", "zoom_y(True)", show=False),
        bind("zoom_out_y", "zoom_y(False)", show=False),
        bind("cursor_left", "move_cursor(-1)", group=CURSOR_KEYS),
        bind("cursor_right", "move_cursor(1)", group=CURSOR_KEYS),
        bind("far_left", f"move_cursor({-JUMP})", show=False),
        bind("far_right", f"move_cursor({JUMP})", show=False),
        bind("back", "clear_cursor", "no cursor", show=False),
        bind("all", "reset", tooltip="everything in view"),
        bind("follow", "follow", tooltip="the newest points, and follow them"),
        bind("log_axis", "toggle_log"),
        bind("x_axis", "cycle_axis"),
        bind("smooth", "cycle_smoothing"),
    ]
    DEFAULT_CSS = "Chart { width: 1fr; height: 1fr; min-height: 3; }"
    ALLOW_SELECT = False  # dragging pans

    lines: var[Sequence[ChartLine]] = var((), init=False)
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

    def __init__(self, title: str = "", *, id: str | None = None, **settings: Any) -> None:
        """`settings`: values of the reactives to begin with."""
        super().__init__(id=id)
        self.show: Callable[[float], str] = present.number  # writes values in title, legend and cursor
        for name, value in {"title": title, **settings}.items():
            self.set_reactive(getattr(Chart, name), value)
        self.sisters: Callable[[], Iterable[Chart]] = tuple  # which share the cursor, the x axis and its range
        self.curves: list[Curve] = []
        self._picture: Picture | None = None  # as the terminal shows it; None: it must be painted anew
        self._strips: dict[int, Strip] = {}
        self._is_due = False
        self._drag: tuple[int, int, View, Picture] | None = None  # where, and with what in view, the button was pressed
        self._is_hovering = False  # the cursor goes when the pointer leaves

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _: self._start_anew())

    # -- what changes --------------------------------------------------------------------------------------------------

    def watch_lines(self) -> None:
        """Make the lines ready; a curve whose data has not changed keeps what was computed of it."""
        by_time, before = self.x_axis == "time", self.curves
        reused = [next((curve for curve in before if curve.is_of(line, by_time)), None) for line in self.lines]
        self.curves = [curve or Curve(line, by_time) for curve, line in zip(reused, self.lines, strict=True)]
        if self.curves != before:
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

    def watch_log_y(self) -> None:
        self.view = View(self.view.x, None, self.view.following)
        self.redraw()

    def redraw(self) -> None:
        """Paint soon, once for all that has changed by then."""
        if not self._is_due:
            self._is_due = True
            self.call_next(self._redraw)

    def _look_again(self) -> None:
        self.redraw()

    watch_title = watch_smoothing = watch_cursor_x = watch_view = _look_again
    watch_points_only = watch_x_label = watch_unit = on_focus = on_blur = _look_again

    def notify_style_update(self) -> None:
        super().notify_style_update()
        if self.is_mounted and self.colors != self._colours:
            self._start_anew()

    def on_show(self) -> None:
        self._start_anew()

    # -- drawing -------------------------------------------------------------------------------------------------------

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
        self.refresh()

    @property
    def picture(self) -> Picture:
        """The picture of the present state, painted if there is none."""
        width, height = self.size
        if self._picture is None or self._picture.frame.shape != (height, width):
            self._strips.clear()
            settings = {name: getattr(self, name) for name in SHOWN}
            settings |= {"by_time": self.x_axis == "time", "cursor": self.cursor_x, "focused": self.has_focus}
            self._picture = paint(Scene(width, height, self.curves, **settings))
        return self._picture

    def render_line(self, y: int) -> Strip:
        if not self.curves:
            return self._empty_line(y)
        picture = self.picture
        if y >= picture.frame.height:
            return Strip.blank(self.size.width)
        if y not in self._strips:
            self._strips[y] = self.strip(picture.frame, y)
        return self._strips[y]

    def _empty_line(self, y: int) -> Strip:
        """A line of a chart without lines. It needs no numpy, whose import would hold up the console's first paint."""
        width, height = self.size
        text, role = "", frame.QUIET
        if y == 0:
            text, role = present.clean(self.title, width), frame.FOCUSED if self.has_focus else frame.TITLE
        elif y == 1 + max(height - 2, 0) // 2:
            text = NOTHING_YET.center(width)
        return Strip([Segment(text, self.style(role))]).adjust_cell_length(width, self.style(frame.BLANK))

    # -- zoom and pan --------------------------------------------------------------------------------------------------

    def look_at(self, view: View) -> None:
        """As the user wants it, as far as axes go."""
        ranges = ((view.x, self.log_x), (view.y, self.log_y))
        if all(chosen is None or usable(chosen, log) for chosen, log in ranges):
            self.view = view
            for chart in self.sisters():
                if (chart.x_axis, chart.log_x) == (self.x_axis, self.log_x):
                    chart.view = replace(chart.view, x=view.x, following=view.following)

    def action_zoom_x(self, closer: bool) -> None:
        """Around the cursor, or the middle of the axis."""
        scale, at = self.picture.x, self.cursor_x
        position = scale.position(at) if scale is not None and at is not None else 0.5
        self._zoom_x(position if 0 <= position <= 1 else 0.5, closer)

    def _zoom_x(self, position: float, closer: bool) -> None:
        if (x := self.picture.x) is not None:
            self.look_at(self.view.zoom_x(position, ZOOM if closer else 1 / ZOOM, x.ends, self.picture.full_x))

    def action_pan_x(self, steps: float) -> None:
        if (x := self.picture.x) is not None:
            self.look_at(self.view.pan_x(steps * PAN, x.ends, self.picture.full_x))

    def action_zoom_y(self, closer: bool, position: float = 0.5) -> None:
        if (y := self.picture.y) is not None:
            self.look_at(self.view.zoom_y(position, ZOOM if closer else 1 / ZOOM, y.ends))

    def action_pan_y(self, direction: int) -> None:
        if (y := self.picture.y) is not None:
            self.look_at(self.view.pan_y(direction * PAN, y.ends))

    def action_reset(self) -> None:
        self.look_at(View())

    def action_follow(self) -> None:
        if self.picture.x is not None:
            self.look_at(self.view.follow(self.picture.full_x))

    # -- settings ------------------------------------------------------------------------------------------------------

    def action_toggle_log(self) -> None:
        self.log_y = not self.log_y

    def action_cycle_axis(self) -> None:
        """Meta-step, meta-step on a log axis, time; of points: their axis and its logarithm."""
        choices = [("step", False), ("step", True)]
        if not self.points_only and any(line.times is not None for line in self.lines):
            choices.append(("time", False))
        now = (self.x_axis, self.log_x)
        chosen = choices[(choices.index(now) + 1) % len(choices) if now in choices else 0]
        for chart in (self, *self.sisters()):
            chart.x_axis, chart.log_x = chosen

    def action_cycle_smoothing(self) -> None:
        self.smoothing = next((weight for weight in SMOOTHING_STEPS if weight > self.smoothing), 0.0)

    # -- cursor --------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Escape belongs to the screen while there is no cursor to take away."""
        return self.cursor_x is not None if action == "clear_cursor" else True

    def action_clear_cursor(self) -> None:
        self._move_cursor(None)

    def action_move_cursor(self, columns: int) -> None:
        """To a record about so many columns away, at least to the next one; the view comes along."""
        picture = self.picture
        if picture.x is None:
            return
        column = picture.column_of(self.cursor_x) if self.cursor_x is not None else None
        if column is None or self.cursor_x is None:
            last = min(picture.newest, picture.x.high)
            x = self._record_near(last if columns < 0 else picture.x.low)
        else:
            x = self._record_near(picture.x.value((column - picture.left + 0.5 + columns) / picture.width))
            if x is None or (x - self.cursor_x) * columns <= 0:
                x = marks.record_beside(self.curves, self.cursor_x, columns > 0)
            x = self.cursor_x if x is None else x
        self._move_cursor(x)
        if x is not None and self.view.x is not None and not 0 <= (position := picture.x.position(x)) <= 1:
            self.action_pan_x((position - 1) / PAN + 1 if position > 1 else position / PAN - 1)  # the view comes along

    def _record_near(self, x: float) -> float | None:
        return None if self.picture.x is None else marks.record_near(self.curves, self.picture.x, x)

    def _move_cursor(self, x: float | None) -> None:
        if x != self.cursor_x:
            for chart in (self, *self.sisters()):
                if chart.x_axis == self.x_axis:
                    chart.cursor_x = x

    # -- mouse: the wheel zooms, dragging pans, a double click shows all, hovering points ------------------------------

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._drag is not None:
            self._pan_by_drag(event)
        elif not getattr(self.app, "slow_link", False):  # there every move would be sent; clicks are
            self._point_at(event)
            self._is_hovering = True

    def _point_at(self, event: events.MouseEvent) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and (x := self.picture.x_at(offset.x)) is not None:
            self._move_cursor(self._record_near(x))

    def on_leave(self) -> None:
        if self._is_hovering:
            self._is_hovering = False
            self._move_cursor(None)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if event.button == 1:
            self._drag = (event.screen_x, event.screen_y, self.view, self.picture)
            self.capture_mouse()

    def on_mouse_up(self) -> None:
        self._drag = None
        self.release_mouse()

    def _pan_by_drag(self, event: events.MouseMove) -> None:
        if self._drag is None:
            return
        x, y, view, picture = self._drag
        if picture.x is None or picture.y is None or not picture.width or not picture.height:
            return
        across, down = event.screen_x - x, event.screen_y - y
        if across:
            view = view.pan_x(-across / picture.width, picture.x.ends, picture.full_x)
        if view.y is not None and down:  # an axis that the data set goes back there by itself
            view = view.pan_y(down / picture.height, picture.y.ends)
        self.look_at(view)

    def on_click(self, event: events.Click) -> None:
        if event.chain == 2:
            self.look_at(View())
        elif event.button == 1:
            self._point_at(event)
            self._is_hovering = False

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._wheel(event, closer=True)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._wheel(event, closer=False)

    def _wheel(self, event: events.MouseEvent, closer: bool) -> None:
        """Zoom at the pointer, with ctrl or shift on the y axis. On a page that scrolls: only a focused chart."""
        on_page = any(isinstance(node, Widget) and node.max_scroll_y > 0 for node in self.ancestors)
        if on_page and not self.has_focus:
            return
        event.stop()
        event.prevent_default()
        offset, picture = event.get_content_offset(self), self.picture
        if offset is None or picture.x_at(offset.x) is None:
            return
        if event.ctrl or event.shift:
            self.action_zoom_y(closer, (picture.top + picture.height - offset.y - 0.5) / picture.height)
        else:
            self._zoom_x((offset.x - picture.left + 0.5) / picture.width, closer)
