"""One pair of axes: lines with bands or bars, points with intervals, ticks in plain text; and how all of it looks.

Colours are those that colour-blind people tell apart, and shapes tell them apart without colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.figures import Axis, Line, Panel, Point
from engine.figures.base import ARM, UNTRAINED, Who
from lreg_tui.text import present

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito, without their yellow, which is lost on white paper; the reference is black
ARM_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREYS = ("#555555", "#8a8a8a", "#b0b0b0")
ARM_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
BASELINE_MARKERS = ("x", "+", "1", "2", "3", "4", "*", "|", "_", "<", ">")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
UNTRAINED_DASH = (0, (1, 2))
SURFACE_COLORS = "cividis"

ONE_COLUMN, TWO_COLUMNS = 3.4, 7.0  # inches
PANEL_HEIGHTS = {1: 2.5, 2: 2.4, 3: 1.95}  # inches, by panels side by side

RC: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same everywhere
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.6,
    "legend.frameon": False,
    "text.usetex": False,
    "text.parse_math": False,  # labels are text from strangers: a $ is a $
    "pdf.fonttype": 42,  # TrueType, as journals ask for
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "lreg",  # the same file every time
    "savefig.dpi": 300,
}

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
LABEL_LENGTH = 48
MOST_MARKERS = 12  # on a line; each of more points could not be seen
SMALL = 5.5  # points, of notes
FEW, BAND, FAINT_BAND = 3, 0.18, 0.09  # opacity of bands, where there are up to a few and where there are more


@dataclass(frozen=True)
class SeriesStyle:
    color: str
    marker: str
    dash: Any
    width: float
    is_filled: bool
    size: float = 3.6  # of the marker, points

    @property
    def line(self) -> dict[str, Any]:
        return {"color": self.color, "linewidth": self.width, "linestyle": self.dash}

    @property
    def mark(self) -> dict[str, Any]:
        fill = self.color if self.is_filled else "white"
        shape = {"marker": self.marker, "markersize": self.size, "markerfacecolor": fill}
        return {**shape, "color": self.color, "markeredgewidth": 0.8}


def look_of(who: Who) -> SeriesStyle:
    """Arms in colour with filled markers, untrained ones dotted and hollow, baselines thin and grey."""
    number = who.number
    if who.kind in (ARM, UNTRAINED):
        color, marker = ARM_COLORS[number % len(ARM_COLORS)], ARM_MARKERS[number % len(ARM_MARKERS)]
        if who.kind == ARM:
            return SeriesStyle(color, marker, DASHES[number % len(DASHES)], 1.3, True)
        return SeriesStyle(color, marker, UNTRAINED_DASH, 1.0, False)
    marker = BASELINE_MARKERS[number % len(BASELINE_MARKERS)]
    return SeriesStyle(GREYS[number % len(GREYS)], marker, DASHES[number % len(DASHES)], 0.8, True, 4.6)


def shown(text: str) -> str:
    """Text from strangers on one line."""
    return present.clean(text, LABEL_LENGTH)


def draw(axes: Axes, panel: Panel) -> None:
    axes.set_title(shown(panel.title), loc="left")
    axes.set_xlabel(present.label(panel.x.name, panel.x.radius))
    axes.set_ylabel(shown(panel.y.label) if panel.y.label else present.label(panel.y.name, panel.y.radius))
    for line in reversed(panel.lines):  # so that arms lie above baselines, and the reference above all
        _draw_line(axes, line, BAND if len(panel.lines) <= FEW else FAINT_BAND)
    for point in reversed(panel.points):
        _draw_point(axes, point)
    for axis, letter in ((panel.x, "x"), (panel.y, "y")):
        _set_scale(axes, axis, letter)


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


def _mark_breaks(axes: Axes, line: Line, look: SeriesStyle) -> None:
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
    middle = y if along == "y" else x
    ends = [
        [max(m - a, 0.0) for m, a in zip(middle, low, strict=True)],
        [max(b - m, 0.0) for m, b in zip(middle, high, strict=True)],
    ]
    if not any(map(any, ends)):
        return
    errors: dict[str, Any] = {"yerr" if along == "y" else "xerr": ends}
    axes.errorbar(x, y, **errors, fmt="none", ecolor=color, elinewidth=0.7, capsize=1.5, capthick=0.7, zorder=above)


def _set_scale(axes: Axes, axis: Axis, letter: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    ours = axes.xaxis if letter == "x" else axes.yaxis
    if axis.scale != "log":
        ours.set_major_locator(MaxNLocator(5))
        ours.set_major_formatter(
            FuncFormatter(lambda value, _: percent(value) if axis.unit == "share" else plain(value))
        )
        return
    (axes.set_xscale if letter == "x" else axes.set_yscale)("log", nonpositive="clip")
    low, high = axes.get_xlim() if letter == "x" else axes.get_ylim()
    decades = math.log10(high / low) if 0 < low < high else 1.0
    if decades > 0.65:
        subs = (1.0,) if decades > 1.7 else (1.0, 2.0, 5.0)
        ours.set_major_locator(LogLocator(subs=subs, numticks=8))
    else:
        ours.set_major_locator(MaxNLocator(3 if letter == "x" else 4, steps=[1, 2, 5, 10]))
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
