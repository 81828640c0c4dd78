"""Exponential smoothing of a series, without a Python loop over its values."""

from __future__ import annotations

from lreg_tui.charts.arrays import numpy

STEPS = (0.0, 0.6, 0.9, 0.99, 0.999)
"""Weights that a key goes through: the share of the past in each smoothed value."""

CHUNK = 2**15  # values worked on at a time: they stay in the cache


def exponential(values: numpy.ndarray, weight: float, log: bool = False) -> numpy.ndarray:
    """Weighted means of all values so far, shape as `values`; `log`: of their logarithms, with gaps at 0 and less.

    s_t = Σ_j w^(t-j) v_j / Σ_j w^(t-j) over the finite v_j, j ≤ t: no bias to 0 at the start. A gap stays a gap.
    """
    smoothed, above, below = numpy.empty(len(values)), 0.0, 0.0
    for start in range(0, len(values), CHUNK):
        chunk = values[start : start + CHUNK].astype(float)
        with numpy.errstate(invalid="ignore", divide="ignore"):
            chunk = numpy.log(chunk) if log else chunk
            is_finite = numpy.isfinite(chunk)
            totals = _recurrence(numpy.where(is_finite, chunk, 0.0), weight, above)
            is_steady = is_finite.all() and abs(below * (1.0 - weight) - 1.0) < 1e-14  # the sum of all weights
            shares = numpy.array([below]) if is_steady else _recurrence(is_finite.astype(float), weight, below)
            means = numpy.where(is_finite, totals / shares, numpy.nan)
        smoothed[start : start + CHUNK] = numpy.exp(means) if log else means
        above, below = float(totals[-1]), float(shares[-1])
    return smoothed


def _recurrence(values: numpy.ndarray, weight: float, start: float) -> numpy.ndarray:
    """r_t = w r_(t-1) + v_t from r_(-1) = start, by sums over 1, 2, 4, ... values (Hillis and Steele 1986).

    No matrix product: on a busy machine the threads of a BLAS wait for each other many times as long as this takes.
    """
    sums, span = values.copy(), 1
    sums[0] += weight * start
    while span < len(sums) and (factor := weight**span):
        sums[span:] += factor * sums[:-span]
        span *= 2
    return sums
