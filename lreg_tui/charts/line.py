"""Line: what a chart draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import ndarray

    from lreg_tui.charts.growing import Elapsed


@dataclass(frozen=True, eq=False)
class Line:
    """One run's curve (or set of points). The label may be from strangers; arrays are float64 (y: or 32) of one length.

    `x` never decreases (meta-steps); `y` has gaps where it is not finite. On a time axis, `times` take the place of
    `x`: seconds since the run's first record. `errors` are half-widths of intervals.
    `colour` counts through `themes.SERIES`, `marker` through `themes.MARKERS` (None: as the colour).
    """

    label: str
    x: ndarray
    y: ndarray
    colour: int = 0
    marker: int | None = None
    dim: bool = False
    times: ndarray | Elapsed | None = None
    errors: ndarray | None = None
