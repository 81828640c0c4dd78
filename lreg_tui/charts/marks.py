"""What lies in the plot: lines, points, intervals and markers; the legend, which tells their values; and the cursor."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from lreg_tui.charts import frame
from lreg_tui.charts.arrays import numpy
from lreg_tui.charts.axes import LARGEST, AxisScale
from lreg_tui.charts.curve import Curve
from lreg_tui.charts.frame import Picture, Scene
from lreg_tui.text import present
from lreg_tui.widgets.themes import MARKERS, SERIES

APART = 18  # columns from one marker of a line to its next
FEW = 6  # columns for each record: with more room than that, every record is marked
ABOVE, BELOW, NOWHERE = "↑", "↓", "×"  # on the edge: a value beyond all axes, or none at all
MOST_GLYPHS = 400  # points drawn as glyphs; more of them are dots


def look(curve: Curve) -> tuple[str, int]:
    colour = curve.line.colour
    return MARKERS[colour % len(MARKERS)], colour % len(SERIES) + (frame.DIMMED if curve.line.dim else frame.SERIES)


def draw(scene: Scene, picture: Picture, curves: Sequence[Curve]) -> None:
    """Everything in the plot. The first line lies on top."""
    shifts = _shifts(scene, picture, curves)
    for curve, shift in reversed(list(zip(curves, shifts, strict=True))):
        _draw_bars(scene, picture, curve, shift)
    if not scene.points_only:
        behind_first = sorted(reversed(curves), key=lambda curve: not curve.line.dim)
        if scene.smoothing:
            for curve in behind_first:
                _draw_line(scene, picture, curve, 0.0, frame.DIMMED + curve.line.colour % len(SERIES))
        for curve in behind_first:
            _draw_line(scene, picture, curve, scene.smoothing, look(curve)[1])
    for number, (curve, shift) in enumerate(zip(curves, shifts, strict=True)):
        _draw_markers(scene, picture, curve, number, len(curves), shift)
    for curve in reversed(curves):
        _draw_breaks(scene, picture, curve)


def ends(curve: Curve, part: slice | numpy.ndarray, log: bool) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Lower and upper ends of the intervals of some records; of a log axis only what is above 0."""
    y = curve.values(log)[part]
    if curve.errors is None or len(curve.errors) != len(curve.y):
        return y, y
    half = curve.errors[part]
    half = numpy.where(numpy.abs(half) <= LARGEST, half, 0.0)  # none, or endless
    low, high = y - half, y + half
    return (numpy.where(low > 0, low, y), high) if log else (low, high)


