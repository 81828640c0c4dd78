"""Chart: lines over meta-steps or time, with zoom, pan, cursor, log axes and smoothing.

    chart = Chart("meta-loss")
    chart.lines = [Line("run a", steps, values, colour=0), Line("run b", steps, values, colour=1)]

Data goes down as `lines`, and `cursor_x` for a cursor that charts share; what the user does comes up as messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message

from lreg_tui.charts import cursor, smoothing
from lreg_tui.charts.line import Line
from lreg_tui.charts.pointed_chart import PointedChart
from lreg_tui.charts.view import View

__all__ = ["Chart", "Line"]

PAN = 0.15  # share of the axis that one step moves
JUMP = 10  # columns of a fast move of the cursor
ZOOM_KEYS = Binding.Group("zoom", compact=True)
CURSOR_KEYS = Binding.Group("cursor", compact=True)


class Chart(PointedChart, can_focus=True):
    """A chart with keys and mouse."""

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
        Binding("0,home", "reset", "all", key_display="0", tooltip="everything in view"),
        Binding("f,end", "follow", "newest", key_display="f", tooltip="the newest points, and follow them"),
        Binding("l", "toggle_log", "log", tooltip="a logarithmic y axis, or a linear one"),
        Binding("x", "cycle_axis", "axis", tooltip="the x axis: steps, logarithmic steps, or wall time"),
        Binding("s", "cycle_smoothing", "smooth", tooltip="smooth more, or not at all"),
    ]

    @dataclass
    class SettingsChanged(Message):
        """The user has changed `x_axis`, `log_x`, `log_y` or `smoothing`: for layout memory or sister charts."""

        chart: Chart

        @property
        def control(self) -> Chart:
            return self.chart

    # -- zoom and pan --------------------------------------------------------------------------------------------------

    def action_zoom_x(self, closer: bool) -> None:
        """Around the cursor, or the middle of the axis."""
        picture = self.picture
        if picture.x is not None:
            at = self.cursor_x
            is_seen = at is not None and picture.column_of(at) is not None
            self._zoom_x(at if is_seen and at is not None else picture.x.value(0.5), closer)

    def action_pan_x(self, direction: int) -> None:
        self.view = self._shown_view().pan_x(direction * PAN, self.picture.full_x, self.log_x)

    def action_pan_y(self, direction: int) -> None:
        if (now := self._shown_y()) is not None:
            self.view = self.view.pan_y(direction * PAN, now, self.log_y)

    def action_zoom_y(self, closer: bool) -> None:
        picture = self.picture
        if picture.y is not None:
            self._zoom_y(picture.y.value(0.5), closer)

    def action_reset(self) -> None:
        self.view = View()

    def action_follow(self) -> None:
        if self.picture.x is not None:
            self.view = self.view.follow(self.picture.full_x, self.log_x)

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
            found = self._record_near(last if columns < 0 else picture.x.low)
            self._move_cursor(found)
            self._bring_into_view(found)
            return
        place = (column - picture.left + 0.5 + columns) / picture.width
        found = self._record_near(picture.x.value(place))
        if found is None or (found - self.cursor_x) * columns <= 0:
            found = cursor.record_beside(self.curves, self.cursor_x, columns > 0)
        if found is not None:
            self._move_cursor(found)
            self._bring_into_view(found)

    def _bring_into_view(self, x: float | None) -> None:
        scale = self.picture.x
        if x is None or scale is None or self.view.x is None:
            return
        if not 0 <= (place := scale.place(x)) <= 1:
            share = place - 1 + PAN if place > 1 else place - PAN
            self.view = self._shown_view().pan_x(share, self.picture.full_x, self.log_x)
