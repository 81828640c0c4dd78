"""One pair of axes: lines with bands or bars, points with intervals, ticks in plain text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.figures import Axis, Line, Panel, Point
from engine.figures.base import ARM
from lreg_tui.figures.style import Look, look_of
from lreg_tui.text import present

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
LABEL_LENGTH = 48
MOST_MARKERS = 12  # on a line; each of more points could not be seen
SMALL = 5.5  # points, of notes
FEW, BAND, FAINT_BAND = 3, 0.18, 0.09  # opacity of bands, where there are up to a few and where there are more


def shown(text: str) -> str:
    """Text from strangers on one line."""
    return present.clean(text, LABEL_LENGTH)


def draw(axes: Axes, panel: Panel) -> None:
    """Fill the axes with a panel."""
    axes.set_title(shown(panel.title), loc="left")
    axes.set_xlabel(present.label(panel.x.name, panel.x.radius))
    axes.set_ylabel(shown(panel.y.label) if panel.y.label else present.label(panel.y.name, panel.y.radius))
    for line in reversed(panel.lines):  # so that arms lie above baselines, and the reference above all
        _draw_line(axes, line, BAND if len(panel.lines) <= FEW else FAINT_BAND)
    for point in reversed(panel.points):
        _draw_point(axes, point)
    for axis, which in ((panel.x, "x"), (panel.y, "y")):
        _set_scale(axes, axis, which)


def _draw_line(axes: Axes, line: Line, opacity: float) -> None:
    look = look_of(line.who)
    above = 4 if line.who.kind == ARM else 3
    has_marks = line.bars or len(line.x) <= MOST_MARKERS
    dash = {"linestyle": line.dash} if line.dash else {}
    axes.plot(line.x, line.y, zorder=above, **look.line | (look.mark if has_marks else {}) | dash)
    if line.bars:
        _bars(axes, line.x, line.y, line.low, line.high, look.color, above)
    elif line.low != line.high:
        axes.fill_between(line.x, line.low, line.high, color=look.color, alpha=opacity, linewidth=0, zorder=2)
    for x, y, note in zip(line.x, line.y, line.notes, strict=False):
        _write_note(axes, x, y, note)
    _mark_breaks(axes, line, look)


def _mark_breaks(axes: Axes, line: Line, look: Look) -> None:
    """On the edge of the axes: where a value could not be drawn, with a word at the first of each kind."""
    kinds: dict[tuple[str, str, float], list[float]] = {}  # word, marker and height
    for x, value in line.breaks:
        word = "too large" if math.isfinite(value) else f"{value:g}"
        kind = (word, "x", 0.0) if math.isnan(value) else (word, "^", 1.0) if value > 0 else (word, "v", 0.0)
        kinds.setdefault(kind, []).append(x)
    along_x = axes.get_xaxis_transform()
    style: dict[str, Any] = {"linestyle": "none", "markersize": 3, "color": look.color, "clip_on": False, "zorder": 6}
    for (word, marker, edge), places in kinds.items():
        axes.plot(places, [edge] * len(places), transform=along_x, marker=marker, **style)
        beside: dict[str, Any] = {"xycoords": along_x, "textcoords": "offset points", "fontsize": SMALL}
        axes.annotate(word, (places[0], edge), (3, -7 if edge else 3), color=look.color, zorder=7, **beside)


def _write_note(axes: Axes, x: float, y: float, note: str) -> None:
    """A word beside a point, with a white rim, so that it can be read upon lines."""
    from matplotlib.patheffects import withStroke

    rim = [withStroke(linewidth=1.5, foreground="white")]
    axes.annotate(note, (x, y), (3, 3), textcoords="offset points", fontsize=SMALL, zorder=7, path_effects=rim)


def _draw_point(axes: Axes, point: Point) -> None:
    look = look_of(point.who)
    above = 5 if point.who.kind == ARM else 3
    if point.cloud and point.who.kind == ARM:
        x, y = zip(*point.cloud, strict=True)
        axes.plot(
            x, y, linestyle="none", marker=look.marker, markersize=2.2, color=look.color, alpha=0.25, mew=0, zorder=2
        )
    (x0, x_low, x_high), (y0, y_low, y_high) = point.x, point.y
    _bars(axes, [x0], [y0], [y_low], [y_high], look.color, above)
    _bars(axes, [x0], [y0], [x_low], [x_high], look.color, above, along="x")
    axes.plot([x0], [y0], linestyle="none", zorder=above, **look.mark)


def _bars(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    color: str,
    above: int,
    along: str = "y",
) -> None:
    """Interval bars from low to high around (x, y)."""
    middle = y if along == "y" else x
    ends = [
        [max(m - a, 0.0) for m, a in zip(middle, low, strict=True)],
        [max(b - m, 0.0) for m, b in zip(middle, high, strict=True)],
    ]
    if not any(map(any, ends)):
        return
    errors: dict[str, Any] = {"yerr" if along == "y" else "xerr": ends}
    axes.errorbar(x, y, **errors, fmt="none", ecolor=color, elinewidth=0.7, capsize=1.5, capthick=0.7, zorder=above)


def _set_scale(axes: Axes, axis: Axis, which: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    ours = axes.xaxis if which == "x" else axes.yaxis
    if axis.scale != "log":
        ours.set_major_locator(MaxNLocator(5))
        ours.set_major_formatter(
            FuncFormatter(lambda value, _: percent(value) if axis.unit == "share" else plain(value))
        )
        return
    (axes.set_xscale if which == "x" else axes.set_yscale)("log", nonpositive="clip")
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    decades = math.log10(high / low) if 0 < low < high else 1.0
    if decades > 0.65:
        subs = (1.0,) if decades > 1.7 else (1.0, 2.0, 5.0)
        ours.set_major_locator(LogLocator(subs=subs, numticks=8))
    else:
        ours.set_major_locator(MaxNLocator(3 if which == "x" else 4, steps=[1, 2, 5, 10]))
        ours.set_minor_locator(NullLocator())
    ours.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    ours.set_minor_formatter(NullFormatter())


def plain(value: float) -> str:
    """A tick in plain text: 0.01, 200, 10⁻⁵, 2×10⁻⁵."""
    if value == 0 or not math.isfinite(value):
        return "0"
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    if -4 <= exponent <= 4:
        return f"{value:.6g}".replace("-", "−")
    factor = f"{value / 10.0**exponent:.3g}"
    power = f"10{str(exponent).translate(SUPERSCRIPTS)}"
    return power if factor == "1" else f"{factor}×{power}".replace("-", "−", 1)


def percent(value: float) -> str:
    return f"{100 * value:.4g}%"
