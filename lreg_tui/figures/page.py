"""A page of panels as a file: PNG, SVG or PDF, the same bytes every time."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from engine.base.errors import LregError, printable
from engine.base.files import write_atomic
from engine.base.metrics import headline
from engine.figures import Block, Panel, Who
from engine.figures.base import whose
from engine.figures.landscapes import LandscapePanel
from lreg_tui.figures import axes
from lreg_tui.figures.axes import ONE_COLUMN, PANEL_HEIGHTS, RC, SURFACE_COLORS, TWO_COLUMNS, look_of
from lreg_tui.text import present

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase

FORMATS = ("png", "svg", "pdf")
LEGEND_ROW = 0.165  # inches
SPACING: dict[str, Any] = {"w_pad": 0.06, "h_pad": 0.06, "wspace": 0.02, "hspace": 0.02}  # inches, and parts of a panel
MOST_SIDE_BY_SIDE = 3
LEVELS = 14
SIDE = {1: 3.0, 2: 3.0, 3: 2.15}  # inches of a panel's height, by panels side by side
LARGEST_RATIO = 100.0  # of the colour scale; the rest is beyond it
# what would tell when, or with which release, a file was made
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
DESCRIPTION = {"png": "Description", "svg": "Description", "pdf": "Subject"}


def check_path(path: Path) -> str:
    """The format that a file's name asks for. Raises LregError where it is none of ours or cannot be written."""
    path_text = printable(str(path))
    kind = path.suffix[1:].lower()
    if kind not in FORMATS:
        raise LregError(f"-o: found {path_text!r}; allowed: a file name ending in .{', .'.join(FORMATS)}")
    if not os.path.isdir(path.parent):
        raise LregError(f"{path_text}: there is no folder {printable(str(path.parent))}")
    if os.path.isdir(path):
        raise LregError(f"{path_text}: a folder, should be a file")
    return kind


