"""How figures look: colours that colour-blind people tell apart, and shapes that tell them apart without colour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.figures.base import ARM, UNTRAINED, Who

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


@dataclass(frozen=True)
class Look:
    """How one optimizer is drawn."""

    color: str
    marker: str
    dash: Any
    width: float
    is_filled: bool
    size: float = 3.6  # of the marker, points

    @property
    def line(self) -> dict[str, Any]:
        """As matplotlib draws it."""
        return {"color": self.color, "linewidth": self.width, "linestyle": self.dash}

    @property
    def mark(self) -> dict[str, Any]:
        fill = self.color if self.is_filled else "white"
        shape = {"marker": self.marker, "markersize": self.size, "markerfacecolor": fill}
        return {**shape, "color": self.color, "markeredgewidth": 0.8}


def look_of(who: Who) -> Look:
    """Arms in colour with filled markers, untrained ones dotted and hollow, baselines thin and grey."""
    number = who.number
    if who.kind in (ARM, UNTRAINED):
        color, marker = ARM_COLORS[number % len(ARM_COLORS)], ARM_MARKERS[number % len(ARM_MARKERS)]
        if who.kind == ARM:
            return Look(color, marker, DASHES[number % len(DASHES)], 1.3, True)
        return Look(color, marker, UNTRAINED_DASH, 1.0, False)
    marker = BASELINE_MARKERS[number % len(BASELINE_MARKERS)]
    return Look(GREYS[number % len(GREYS)], marker, DASHES[number % len(DASHES)], 0.8, True, 4.6)
