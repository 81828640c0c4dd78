"""StudyAxes: parallel coordinates of a study, a line for each point through its settings to its result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.cells import cell_len
from textual.binding import BindingType
from textual.color import Color
from textual.message import Message
from textual.strip import Strip

from lreg_tui.charts import frame
from lreg_tui.charts.arrays import numpy
from lreg_tui.charts.frame import Canvas, Frame
from lreg_tui.runs.groups import value_text
from lreg_tui.runs.run_columns import column
from lreg_tui.studies.study_grid import GRADIENT, STEPS, ColourScale
from lreg_tui.studies.study_rows import GridRow, StudyLook
from lreg_tui.text import present
from lreg_tui.widgets.keys import bind

MOST_TICKS = 8  # different numbers up to which each has a place of its own; more are on a scale
DECADES = 1.5  # over which a scale is logarithmic
LEAST_APART = 10  # columns from one axis to the next
RESULT = "mean"

Key = tuple[str, str, int]


@dataclass(frozen=True)
class ParallelAxis:
    """Where each point of the study is on it, 0 below to 1 above, and labels at such places."""

    name: str
    places: Mapping[Key, float]
    labels: Sequence[tuple[float, str]]


def axes_of(study: StudyLook, scale: ColourScale) -> list[ParallelAxis]:
    """The arm, every setting that the study varies, and the result, of which the best is above."""
    rows = [row for row in study.rows if row.mean.mean is not None]
    keys = dict.fromkeys(key for row in rows for key in row.settings)
    arms = {row.key: row.arm for row in rows}
    axes = [_axis("arm", arms)] if len({*arms.values()}) > 1 else []
    for key in keys:
        settings = {row.key: row.settings[key] for row in rows if key in row.settings}
        axes.append(_axis(column(key).heading, settings))
    results = {row.key: 1 - scale.place(row.mean.mean) for row in rows if row.mean.mean is not None}
    ends = [(1.0, present.number(scale.low, 3)), (0.0, present.number(scale.high, 3))]
    return [*axes, ParallelAxis(f"{RESULT} {present.label(study.metric)}", results, ends)]


def _axis(name: str, values: Mapping[Key, Any]) -> ParallelAxis:
    """Few values, or words, are evenly apart in their order; many numbers on a scale."""
    distinct = {value if isinstance(value, (int, float)) else value_text(value) for value in values.values()}
    ordered = sorted(distinct, key=lambda value: (isinstance(value, str), value))
    numbers = [value for value in ordered if not isinstance(value, str)]
    if len(ordered) > MOST_TICKS and len(numbers) == len(ordered):
        is_log = numbers[0] > 0 and math.log10(numbers[-1] / numbers[0]) > DECADES
        low, *_, high = (math.log(number) if is_log else number for number in numbers)
        at: dict[Any, float] = {
            number: ((math.log(number) if is_log else number) - low) / (high - low) for number in numbers
        }
        ticks = [(0.0, value_text(numbers[0])), (1.0, value_text(numbers[-1]))]
    else:
        at = {value: index / (len(ordered) - 1) if len(ordered) > 1 else 0.5 for index, value in enumerate(ordered)}
        ticks = [(at[value], value_text(value)) for value in ordered]
    places = {key: at[value if isinstance(value, (int, float)) else value_text(value)] for key, value in values.items()}
    return ParallelAxis(name, places, ticks)


class StudyAxes(Canvas, can_focus=True):
    """The best points lie on top, in the colours of the grid; the one under the grid's cursor stands out."""

    HELP_TITLE = "Parallel coordinates"
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("up", "move(-1)", tooltip="the next better point", show=False),
        bind("down", "move(1)", tooltip="the next worse point", show=False),
    ]

    @dataclass
    class Moved(Message):
        """Another point is looked at."""

        key: Key

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.study: StudyLook | None = None
        self.scale: ColourScale | None = None
        self.key: Key | None = None
        self._frame: Frame | None = None

    def show_study(self, study: StudyLook, scale: ColourScale | None, key: Key | None) -> None:
        """`key`: of the point that stands out."""
        if (study, key) != (self.study, self.key):
            self.study, self.scale, self.key, self._frame = study, scale, key, None
            self.refresh()

    def action_move(self, by: int) -> None:
        """From the best to the worst."""
        keys = [row.key for row in reversed(self._rows())]
        if keys:
            index = keys.index(self.key) + by if self.key in keys else 0
            self.post_message(self.Moved(keys[max(0, min(index, len(keys) - 1))]))

    def _rows(self) -> list[GridRow]:
        """The worst first, which is drawn below the others."""
        rows = [(row.mean.mean, row) for row in self.study.rows if row.mean.mean is not None] if self.study else []
        return [row for _, row in sorted(rows, key=lambda pair: -pair[0])]

    # -- drawing -----------------------------------------------------------------------------------------------------

    @property
    def frame(self) -> Frame:
        width, height = self.size
        if self._frame is None or self._frame.shape != (height, width):
            self._frame = Frame(width, height)
            if self.study is not None and self.scale is not None and height > 2:
                self._draw(self._frame, axes_of(self.study, self.scale))
        return self._frame

    def _draw(self, canvas: Frame, axes: Sequence[ParallelAxis]) -> None:
        last = max(map(cell_len, (text for _, text in axes[-1].labels)), default=0)
        axes = [*axes[:-1][: (canvas.width - last) // LEAST_APART], axes[-1]]  # the result always
        room, height = canvas.width - 2 - last, canvas.height - 1
        columns = [round(position * room / max(1, len(axes) - 1)) for position in range(len(axes))]
        rows = self._rows()
        for row in [*rows, *(row for row in rows if row.key == self.key)]:
            role = frame.FOCUSED if row.key == self.key else frame.SERIES + self.scale.step(row.mean.mean or 0.0)  # type: ignore[union-attr]
            self._draw_line(canvas, axes, columns, row.key, role, height)
        result = present.clean(axes[-1].name, canvas.width // 2)
        end = canvas.width - cell_len(result)
        canvas.put(end, 0, result, frame.TITLE)
        for axis, x in zip(axes, columns, strict=True):
            if axis is not axes[-1]:
                name = present.shorten(present.clean(axis.name), min(columns[1], end - x) - 1)
                canvas.put(x, 0, name, frame.TITLE)
            for y in range(1, canvas.height):
                canvas.put(x, y, "│", frame.GRID)
            for position, text in axis.labels:
                label = present.clean(text, LEAST_APART - 2)
                canvas.put(x + 1, 1 + round((1 - position) * (height - 1)), label, frame.VALUE)

    def _draw_line(
        self, canvas: Frame, axes: Sequence[ParallelAxis], columns: Sequence[int], key: Key, role: int, height: int
    ) -> None:
        """Straight from axis to axis; one that the point is not on is passed by."""
        points = [(x, axis.places[key]) for axis, x in zip(axes, columns, strict=True) if key in axis.places]
        dots = numpy.zeros((frame.DOTS_DOWN * height, frame.DOTS_ACROSS * canvas.width), dtype=bool)
        at = [frame.DOTS_ACROSS * x for x, _ in points]
        middle, span = frame.DOTS_DOWN // 2, frame.DOTS_DOWN * (height - 1)
        across = numpy.linspace(at[0], at[-1], 4 * (at[-1] - at[0]) + 1)
        down = middle + (1 - numpy.interp(across, at, [position for _, position in points])) * span
        dots[down.astype(int), across.astype(int)] = True
        canvas.put_dots(0, 1, dots, role)

    def render_line(self, y: int) -> Strip:
        return self.strip(self.frame, y)

    def colour(self, role: int, background: Color, foreground: Color) -> Color:
        if role >= frame.SERIES:
            return GRADIENT.get_color((role - frame.SERIES) / (STEPS - 1))
        return background.blend(foreground, {frame.GRID: 0.4, frame.VALUE: 0.8}.get(role, 1.0))
