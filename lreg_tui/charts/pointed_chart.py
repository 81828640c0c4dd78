"""PointedChart: a chart with the mouse: the wheel zooms, dragging pans, double click shows all, hovering points."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.message import Message
from textual.widget import Widget

from lreg_tui.charts import cursor
from lreg_tui.charts.axes import Range
from lreg_tui.charts.chart_canvas import ChartCanvas
from lreg_tui.charts.view import View

ZOOM = 0.6  # length of the axis after one step of zooming in


class PointedChart(ChartCanvas):
    """What may happen to view and cursor, and the mouse, which makes it happen."""

    @dataclass
    class CursorMoved(Message, namespace="chart"):
        """The user has moved the cursor (None: taken it away): set `cursor_x` of charts with the same `x_axis`."""

        chart: PointedChart
        x: float | None
        x_axis: str

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, PointedChart.CursorMoved) and message.chart is self.chart

        @property
        def control(self) -> PointedChart:
            return self.chart

    _drag: tuple[int, int, View] | None = None  # where the button was pressed, and the view at that time
    _is_hovering = False  # the cursor goes when the pointer leaves

    # -- view and cursor -----------------------------------------------------------------------------------------------

    def _zoom_x(self, at: float, closer: bool) -> None:
        shown = self._shown_view()
        self.view = shown.zoom_x(at, ZOOM if closer else 1 / ZOOM, self.picture.full_x, self.log_x)

    def _zoom_y(self, at: float, closer: bool) -> None:
        if (now := self._shown_y()) is not None:
            self.view = self.view.zoom_y(at, ZOOM if closer else 1 / ZOOM, now, self.log_y)

    def _shown_view(self) -> View:
        """The view with the range that a following one has at the moment."""
        x = self.picture.x
        return View((x.low, x.high), self.view.y) if self.view.following and x is not None else self.view

    def _shown_y(self) -> Range | None:
        y = self.picture.y
        return None if y is None else (y.low, y.high)

    def _record_near(self, x: float) -> float | None:
        return None if self.picture.x is None else cursor.record_near(self.curves, self.picture.x, x)

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
            self.view = View()
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
