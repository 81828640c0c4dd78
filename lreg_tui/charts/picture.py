"""Picture: a whole chart as a frame. A pure function of what is to be shown, to be tested without a screen."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lreg_tui.charts import frame, marks
from lreg_tui.charts.arrays import numpy
from lreg_tui.charts.axes import AxisScale, Range, power, round_out, ticks, usable
from lreg_tui.charts.curve import Curve
from lreg_tui.charts.frame import Frame, Picture, Scene
from lreg_tui.system.keys import key_of
from lreg_tui.text import present

LOWEST_WITH_LABELS = 5  # lines of a chart that has room for the labels of the x axis
LEGEND_ROWS = ((24, 3), (14, 2), (8, 1))  # height of a chart from which the legend may take so many lines
BESIDE = 0.03  # share of a log axis that is left free beside the first and the last point
NOTHING_YET = "no data yet"
NARROWEST_TICKS = 8  # columns from one label of the x axis to the next
LONGEST_NAME = 6  # of an x axis, beside its labels; a longer one stands in the head


def paint(scene: Scene) -> Picture:
    picture = Picture(Frame(scene.width, scene.height))
    filled = [curve for curve in scene.curves if not curve.is_empty]
    full = full_x(filled, scene.log_x, scene.points_only, scene.x_unit)
    if full is not None:
        whole, picture.newest = AxisScale(*full[0], scene.log_x), full[1]
        chosen = usable(scene.view.x and scene.view.shown_x(whole.ends, whole.at(full[1])), scene.log_x)
        picture.full_x, picture.x = whole.ends, whole if chosen is None else AxisScale.between(chosen, scene.log_x)
        picture.y = y_scale(scene, filled, picture.x)
    picture.top = _write_head(scene, picture)
    has_labels = scene.height >= LOWEST_WITH_LABELS
    picture.height = max(scene.height - picture.top - has_labels, 0)
    if picture.x is None or picture.y is None:
        _say_nothing(scene, picture)
        return picture
    if picture.height:
        _write_axes(scene, picture, has_labels)
        marks.draw(scene, picture, filled)
        marks.draw_cursor(scene, picture, filled)
        _write_left_out(scene, picture, filled)
    return picture


def full_x(curves: Sequence[Curve], log: bool, exact: bool = False, unit: str = "count") -> tuple[Range, float] | None:
    """The range of the x axis that holds all records, and the greatest x; None where there are none."""
    values = [curve.x[curve.x.searchsorted(0.0, "right") :] if log else curve.x for curve in curves]
    values = [x for x in values if len(x)]
    if not values:
        return None
    low, high = float(min(x[0] for x in values)), float(max(x[-1] for x in values))
    if exact and log and low < high:
        bottom, top = math.log10(low), math.log10(high)
        beyond = BESIDE * (top - bottom)
        return (power(bottom - beyond), power(top + beyond)), high
    return (low, high) if log and low < high else round_out(low, high, log, 20, unit), high


def y_scale(scene: Scene, curves: Sequence[Curve], x: AxisScale) -> AxisScale | None:
    """The chosen range, or one around all that lies within the x axis; None where nothing can be shown."""
    if (chosen := usable(scene.view.y, scene.log_y)) is not None:
        return AxisScale.between(chosen, scene.log_y)
    ranges = [y_range for curve in curves if (y_range := _seen(scene, curve, x)) is not None]
    if not ranges:
        return None
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    return AxisScale(*round_out(low, high, scene.log_y, unit=scene.unit), scene.log_y)


def _seen(scene: Scene, curve: Curve, x: AxisScale) -> Range | None:
    """Least and greatest value of a curve within the x axis."""
    if scene.points_only:
        low, high = marks.ends(curve, curve.inside(x), scene.log_y)
    else:
        whole = curve.spans(x, 1, scene.log_y)
        low, high = (10.0**part if scene.log_y else part for part in (whole.low, whole.high))
    low, high = low[numpy.isfinite(low)], high[numpy.isfinite(high)]
    return (float(low.min()), float(high.max())) if len(low) else None


# -- text around the plot ----------------------------------------------------------------------------------------------


def _write_head(scene: Scene, picture: Picture) -> int:
    """Title, latest values, legend and settings; returns the line at which the plot begins."""
    canvas, status = picture.frame, _status(scene, picture)
    title = present.shorten(present.clean(scene.title, 200), max(scene.width - 2, 0))
    canvas.put(0, 0, title, frame.FOCUSED if scene.focused else frame.TITLE)
    beside, below = _lay_out_legend(scene, picture, marks.cell_len(title) + 2 * bool(title), _length(status))
    used = _put_runs(canvas, marks.cell_len(title) + 2 * bool(title), 0, beside) + 2
    for number, row in enumerate(below):
        _put_runs(canvas, 0, 1 + number, row)
    while status and used + _length(status) > scene.width:
        status.pop()
    x = scene.width - _length(status)
    for text, role in status:
        canvas.put(x, 0, text, role)
        x += marks.cell_len(text) + 2
    return 1 + len(below)


def _lay_out_legend(scene: Scene, picture: Picture, left: int, right: int) -> tuple[marks.Runs, list[marks.Runs]]:
    """The legend beside the title, where all of it fits between `left` and `right` columns, or below it."""
    entries = marks.entries_of(scene, picture)
    if len(entries) == 1:  # the title says what it is
        return [(entries[0].value, frame.VALUE)], []
    most = next((rows for height, rows in LEGEND_ROWS if scene.height >= height), 0)
    below = marks.lay_out(entries, scene.width, most)
    beside = marks.lay_out(entries, scene.width - left - 2 - right, 1, whole=bool(below))
    return (beside[0], []) if beside else ([], below)


def _put_runs(canvas: Frame, x: int, y: int, runs: marks.Runs) -> int:
    for text, role in runs:
        canvas.put(x, y, text, role)
        x += marks.cell_len(text)
    return x


def _length(status: marks.Runs) -> int:
    return sum(marks.cell_len(text) + 2 for text, _ in status) - 2 if status else 0


def _status(scene: Scene, picture: Picture) -> marks.Runs:
    """What is not as usual, the most telling first."""
    parts: marks.Runs = []
    if scene.cursor is not None and picture.column_of(scene.cursor) is not None:
        parts.append((f"{scene.x_name} {scene.show_x(scene.cursor)}", frame.CURSOR))
    if breaks := _breaks(scene.curves):
        parts.append((breaks, frame.VALUE))
    if scene.view.following:
        parts.append(("newest", frame.QUIET))
    elif scene.view.x is not None or scene.view.y is not None:
        parts.append((f"zoomed, {key_of('all')}: all", frame.VALUE))
    logs = [name for name, log in (("x", scene.log_x), ("y", scene.log_y)) if log]
    if logs:
        parts.append(("log " + " ".join(logs), frame.QUIET))
    if scene.smoothing:
        parts.append((f"smooth {scene.smoothing:g}", frame.QUIET))
    if len(scene.x_name) > LONGEST_NAME:
        parts.append((f"by {present.clean(scene.x_name, 40)}", frame.QUIET))
    return parts


def _breaks(curves: Sequence[Curve]) -> str:
    """How many values there are that cannot be drawn, in words: where training diverged it is said, to its end."""
    if not curves:
        return ""
    values = numpy.concatenate([curve.told[curve.breaks] for curve in curves])
    are = {"nan": numpy.isnan(values), "inf": numpy.isposinf(values), "-inf": numpy.isneginf(values)}
    are["too large"] = numpy.isfinite(values)
    counts = {word: int(numpy.count_nonzero(places)) for word, places in are.items()}
    return " ".join(f"{count:,} {word}" for word, count in counts.items() if count)


def _say_nothing(scene: Scene, picture: Picture) -> None:
    """One quiet line in place of the plot."""
    has_data = any(not curve.is_empty for curve in scene.curves)
    records = any(len(curve.x) for curve in scene.curves)
    message = "nothing above 0 for a log axis" if has_data else "no finite values" if records else NOTHING_YET
    y = picture.top + max(scene.height - picture.top - 1, 0) // 2
    picture.frame.put(max((scene.width - len(message)) // 2, 0), min(y, scene.height - 1), message, frame.QUIET)


def _write_axes(scene: Scene, picture: Picture, has_labels: bool) -> None:
    """Levels with their labels and lines; below the plot, where there is room, the labels of x."""
    assert picture.x is not None and picture.y is not None
    levels = ticks(picture.y, max(picture.height // 3, 2), scene.unit)
    name = len(scene.x_name) if len(scene.x_name) <= LONGEST_NAME else 0
    picture.left = min(max([len(tick.label) for tick in levels] + [name]) + 1, scene.width // 2)
    picture.width = scene.width - picture.left
    for tick in levels:
        if (row := picture.row_of(tick.value)) is not None:
            picture.frame.put(0, row, tick.label.rjust(picture.left - 1), frame.QUIET)
            picture.frame.fill(picture.left, row, picture.width, frame.GRID_LINE, frame.GRID)
    if has_labels:
        _write_x_labels(scene, picture)


def _write_x_labels(scene: Scene, picture: Picture) -> None:
    assert picture.x is not None
    row, free = scene.height - 1, 0
    if len(scene.x_name) < picture.left:
        picture.frame.put(0, row, scene.x_name.rjust(picture.left - 1), frame.FAINT)
        free = picture.left
    for tick in ticks(picture.x, picture.width // NARROWEST_TICKS, scene.x_unit):
        column = picture.column_of(tick.value)
        if column is None:
            continue
        start = min(max(column - len(tick.label) // 2, free), scene.width - len(tick.label))
        if start >= free:
            picture.frame.put(start, row, tick.label, frame.QUIET)
            free = start + len(tick.label) + 2


def _write_left_out(scene: Scene, picture: Picture, curves: Sequence[Curve]) -> None:
    """Say in the corner how many values a log axis leaves out."""
    count = sum(curve.left_out(scene.log_y) for curve in curves)
    if count:
        message = f"{count:,} point{'s' * (count != 1)} <= 0 hidden"
        if len(message) <= picture.width:
            line = picture.top + any(len(curve.breaks) for curve in curves)  # marks of these are on the edge
            picture.frame.put(scene.width - len(message), line, message, frame.QUIET)