def _shifts(scene: Scene, picture: Picture, curves: Sequence[Curve]) -> list[int]:
    """Columns by which each curve's points are moved, so that intervals at one x stand beside each other."""
    if not scene.points_only or all(curve.errors is None for curve in curves):
        return [0] * len(curves)
    places = (picture.column_of(x) for curve in curves for x in curve.x[:MOST_GLYPHS].tolist())
    columns = sorted({column for column in places if column is not None})
    apart = min((after - before for before, after in pairwise(columns)), default=picture.width)
    return [number - (len(curves) - 1) // 2 if apart > len(curves) else 0 for number in range(len(curves))]


def _draw_line(scene: Scene, picture: Picture, curve: Curve, weight: float, role: int) -> None:
    assert picture.x is not None and picture.y is not None
    columns = frame.DOTS_ACROSS * picture.width
    dots = frame.dots_of(curve.spans(picture.x, columns, scene.log_y, weight), picture.y, picture.height)
    breaks = _columns_of(curve.x[curve.breaks], picture.x, columns)
    dots[:, sorted(set(breaks) - {column + 1 for column in breaks})] = False  # where a gap begins, not all that follows
    picture.frame.put_dots(picture.left, picture.top, dots, role)


def _columns_of(places: numpy.ndarray, x: AxisScale, columns: int) -> list[int]:
    """Which of so many columns have any of these places in them."""
    with numpy.errstate(invalid="ignore", divide="ignore"):
        cells = x.cells(numpy.log10(places) if x.log else places.astype(float), columns)
        return numpy.unique(cells[(cells >= 0) & (cells < columns)]).astype(int).tolist()


def _draw_breaks(scene: Scene, picture: Picture, curve: Curve) -> None:
    """On the edge of the plot: where a value was endless, too low for a log axis, or none at all."""
    assert picture.x is not None
    places, values, role = curve.x[curve.breaks], curve.told[curve.breaks], look(curve)[1]
    below = [places[values < 0]]
    if curve.left_out(scene.log_y):
        part = curve.inside(picture.x)
        below.append(curve.x[part][curve.y[part] <= 0])
    bottom = picture.top + picture.height - 1
    edges = ((numpy.concatenate(below), BELOW, bottom), (places[values > 0], ABOVE, picture.top))
    for where, glyph, row in (*edges, (places[numpy.isnan(values)], NOWHERE, bottom)):
        for column in _columns_of(where, picture.x, picture.width):
            picture.frame.put(picture.left + column, row, glyph, role)


def _draw_bars(scene: Scene, picture: Picture, curve: Curve, shift: int) -> None:
    """Intervals, upright through their points."""
    assert picture.x is not None and picture.y is not None
    if curve.errors is None:
        return
    inside = curve.inside(picture.x)
    part = inside.start + numpy.flatnonzero(numpy.isfinite(curve.errors[inside]))
    if len(part) > MOST_GLYPHS:
        return
    columns = numpy.array([picture.column_of(x) or 0 for x in curve.x[part].tolist()], dtype=float)
    low, high = ends(curve, part, scene.log_y)
    with numpy.errstate(invalid="ignore", divide="ignore"):
        low, high = (numpy.log10(end) if scene.log_y else end for end in (low, high))
        low, high = (picture.y.cells(end, frame.DOTS_DOWN * picture.height) for end in (low, high))
    width = frame.DOTS_ACROSS * picture.width
    dots = frame.bars((columns + shift - picture.left) * frame.DOTS_ACROSS, low, high, width, picture.height)
    picture.frame.put_dots(picture.left, picture.top, dots, frame.DIMMED + curve.line.colour % len(SERIES))


def _draw_markers(scene: Scene, picture: Picture, curve: Curve, number: int, count: int, shift: int) -> None:
    assert picture.x is not None
    glyph, role = look(curve)
    part = curve.inside(picture.x)
    is_sparse = (part.stop - part.start) * FEW <= picture.width
    if scene.points_only and len(curve.y) > MOST_GLYPHS:
        _draw_dots(scene, picture, curve, role)
    elif scene.points_only or is_sparse:
        for column, row in _places(scene, picture, curve):
            if picture.left <= column + shift:
                picture.frame.put(column + shift, row, glyph, role)
    elif count > 1:
        for column, row in _along(scene, picture, curve, number, count):
            picture.frame.put(column, row, glyph, role)


def _draw_dots(scene: Scene, picture: Picture, curve: Curve, role: int) -> None:
    """One dot for each of very many points."""
    assert picture.x is not None and picture.y is not None
    dots = numpy.zeros((frame.DOTS_DOWN * picture.height, frame.DOTS_ACROSS * picture.width), dtype=bool)
    with numpy.errstate(invalid="ignore", divide="ignore"):
        columns = picture.x.cells(numpy.log10(curve.x) if scene.log_x else curve.x, dots.shape[1])
        rows = picture.y.cells(numpy.log10(curve.y) if scene.log_y else curve.y, dots.shape[0])
        seen = (columns >= 0) & (columns < dots.shape[1]) & (rows >= 0) & (rows < dots.shape[0])
    dots[dots.shape[0] - 1 - rows[seen].astype(int), columns[seen].astype(int)] = True
    picture.frame.put_dots(picture.left, picture.top, dots, role)


def _places(scene: Scene, picture: Picture, curve: Curve) -> Iterator[tuple[int, int]]:
    """Column and row of each record that is in sight."""
    assert picture.x is not None
    part = curve.inside(picture.x)
    values = curve.smooth(scene.smoothing, scene.log_y) if scene.smoothing and not scene.points_only else curve.y
    for x, y in zip(curve.x[part].tolist(), values[part].tolist(), strict=True):
        column, row = picture.column_of(x), picture.row_of(y)
        if column is not None and row is not None:
            yield column, row


def _along(scene: Scene, picture: Picture, curve: Curve, number: int, count: int) -> Iterator[tuple[int, int]]:
    """A few places on a line, away from those of the other lines."""
    assert picture.x is not None and picture.y is not None
    spans = curve.spans(picture.x, frame.DOTS_ACROSS * picture.width, scene.log_y, scene.smoothing)
    middle = picture.y.cells((spans.low + spans.high) / 2, picture.height)[:: frame.DOTS_ACROSS]
    seen = numpy.flatnonzero((middle >= 0) & (middle < picture.height))
    if not len(seen):
        return
    apart = max(min(APART, picture.width // 2), count)
    columns = [column for column in seen.tolist() if column % apart == (number * apart) // count]
    for column in columns or [int(seen[len(seen) * (number + 1) // (count + 1)])]:
        yield picture.left + column, picture.top + picture.height - 1 - int(middle[column])


GAP = 3  # columns between entries
SHORTEST = 8  # columns that a label needs to be told from others
USUAL_VALUE = 6  # columns of most values: room is kept, so that legends do not jump while values change

BETWEEN_WORDS = " -_./"  # of a label

Runs = list[tuple[str, int]]
LABEL_LENGTH = 60
SLACK = 0.01  # of the axis: how far beyond its last record a line still has a value


class LegendEntry(NamedTuple):
    mark: str
    label: str
    value: str
    role: int


def lay_out(entries: Sequence[LegendEntry], width: int, rows: int, whole: bool = False) -> list[Runs]:
    """Runs of text and role for each row of the legend; no rows where it does not fit (`whole`: with all labels)."""
    if not entries or rows < 1:
        return []
    value = max(cell_len(entry.value) for entry in entries)
    value = max(value, USUAL_VALUE) if value else 0
    longest = max(cell_len(entry.label) for entry in entries)
    for used in range(1, rows + 1):
        across = -(-len(entries) // used)
        room = (width + GAP) // across - GAP - 2 - 1 - value
        if room >= longest or (used == rows and room >= SHORTEST and not whole):
            fitted = entries if room >= longest else told_apart(entries)
            label = min(room, max(cell_len(entry.label) for entry in fitted))
            return [_row(fitted[start : start + across], label, value) for start in range(0, len(fitted), across)]
    if not whole and (2 + value + GAP) * len(entries) - GAP <= width:
        return [_row(entries, 0, value)]
    return []


def told_apart(entries: Sequence[LegendEntry]) -> Sequence[LegendEntry]:
    """The entries without the words that all labels begin with, else all that is left where room is short."""
    common = os.path.commonprefix([entry.label for entry in entries])
    words = max(common.rfind(between) + 1 for between in BETWEEN_WORDS)
    if len(entries) < 2 or words < 2:
        return entries
    return [entry._replace(label="…" + entry.label[words:]) for entry in entries]


def _row(entries: Sequence[LegendEntry], label: int, value: int) -> Runs:
    runs: Runs = []
    for number, entry in enumerate(entries):
        is_last = number == len(entries) - 1
        runs.append((f"{entry.mark} ", entry.role))
        if label:
            runs.append((set_cell_size(present.shorten(entry.label, label), label) + " ", frame.QUIET))
        runs.append((entry.value if is_last else entry.value.ljust(value + GAP), frame.VALUE))
    return runs


def entries_of(scene: Scene, picture: Picture) -> list[LegendEntry]:
    """The legend: values at the cursor, or the latest ones; ≈ before smoothed ones. Of points, labels only."""
    entries = []
    for curve in scene.curves:
        label, value = present.clean(curve.line.label, LABEL_LENGTH), ""
        if scene.cursor is not None or not scene.points_only:
            index = record_at(scene, picture, curve)
            number, smoothed = (None, False) if index is None else value_of(scene, curve, index)
            value = "≈" * smoothed + (present.NOTHING if number is None else scene.show(number))
        entries.append(LegendEntry(look(curve)[0], label, value, look(curve)[1]))
    return entries


# -- the cursor: which records it stops at, what lines are worth there, and how it is drawn ----------------------------


def record_near(curves: Sequence[Curve], scale: AxisScale, x: float) -> float | None:
    """x of the record of all lines that is nearest on the screen; one within the axis, if there is any."""
    values = []
    for curve in curves:
        if (index := curve.nearest(x, scale.log)) is not None:
            part = curve.inside(scale)
            index = max(part.start, min(index, part.stop - 1)) if part.start < part.stop else index
            values.append(float(curve.x[index]))
    values = [value for value in values if not scale.log or value > 0]
    outside = {value: not scale.low <= value <= scale.high for value in values}
    return min(values, key=lambda value: (outside[value], abs(scale.position(value) - scale.position(x))), default=None)


def record_beside(curves: Sequence[Curve], x: float, right: bool) -> float | None:
    """x of the record of all lines that is next to `x` on one side; None at the end."""
    candidates = []
    for curve in curves:
        index = int(numpy.searchsorted(curve.x, x, "right")) if right else int(numpy.searchsorted(curve.x, x)) - 1
        if 0 <= index < len(curve.x):
            candidates.append(float(curve.x[index]))
    return (min(candidates) if right else max(candidates)) if candidates else None


def draw_cursor(scene: Scene, picture: Picture, curves: Sequence[Curve]) -> None:
    """A line across the plot, and each curve's mark on the record that it is nearest to."""
    column = None if scene.cursor is None else picture.column_of(scene.cursor)
    if column is None:
        return
    for row in range(picture.top, picture.top + picture.height):
        if picture.frame.chars[row, column] in (" ", frame.GRID_LINE):
            picture.frame.put(column, row, "│", frame.CURSOR)
    for curve in reversed(curves):
        index = record_at(scene, picture, curve)
        if index is not None:
            cell = picture.column_of(float(curve.x[index])), picture.row_of(value_of(scene, curve, index)[0])
            if cell[0] is not None and cell[1] is not None:
                picture.frame.put(cell[0], cell[1], *look(curve))


def record_at(scene: Scene, picture: Picture, curve: Curve) -> int | None:
    """Index of the record whose value is told: the one nearest to the cursor, or without a cursor the last."""
    if scene.cursor is None or curve.latest is None or picture.x is None:
        return curve.latest
    index = curve.nearest(scene.cursor, scene.log_x)
    first, last = (picture.x.position(float(curve.x[end])) for end in (0, -1))
    position = picture.x.position(scene.cursor)
    is_within = not position < first - SLACK and not position > last + SLACK  # a place is NaN for 0 on a log axis
    return index if is_within and not math.isnan(position) else None


def value_of(scene: Scene, curve: Curve, index: int) -> tuple[float, bool]:
    """A record's value, and whether it is a smoothed one: so it is where lines are, unless there is a gap in them."""
    if scene.smoothing and not scene.points_only:
        smoothed = float(curve.smooth(scene.smoothing, scene.log_y)[index])
        if math.isfinite(smoothed):
            return smoothed, True
    return float(curve.told[index]), False
