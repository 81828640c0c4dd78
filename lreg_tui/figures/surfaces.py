"""Loss landscapes side by side: one colour scale and the same contour lines for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.figures.landscapes import LandscapePanel
from lreg_tui.figures.axes import plain, shown
from lreg_tui.figures.style import ONE_COLUMN, SURFACE_COLORS, TWO_COLUMNS
from lreg_tui.text import present

if TYPE_CHECKING:
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import FigureBase

LEVELS = 14
SIDE = {1: 3.0, 2: 3.0, 3: 2.15}  # inches of a panel's height, by panels side by side
LARGEST_RATIO = 100.0  # of the colour scale; the rest is beyond it


def surfaces_size(panels: Sequence[LandscapePanel]) -> tuple[float, float]:
    """Width and height that the landscapes take, inches."""
    columns = _columns(panels)
    return ONE_COLUMN if columns == 1 else TWO_COLUMNS, -(-len(panels) // columns) * SIDE[columns]


def draw_surfaces(part: FigureBase, panels: Sequence[LandscapePanel]) -> None:
    """All landscapes side by side, and the colour scale. To be called within `page.styled`."""
    from matplotlib.colors import LogNorm

    columns = _columns(panels)
    levels = shared_levels(panels)
    norm = LogNorm(levels[0], levels[-1])
    grid = part.add_gridspec(-(-len(panels) // columns), columns)
    drawn = []
    for number, panel in enumerate(panels):
        axes = part.add_subplot(grid[divmod(number, columns)])
        filled = _draw(axes, panel, levels, norm)
        axes.set_xlabel("first direction" if number + columns >= len(panels) else "")
        axes.set_ylabel("second direction" if number % columns == 0 else "")
        drawn.append(axes)
    _draw_scale(part.colorbar(filled, ax=drawn, shrink=0.9, aspect=30, pad=0.02, ticks=levels[::2]))


def _draw_scale(bar: Colorbar) -> None:
    from matplotlib.ticker import FuncFormatter

    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(float(f"{value:.2g}"))))
    bar.ax.minorticks_off()
    bar.set_label("train loss")


def _columns(panels: Sequence[LandscapePanel]) -> int:
    return 2 if len(panels) in (2, 4) else min(len(panels), 3)


def shared_levels(panels: Sequence[LandscapePanel]) -> list[float]:
    """Losses of the contour lines, evenly spaced in the logarithm, from the least loss of all panels."""
    there = [value for panel in panels for row in panel.landscape.losses for value in row if math.isfinite(value)]
    low = max(min(there, default=1.0), 1e-6)
    high = max(min(max(there, default=1.0), LARGEST_RATIO * low), 1.01 * low)
    return [low * (high / low) ** (number / (LEVELS - 1)) for number in range(LEVELS)]


def _draw(axes: Any, panel: LandscapePanel, levels: Sequence[float], norm: Any) -> Any:
    import numpy as np
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    found = panel.landscape
    losses = np.ma.masked_invalid(np.asarray(found.losses)).clip(levels[0], None)
    filled = axes.contourf(found.offsets, found.offsets, losses, levels, norm=norm, cmap=SURFACE_COLORS, extend="max")
    axes.contour(found.offsets, found.offsets, losses, levels, colors="white", linewidths=0.35, alpha=0.7)
    axes.plot([0], [0], marker="+", color="white", markersize=6, mew=1.0, linestyle="none")
    axes.set_box_aspect(1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
        axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axes.grid(False)
    axes.spines[:].set_visible(True)
    axes.set_title(f"{shown(panel.title)}\n{figures_of(panel)}", loc="left", linespacing=1.3)
    return filled


def figures_of(panel: LandscapePanel) -> str:
    """The numbers of a panel: train loss in the middle, sharpness where it was measured, test accuracy."""
    found = panel.landscape
    words = f"train loss {present.number(found.train_loss, 3)}, test acc. {present.percent(found.test_accuracy)}"
    if panel.sharpness is None:
        return words
    return f"{words}\nsharpness at {shown(panel.radius)}: {present.number(panel.sharpness, 3)}"
