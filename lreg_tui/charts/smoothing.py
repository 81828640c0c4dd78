"""Exponential smoothing of a growing series, without a Python loop over its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import ndarray

STEPS = (0.0, 0.6, 0.9, 0.99, 0.999)
"""Weights that a key goes through: the share of the past in each smoothed value."""

BLOCK = 64  # values that are summed by one row of a matrix
CHUNK = 2**15  # values worked on at a time: they stay in the cache

UnrollState = tuple[float, float]
START: UnrollState = (0.0, 0.0)


def exponential(
    values: ndarray, weight: float, carry: UnrollState = START, out: ndarray | None = None
) -> tuple[ndarray, UnrollState]:
    """Weighted means of all values so far, shape as `values`, and what the next call needs to go on from there.

    `out` takes the means, where it is given.
    s_t = Σ_j w^(t-j) v_j / Σ_j w^(t-j) over the finite v_j, j ≤ t: no bias to 0 at the start. A gap stays a gap.
    """
    return _by_chunks(lambda chunk: chunk, values, weight, carry, out)


def _by_chunks(
    prepare: Callable[[ndarray], ndarray], values: ndarray, weight: float, carry: UnrollState, out: ndarray | None
) -> tuple[ndarray, UnrollState]:
    import numpy

    smoothed = numpy.empty(len(values)) if out is None else out
    for start in range(0, len(values), CHUNK):
        chunk = slice(start, start + CHUNK)
        smoothed[chunk], carry = _chunk(prepare(values[chunk].astype(float)), weight, carry)
    return smoothed, carry


def _chunk(values: ndarray, weight: float, carry: UnrollState) -> tuple[ndarray, UnrollState]:
    import numpy

    known = numpy.isfinite(values)
    total, above = _recurrence(numpy.where(known, values, 0.0), weight, carry[0])
    if known.all() and abs(carry[1] * (1.0 - weight) - 1.0) < 1e-15:  # the sum of all weights: it grows no more
        return total / carry[1], (above, carry[1])
    share, below = _recurrence(known.astype(float), weight, carry[1])
    with numpy.errstate(invalid="ignore", divide="ignore"):
        return numpy.where(known, total / share, numpy.nan), (above, below)


def in_log_space(
    values: ndarray, weight: float, carry: UnrollState = START, out: ndarray | None = None
) -> tuple[ndarray, UnrollState]:
    """As `exponential`, with the mean of the logarithms: what a straight line on a log axis needs. 0 and less: gaps."""
    import numpy

    with numpy.errstate(invalid="ignore", divide="ignore"):
        smoothed, carry = _by_chunks(numpy.log, values, weight, carry, out)
    return numpy.exp(smoothed, out=smoothed), carry


def _recurrence(values: ndarray, weight: float, start: float) -> tuple[ndarray, float]:
    """r_t = w r_(t-1) + v_t from r_(-1) = start: whole blocks by a matrix, their ends by this same function."""
    import numpy

    length = len(values)
    if length <= BLOCK:
        found = numpy.empty(length)
        for index, value in enumerate(values.tolist()):
            start = found[index] = weight * start + value
        return found, float(start)
    padded = numpy.zeros(-(-length // BLOCK) * BLOCK)
    padded[:length] = values
    ages = numpy.arange(BLOCK)[:, None] - numpy.arange(BLOCK)
    within = padded.reshape(-1, BLOCK) @ numpy.where(ages >= 0, float(weight) ** abs(ages), 0.0).T
    ends, _ = _recurrence(within[:, -1], float(weight) ** BLOCK, start)
    before = numpy.concatenate(([start], ends[:-1]))
    found = (within + before[:, None] * float(weight) ** numpy.arange(1, BLOCK + 1)).reshape(-1)[:length]
    return found, float(found[-1])
