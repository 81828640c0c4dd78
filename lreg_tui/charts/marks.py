"""What lies in the plot: lines, points, intervals and markers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from lreg_tui.charts import frame
from lreg_tui.charts.arrays import numpy
from lreg_tui.charts.axes import LARGEST, AxisScale
from lreg_tui.charts.curve import Curve
from lreg_tui.charts.plot import Picture, Scene
from lreg_tui.widgets.themes import MARKERS, SERIES

APART = 18  # columns from one marker of a line to its next
FEW = 6  # columns for each record: with more room than that, every record is marked
ABOVE, BELOW, NOWHERE = "↑", "↓", "×"  # on the edge: a value beyond all axes, or none at all
MOST_GLYPHS = 400  # points drawn as glyphs; more of them are dots


def look(curve: Curve) -> tuple[str, int]:
    """Glyph and role of a line."""
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
    glyph, role = look(curve)
    if scene.points_only and len(curve.y) > MOST_GLYPHS:
        _draw_dots(scene, picture, curve, role)
    elif scene.points_only or _is_sparse(picture, curve):
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


def _is_sparse(picture: Picture, curve: Curve) -> bool:
    assert picture.x is not None
    part = curve.inside(picture.x)
    return (part.stop - part.start) * FEW <= picture.width


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
