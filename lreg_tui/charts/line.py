"""Line: what a chart draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import ndarray


@dataclass(frozen=True, eq=False)
class Line:
    """One run's curve (or set of points). Arrays are float64 of one length; the label may be from strangers.

    `x` never decreases (meta-steps); `y` has gaps where it is not finite. On a time axis, `times` - `began` take the
    place of `x`: unix times (s) of the records and of the run's first one. `errors` are half-widths of intervals.
    `colour` counts through `themes.SERIES`, `marker` through `themes.MARKERS` (None: as the colour).
    """

    label: str
    x: ndarray
    y: ndarray
    colour: int = 0
    marker: int | None = None
    dim: bool = False
    times: ndarray | None = None
    began: float = 0.0
    errors: ndarray | None = None