@contextmanager
def styled() -> Iterator[None]:
    """matplotlib in our style, whatever the user's own settings are; they come back at the end."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # text from strangers: it shows as a box
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(cast(Any, RC))
        yield


def draw_page(blocks: Sequence[Block], surfaces: Sequence[LandscapePanel] = ()) -> Figure:
    """Figures on one page: panels, a legend below them, and below that landscapes. To be called within `styled`."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    sizes = [panels_size(blocks)] if blocks else []
    if surfaces:
        across = _surface_columns(surfaces)
        width = ONE_COLUMN if across == 1 else TWO_COLUMNS
        sizes.append((width, -(-len(surfaces) // across) * SIDE[across]))
    width, heights = max(width for width, _ in sizes), [height for _, height in sizes]
    figure = Figure(figsize=(width, sum(heights)), layout=ConstrainedLayoutEngine(**SPACING))
    parts: list[Any] = [figure]
    if len(sizes) == 2:
        parts = list(figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0])
    if blocks:
        draw_panels(parts[0], blocks, width)
    if surfaces:
        draw_surfaces(parts[-1], surfaces)
    return figure


def panels_size(blocks: Sequence[Block]) -> tuple[float, float]:
    """Width and height that the panels and their legend take, inches."""
    columns = side_by_side(blocks)
    rows = 1 + max(row for block in _places(blocks, columns) for row, _ in block)
    width = ONE_COLUMN if columns == 1 else TWO_COLUMNS
    people = whose(panels_in(blocks))
    legend_rows = -(-len(people) // _legend_columns(people, width))
    return width, rows * PANEL_HEIGHTS[columns] + legend_rows * LEGEND_ROW + 0.1


def draw_panels(part: FigureBase, blocks: Sequence[Block], width: float) -> None:
    columns = side_by_side(blocks)
    cells = [cell for block in _places(blocks, columns) for cell in block]
    panels = panels_in(blocks)
    grid = part.add_gridspec(1 + max(row for row, _ in cells), columns)
    for (row, column), panel in zip(cells, panels, strict=True):
        axes.draw(part.add_subplot(grid[row, column]), panel)
    people = whose(panels)
    add_legend(part, people, _legend_columns(people, width))


def panels_in(blocks: Sequence[Block]) -> list[Panel]:
    return [panel for block in blocks for panel in block.panels]


def _places(blocks: Sequence[Block], columns: int) -> list[list[tuple[int, int]]]:
    return arrange([len(block.panels) for block in blocks], columns)


def side_by_side(blocks: Sequence[Block]) -> int:
    """Panels in a row: two where figures have two or four panels, else up to three."""
    counts = [len(block.panels) for block in blocks]
    if sum(counts) <= MOST_SIDE_BY_SIDE:
        return sum(counts)
    tasks = max(counts)
    return 2 if tasks in (2, 4) and counts.count(tasks) > len(counts) / 2 else MOST_SIDE_BY_SIDE


def arrange(counts: Sequence[int], columns: int) -> list[list[tuple[int, int]]]:
    """Row and column of each panel of each figure: a figure goes on in a row only where it fits in there whole."""
    places, at = [], 0
    for count in counts:
        left = -at % columns
        if left < count:
            at += left
        places.append([divmod(index, columns) for index in range(at, at + count)])
        at += count
    return places


def add_legend(part: FigureBase, people: Sequence[Who], columns: int) -> None:
    from matplotlib.lines import Line2D

    if not people:
        return
    handles = [Line2D([], [], **look_of(who).line | look_of(who).mark) for who in people]
    legend = part.legend(
        handles,
        ["x"] * len(people),
        loc="outside lower center",
        ncols=columns,
        handlelength=2.8,
        columnspacing=1.6,
        labelspacing=0.35,
    )
    for text, who in zip(legend.get_texts(), people, strict=True):
        text.set_text(axes.shown(who.label))  # not as label: matplotlib drops those that begin with _


def _legend_columns(people: Sequence[Who], width: float) -> int:
    """As many as fit, by the length of the longest label."""
    longest = max((len(axes.shown(who.label)) for who in people), default=1)
    return max(1, min(len(people), int(width / (0.062 * longest + 0.55))))


def draw_surfaces(part: FigureBase, panels: Sequence[LandscapePanel]) -> None:
    """All landscapes side by side, and the colour scale. To be called within `styled`."""
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FuncFormatter

    columns = _surface_columns(panels)
    levels = shared_levels(panels)
    norm = LogNorm(levels[0], levels[-1])
    grid = part.add_gridspec(-(-len(panels) // columns), columns)
    drawn = []
    for number, panel in enumerate(panels):
        plot = part.add_subplot(grid[divmod(number, columns)])
        filled = _draw_surface(plot, panel, levels, norm)
        plot.set_xlabel("first direction" if number + columns >= len(panels) else "")
        plot.set_ylabel("second direction" if number % columns == 0 else "")
        drawn.append(plot)
    bar = part.colorbar(filled, ax=drawn, shrink=0.9, aspect=30, pad=0.02, ticks=levels[::2])
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: axes.plain(float(f"{value:.2g}"))))
    bar.ax.minorticks_off()
    bar.set_label("train loss")


def _surface_columns(panels: Sequence[LandscapePanel]) -> int:
    return 2 if len(panels) in (2, 4) else min(len(panels), 3)


def shared_levels(panels: Sequence[LandscapePanel]) -> list[float]:
    """Losses of the contour lines, evenly spaced in the logarithm, from the least loss of all panels."""
    losses = [value for panel in panels for row in panel.landscape.losses for value in row if math.isfinite(value)]
    low = max(min(losses, default=1.0), 1e-6)
    high = max(min(max(losses, default=1.0), LARGEST_RATIO * low), 1.01 * low)
    return [low * (high / low) ** (number / (LEVELS - 1)) for number in range(LEVELS)]


def _draw_surface(plot: Any, panel: LandscapePanel, levels: Sequence[float], norm: Any) -> Any:
    import numpy as np
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    surface = panel.landscape
    losses = np.ma.masked_invalid(np.asarray(surface.losses)).clip(levels[0], None)
    filled = plot.contourf(
        surface.offsets, surface.offsets, losses, levels, norm=norm, cmap=SURFACE_COLORS, extend="max"
    )
    plot.contour(surface.offsets, surface.offsets, losses, levels, colors="white", linewidths=0.35, alpha=0.7)
    plot.plot([0], [0], marker="+", color="white", markersize=6, mew=1.0, linestyle="none")
    plot.set_box_aspect(1)
    for axis in (plot.xaxis, plot.yaxis):
        axis.set_major_locator(MaxNLocator(4))
        axis.set_major_formatter(FuncFormatter(lambda value, _: axes.plain(value)))
    plot.grid(False)
    plot.spines[:].set_visible(True)
    plot.set_title(f"{axes.shown(panel.title)}\n{figures_of(panel)}", loc="left", linespacing=1.3)
    return filled


def figures_of(panel: LandscapePanel) -> str:
    """The numbers of a panel: train loss in the middle, sharpness where it was measured, test accuracy."""
    landscape = panel.landscape
    judged = headline(f"test_{name}" for name in landscape.test)
    value = present.metric(judged.name, landscape.test[judged.name.removeprefix("test_")])
    words = f"train loss {present.number(landscape.train_loss, 3)}, {judged.words} {value}"
    if panel.sharpness is None:
        return words
    return f"{words}\nsharpness at {axes.shown(panel.radius)}: {present.number(panel.sharpness, 3)}"


def save(figure: Figure, path: Path, caption: str) -> None:
    """Write the file whole or not at all. To be called within `styled`. Raises LregError where it cannot be written."""
    data = rendered(figure, check_path(path), caption)
    try:
        write_atomic(path, data)
    except OSError as error:
        raise LregError(f"{printable(str(path))}: cannot be written: {error.strerror or error}") from None


def rendered(figure: Figure, kind: str, caption: str) -> bytes:
    """The bytes of a file. To be called within `styled`."""
    data = io.BytesIO()
    figure.savefig(data, format=kind, metadata={**METADATA[kind], DESCRIPTION[kind]: printable(caption)})
    return data.getvalue()


def draw_one(block: Block, path: Path) -> None:
    """Draw one figure of a study's report into a file. Raises LregError where it cannot be written."""
    with styled():
        save(draw_page([block]), path, block.caption)
