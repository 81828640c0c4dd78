"""Heat: a coarse grid of values as fine pixels of a colour scale, with contour lines."""

from __future__ import annotations

from lreg_tui.charts.arrays import numpy
from lreg_tui.charts.axes import Range

# viridis (van der Walt & Smith 2015): even steps of brightness, for all kinds of colour vision, and in grey
COLOURS = (  # from the least value to the greatest
    *("#440154", "#482878", "#3e4989", "#31688e", "#26828e"),
    *("#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"),
)
SHADES = "·░▒▓█"
STEPS = 48  # colours of the scale
EMPTY = -1


def span(values: numpy.ndarray, log: bool) -> Range | None:
    """Least and greatest value that can be shown; None where there is none."""
    usable = values[numpy.isfinite(values) & ((values > 0) if log else True)]
    return (float(usable.min()), float(usable.max())) if usable.size else None


def shares(values: numpy.ndarray, width: int, height: int, bounds: Range, log: bool = False) -> numpy.ndarray:
    """Places of the values on the scale, 0 to 1, between the grid's points by straight lines, [height, width].

    Row 0 of `values`, shape [rows, columns], is the lowest, row 0 of the pixels the top one. NaN beside a NaN.
    """
    with numpy.errstate(invalid="ignore", divide="ignore"):
        if log:
            values, bounds = numpy.log(values), (float(numpy.log(bounds[0])), float(numpy.log(bounds[1])))
        values = numpy.where(numpy.isfinite(values), values, numpy.nan)
        low, high = bounds
        fine = _between(_between(values, height, axis=0), width, axis=1)[::-1]
        found = (fine - low) / (high - low) if high > low else numpy.where(numpy.isnan(fine), numpy.nan, 0.5)
    return numpy.clip(found, 0.0, 1.0)


def _between(values: numpy.ndarray, count: int, axis: int) -> numpy.ndarray:
    """Values at `count` places along an axis, from its first point to its last."""
    places = numpy.linspace(0, values.shape[axis] - 1, count)
    before = numpy.minimum(places.astype(int), max(values.shape[axis] - 2, 0))
    after = numpy.minimum(before + 1, values.shape[axis] - 1)
    share = (places - before).reshape((-1, 1) if axis == 0 else (1, -1))
    left, right = values.take(before, axis), values.take(after, axis)
    return numpy.where(share == 0, left, numpy.where(share == 1, right, left + (right - left) * share))


def steps(found: numpy.ndarray) -> numpy.ndarray:
    """Which colour of the scale each pixel has; EMPTY where there is no value."""
    return numpy.where(numpy.isnan(found), EMPTY, numpy.minimum(numpy.nan_to_num(found) * STEPS, STEPS - 1)).astype(int)


def contours(found: numpy.ndarray, levels: int) -> numpy.ndarray:
    """True on pixels just above one of the `levels` - 1 evenly spaced contour levels, bool [height, width]."""
    bands = numpy.where(numpy.isnan(found), EMPTY, numpy.floor(numpy.nan_to_num(found) * levels))
    bands = numpy.minimum(bands, levels - 1)
    lines = numpy.zeros(bands.shape, dtype=bool)
    for axis in (0, 1):
        for shift in (1, -1):
            beside = numpy.roll(bands, shift, axis)
            edge = [slice(None), slice(None)]
            edge[axis] = slice(0, 1) if shift == 1 else slice(-1, None)
            beside[tuple(edge)] = bands[tuple(edge)]  # nothing lies beyond the border
            lines |= (beside >= 0) & (bands > beside)
    return lines


def shades(found: numpy.ndarray) -> list[str]:
    """Lines of characters of growing density, each for two rows of pixels; blank where there is no value."""
    cells = (found[::2] + found[1::2]) / 2
    index = numpy.minimum(numpy.nan_to_num(cells) * len(SHADES), len(SHADES) - 1).astype(int)
    chars = numpy.where(numpy.isnan(cells), " ", numpy.array(list(SHADES))[index])
    return ["".join(line) for line in chars.tolist()]


def size_of(width: int, height: int, x: Range, y: Range) -> tuple[int, int]:
    """The largest pixels across and down within so many that keep the ranges' proportion; at least two each."""
    ratio = abs(x[1] - x[0]) / abs(y[1] - y[0]) if y[1] != y[0] and x[1] != x[0] else 1.0
    across, down = min(width, round(height * ratio)), min(height, round(width / ratio))
    return max(across, 2), max(down - down % 2, 2)
