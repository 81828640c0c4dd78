"""Exponential smoothing of a series, without a Python loop over its values."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import ndarray

STEPS = (0.0, 0.6, 0.9, 0.99, 0.999)
"""Weights that a key goes through: the share of the past in each smoothed value."""

BLOCK = 32  # values that are summed by one row of a matrix
CHUNK = 2**15  # values worked on at a time: they stay in the cache


def exponential(values: ndarray, weight: float, log: bool = False) -> ndarray:
    """Weighted means of all values so far, shape as `values`; `log`: of their logarithms, with gaps at 0 and less.

    s_t = Σ_j w^(t-j) v_j / Σ_j w^(t-j) over the finite v_j, j ≤ t: no bias to 0 at the start. A gap stays a gap.
    """
    import numpy

    smoothed, above, below = numpy.empty(len(values)), 0.0, 0.0
    for start in range(0, len(values), CHUNK):
        chunk = values[start : start + CHUNK].astype(float)
        with numpy.errstate(invalid="ignore", divide="ignore"):
            chunk = numpy.log(chunk) if log else chunk
            is_finite = numpy.isfinite(chunk)
            totals = _recurrence(numpy.where(is_finite, chunk, 0.0), weight, above)
            is_steady = is_finite.all() and abs(below * (1.0 - weight) - 1.0) < 1e-15  # the sum of all weights
            shares = numpy.array([below]) if is_steady else _recurrence(is_finite.astype(float), weight, below)
            means = numpy.where(is_finite, totals / shares, numpy.nan)
        smoothed[start : start + CHUNK] = numpy.exp(means) if log else means
        above, below = float(totals[-1]), float(shares[-1])
    return smoothed


def _recurrence(values: ndarray, weight: float, start: float) -> ndarray:
    """r_t = w r_(t-1) + v_t from r_(-1) = start: whole blocks by a matrix, their ends by this same function."""
    import numpy

    length = len(values)
    if length <= BLOCK:
        sums = numpy.empty(length)
        for index, value in enumerate(values.tolist()):
            start = sums[index] = weight * start + value
        return sums
    padded = numpy.zeros(-(-length // BLOCK) * BLOCK)
    padded[:length] = values
    ages = numpy.arange(BLOCK)[:, None] - numpy.arange(BLOCK)
    within = padded.reshape(-1, BLOCK) @ numpy.where(ages >= 0, float(weight) ** abs(ages), 0.0).T
    ends = _recurrence(within[:, -1], float(weight) ** BLOCK, start)
    before = numpy.concatenate(([start], ends[:-1]))
    return (within + before[:, None] * float(weight) ** numpy.arange(1, BLOCK + 1)).reshape(-1)[:length]
