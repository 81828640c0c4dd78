"""Means over seeds and bootstrap intervals of paired differences. The meta-seed is the unit of resampling."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from engine.comparison.evaluations import Figure, Outcome
from engine.results import CONFIDENCE, mean

if TYPE_CHECKING:
    from numpy import ndarray

RESAMPLES = 10_000
SEED = 20261121  # of the resampling: the same table every time
FEWEST_PAIRS = 5  # with fewer an interval says nothing: at 3, one in four of no difference at all would be a verdict
ROUNDING = 1e-12  # relative difference that comes from arithmetic alone
META_SEEDS, SEEDS = "meta-seeds", "seeds"
KEPT_PAIRS = 400  # up to so many, the weights of the resamples are kept for the next figure


@dataclass(frozen=True)
class Cell:
    """A mean and the half-width of its 95% t-interval, over the means of n meta-seeds or over n optimizee seeds."""

    mean: float | None
    ci95: float | None
    n: int
    over: str


@dataclass(frozen=True)
class Interval:
    """A mean over n pairs with its 95% bootstrap interval (None where there are no pairs).

    `over` says what was resampled: meta-seeds and the optimizee seeds within, or, with one meta-seed, these alone.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    meta_seeds: int
    over: str


def cell(outcomes: Mapping[Any, Mapping[int, Outcome]], figure: Figure) -> Cell:
    """The mean of a figure over the optimizees that did not diverge, by meta-seed and optimizee seed."""
    values = [
        [outcome.figures[figure] for outcome in seeds.values() if not outcome.diverged and figure in outcome.figures]
        for seeds in outcomes.values()
    ]
    groups = [group for group in values if group]
    several = len(groups) > 1
    found = mean([mean(group).mean for group in groups] if several else [value for group in groups for value in group])
    return Cell(found.mean, found.ci95, found.n, META_SEEDS if several else SEEDS)


def bootstrap(groups: Sequence[Sequence[float]]) -> Interval:
    """The mean over meta-seeds of the means over their pairs, with a hierarchical percentile bootstrap interval.

    `groups`: the paired values of each meta-seed. Meta-seeds are drawn with replacement, then pairs within each of
    those drawn.
    """
    groups = [group for group in groups if group]
    counts = tuple(len(group) for group in groups)
    over = META_SEEDS if len(groups) > 1 else SEEDS
    if not groups:
        return Interval(None, None, None, 0, 0, over)
    import numpy as np

    middle = math.fsum(math.fsum(group) / len(group) for group in groups) / len(groups)
    values = np.concatenate([np.asarray(group, dtype=np.float64) for group in groups]) - middle
    means = np.concatenate([weights @ values for weights in _weights(counts)])
    tail = (1 - CONFIDENCE) / 2
    noise = ROUNDING * max(abs(value) for group in groups for value in group)
    ends = [middle + float(end) for end in np.quantile(means, [tail, 1 - tail])]
    low, high = (0.0 if abs(end) <= noise else end for end in ends)  # no verdict comes from rounding
    return Interval(middle, low, high, sum(counts), len(groups), over)


def _weights(counts: tuple[int, ...]) -> Iterator[ndarray]:
    """The weight of every pair in every resample, [resamples, pairs], in portions that fit into memory."""
    import numpy as np

    pairs = sum(counts)
    if pairs <= KEPT_PAIRS:
        yield _kept_weights(counts)
        return
    rng = np.random.default_rng(SEED)
    portion = max(1, RESAMPLES * KEPT_PAIRS // pairs)
    for first in range(0, RESAMPLES, portion):
        yield _draw(counts, min(portion, RESAMPLES - first), rng)


@lru_cache(maxsize=8)
def _kept_weights(counts: tuple[int, ...]) -> ndarray:
    import numpy as np

    return _draw(counts, RESAMPLES, np.random.default_rng(SEED))


def _draw(counts: tuple[int, ...], resamples: int, rng: Any) -> ndarray:
    import numpy as np

    groups, pairs = len(counts), sum(counts)
    offsets = np.cumsum([0, *counts[:-1]])
    drawn = rng.integers(0, groups, size=(resamples, groups))  # the meta-seed in every place of every resample
    weights = np.zeros(resamples * pairs)
    for place in range(groups):
        for group, count in enumerate(counts):
            rows = np.flatnonzero(drawn[:, place] == group)
            within = rng.integers(0, count, size=(len(rows), count))
            positions = (rows[:, None] * pairs + offsets[group] + within).ravel()
            weights += np.bincount(positions, minlength=len(weights)) / (groups * count)
    return weights.reshape(resamples, pairs)


def verdict(interval: Interval, nothing: float) -> str:
    """lower, higher, unclear (the interval includes `nothing`, the value of no difference) or too few pairs."""
    if interval.low is None or interval.high is None or interval.n < FEWEST_PAIRS:
        return "too few pairs"
    if interval.high < nothing:
        return "lower"
    return "higher" if interval.low > nothing else "unclear"
