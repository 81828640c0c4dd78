"""What a chart shows, and the frame that it is drawn on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lreg_tui.charts.axes import AxisScale, Range, View
from lreg_tui.charts.curve import Curve
from lreg_tui.charts.frame import Frame
from lreg_tui.text import present

EVALUATION = "evaluation"  # label of an x axis that counts them


@dataclass
class Scene:
    """What a chart shows: data and settings."""

    width: int
    height: int
    curves: Sequence[Curve] = ()
    title: str = ""
    view: View = field(default_factory=View)
    log_x: bool = False
    log_y: bool = False
    smoothing: float = 0.0
    by_time: bool = False
    points_only: bool = False
    x_label: str = ""
    unit: str = ""
    show: Callable[[float], str] = present.number
    cursor: float | None = None
    focused: bool = False

    @property
    def x_name(self) -> str:
        return "time" if self.by_time else self.x_label or "step"

    @property
    def x_unit(self) -> str:
        if self.by_time:
            return "seconds"
        return "" if self.points_only and self.x_label != EVALUATION else "count"

    def show_x(self, x: float) -> str:
        if self.by_time:
            return present.duration(x)
        return f"{round(x):,}" if x == round(x) and not self.points_only else present.number(x)


@dataclass
class Picture:
    """A frame and where in it the plot lies: `left` and `top` are its first column and line."""

    frame: Frame
    left: int = 0
    top: int = 1
    width: int = 0
    height: int = 0
    full_x: Range = (0.0, 1.0)  # in the units of the axis
    newest: float = 1.0
    x: AxisScale | None = None  # None: there is nothing to see
    y: AxisScale | None = None

    def x_at(self, column: float) -> float | None:
        """The value of the x axis in the middle of a column of the frame; None outside the plot."""
        inside = self.x is not None and 0 <= column - self.left < self.width
        return self.x.value((column - self.left + 0.5) / self.width) if inside and self.x else None

    def column_of(self, x: float) -> int | None:
        """The column of the frame that x lies in."""
        share = self.x.position(x) if self.x else math.nan
        return self.left + min(int(share * self.width), self.width - 1) if 0 <= share <= 1 else None

    def row_of(self, y: float) -> int | None:
        share = self.y.position(y) if self.y else math.nan
        return self.top + self.height - 1 - min(int(share * self.height), self.height - 1) if 0 <= share <= 1 else None
