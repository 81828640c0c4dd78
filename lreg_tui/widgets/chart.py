"""Chart: lines over meta-steps or time, with zoom, pan, cursor, log axes and smoothing.

    chart = Chart("meta-loss")
    chart.lines = [Line("run a", steps, values, colour=0), Line("run b", steps, values, colour=1)]

Data goes down as `lines`, and `cursor_x` for a cursor that charts share; what the user does comes up as messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget

from lreg_tui.charts import cursor, smoothing
from lreg_tui.charts.axes import Range
from lreg_tui.charts.line import Line
from lreg_tui.charts.view import View
from lreg_tui.widgets.chart_canvas import ChartCanvas

__all__ = ["Chart", "Line"]

ZOOM = 0.6  # length of the axis after one step of zooming in
PAN = 0.15  # share of the axis that one step moves
JUMP = 10  # columns of a fast move of the cursor
ZOOM_KEYS = Binding.Group("zoom", compact=True)
CURSOR_KEYS = Binding.Group("cursor", compact=True)


class Chart(ChartCanvas, can_focus=True):
    """A chart with keys and mouse: the wheel zooms, dragging pans, double click shows all, hovering points."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("plus,equals_sign", "zoom_x(True)", "zoom in", key_display="+", group=ZOOM_KEYS),
        Binding("minus,underscore", "zoom_x(False)", "zoom out", key_display="-", group=ZOOM_KEYS),
        Binding("left", "pan_x(-1)", "pan left", show=False),
        Binding("right", "pan_x(1)", "pan right", show=False),
        Binding("up", "pan_y(1)", "pan up", show=False),
        Binding("down", "pan_y(-1)", "pan down", show=False),
        Binding("shift+up", "zoom_y(True)", "zoom in on y", show=False),
        Binding("shift+down", "zoom_y(False)", "zoom out on y", show=False),
        Binding("comma", "move_cursor(-1)", "cursor left", key_display=",", group=CURSOR_KEYS),
        Binding("full_stop", "move_cursor(1)", "cursor right", key_display=".", group=CURSOR_KEYS),
        Binding("less_than_sign", f"move_cursor({-JUMP})", "cursor far left", show=False, key_display="<"),
        Binding("greater_than_sign", f"move_cursor({JUMP})", "cursor far right", show=False, key_display=">"),
        Binding("escape", "clear_cursor", "no cursor", show=False),
        Binding("0,home", "reset", "all", key_display="0"),
        Binding("f,end", "follow", "newest", key_display="f"),
        Binding("l", "toggle_log", "log"),
        Binding("x", "cycle_axis", "x axis"),
        Binding("s", "cycle_smoothing", "smooth"),
    ]

    @dataclass
    class CursorMoved(Message):
        """The user has moved the cursor (None: taken it away): set `cursor_x` of charts with the same `x_axis`."""

        chart: Chart
        x: float | None
        x_axis: str

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, Chart.CursorMoved) and message.chart is self.chart

        @property
        def control(self) -> Chart:
            return self.chart

    @dataclass
    class SettingsChanged(Message):
        """The user has changed `x_axis`, `log_x`, `log_y` or `smoothing`: for layout memory or sister charts."""

        chart: Chart

        @property
        def control(self) -> Chart:
            return self.chart

    _drag: tuple[int, int, View] | None = None  # where the button was pressed, and the view at that time
    _is_hovering = False  # the cursor goes when the pointer leaves

    # -- zoom and pan --------------------------------------------------------------------------------------------------

    def action_zoom_x(self, closer: bool) -> None:
        """Around the cursor, or the middle of the axis."""
        picture = self.picture
        if picture.x is not None:
            at = self.cursor_x
            is_seen = at is not None and picture.column_of(at) is not None
            self._zoom_x(at if is_seen and at is not None else picture.x.value(0.5), closer)

    def _zoom_x(self, at: float, closer: bool) -> None:
        shown = self._shown_view()
        self.view = shown.zoom_x(at, ZOOM if closer else 1 / ZOOM, self.picture.full_x, self.log_x)

    def action_pan_x(self, direction: int) -> None:
        self.view = self._shown_view().pan_x(direction * PAN, self.picture.full_x, self.log_x)

    def action_pan_y(self, direction: int) -> None:
        if (now := self._shown_y()) is not None:
            self.view = self.view.pan_y(direction * PAN, now, self.log_y)

    def action_zoom_y(self, closer: bool) -> None:
        picture = self.picture
        if picture.y is not None:
            self._zoom_y(picture.y.value(0.5), closer)

    def _zoom_y(self, at: float, closer: bool) -> None:
        if (now := self._shown_y()) is not None:
            self.view = self.view.zoom_y(at, ZOOM if closer else 1 / ZOOM, now, self.log_y)

    def action_reset(self) -> None:
        self.view = View()

    def action_follow(self) -> None:
        if self.picture.x is not None:
            self.view = self.view.follow(self.picture.full_x, self.log_x)

    def _shown_view(self) -> View:
        """The view with the range that a following one has at the moment."""
        x = self.picture.x
        return View((x.low, x.high), self.view.y) if self.view.following and x is not None else self.view

    def _shown_y(self) -> Range | None:
        y = self.picture.y
        return None if y is None else (y.low, y.high)

    # -- settings ------------------------------------------------------------------------------------------------------

    def action_toggle_log(self) -> None:
        self.view = View(self.view.x, None, self.view.following)
        self.log_y = not self.log_y
        self.post_message(self.SettingsChanged(self))

    def action_cycle_axis(self) -> None:
        """Meta-step, meta-step on a log axis, time; of points: their axis and its logarithm."""
        choices = [("step", False), ("step", True)]
        if not self.points_only and any(line.times is not None for line in self.lines):
            choices.append(("time", False))
        now = (self.x_axis, self.log_x)
        self.x_axis, self.log_x = choices[(choices.index(now) + 1) % len(choices) if now in choices else 0]
        self.post_message(self.SettingsChanged(self))

    def action_cycle_smoothing(self) -> None:
        self.smoothing = next((weight for weight in smoothing.STEPS if weight > self.smoothing), 0.0)
        self.post_message(self.SettingsChanged(self))

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
            self._move_cursor(self._record_near(last if columns < 0 else picture.x.low))
            return
        place = (column - picture.left + 0.5 + columns) / picture.width
        found = self._record_near(picture.x.value(place))
        if found is None or (found - self.cursor_x) * columns <= 0:
            found = cursor.record_beside(self.curves, self.cursor_x, columns > 0)
        if found is not None:
            self._move_cursor(found)
            self._bring_into_view(found)

    def _record_near(self, x: float) -> float | None:
        return None if self.picture.x is None else cursor.record_near(self.curves, self.picture.x, x)

    def _bring_into_view(self, x: float) -> None:
        scale = self.picture.x
        if scale is not None and self.view.x is not None and not 0 <= (place := scale.place(x)) <= 1:
            share = place - 1 + PAN if place > 1 else place - PAN
            self.view = self._shown_view().pan_x(share, self.picture.full_x, self.log_x)

    def _move_cursor(self, x: float | None) -> None:
        if x != self.cursor_x:
            self.cursor_x = x
            self.post_message(self.CursorMoved(self, x, self.x_axis))

    # -- mouse ---------------------------------------------------------------------------------------------------------

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._drag is not None:
            self._pan_by_drag(event)
        elif not getattr(self.app, "slow_link", False):  # there every move would be sent; clicks are
            self._point_at(event)
            self._is_hovering = True

    def _point_at(self, event: events.MouseEvent) -> None:
        x = self._x_under(event)
        if x is not None:
            self._move_cursor(self._record_near(x))

    def _x_under(self, event: events.MouseEvent) -> float | None:
        offset = event.get_content_offset(self)
        return None if offset is None else self.picture.x_at(offset.x)

    def on_leave(self, _: events.Leave) -> None:
        if self._is_hovering:
            self._is_hovering = False
            self._move_cursor(None)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if event.button == 1:
            self._drag = (event.screen_x, event.screen_y, self._shown_view())
            self.capture_mouse()

    def on_mouse_up(self, _: events.MouseUp) -> None:
        self._drag = None
        self.release_mouse()

    def _pan_by_drag(self, event: events.MouseMove) -> None:
        picture = self.picture
        if self._drag is None or not picture.width or not picture.height:
            return
        x, y, view = self._drag
        across, down = event.screen_x - x, event.screen_y - y
        moved = view.pan_x(-across / picture.width, picture.full_x, self.log_x) if across else view
        if view.y is not None and down:  # an axis that the data set goes back there by itself
            moved = moved.pan_y(down / picture.height, view.y, self.log_y)
        self.view = moved

    def on_click(self, event: events.Click) -> None:
        if event.chain == 2:
            self.action_reset()
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
        x, offset = self._x_under(event), event.get_content_offset(self)
        picture = self.picture
        if x is None or offset is None or picture.y is None:
            return
        if event.ctrl or event.shift:
            place = (picture.top + picture.height - offset.y - 0.5) / picture.height
            self._zoom_y(picture.y.value(place), closer)
        else:
            self._zoom_x(x, closer)
