"""Means over seeds, and t-intervals of paired differences: over meta-seeds wherever there are several.

A percentile bootstrap over so few meta-seeds is too narrow (where nothing differs, one verdict in three or four at 2 of
them, one in seven at 5); Student's t keeps its 5%.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any

from engine.runs.evaluations import MetricAt, OptimizeeOutcome
from engine.runs.results import mean, t_quantile

FEWEST_PAIRS = 5  # of one or two meta-seeds: with fewer an interval rests on next to nothing
FEWEST_META_SEEDS = 3  # for the spread over meta-trainings to be seen at all
ROUNDING = 1e-12  # relative difference that comes from arithmetic alone
POWER = 0.8  # chance of finding what is there
META_SEEDS, SEEDS, BOTH = "meta-seeds", "seeds", "meta-seeds and seeds"
Values = Mapping[Any, Mapping[int, float]]
"""By meta-seed and optimizee seed."""


@dataclass(frozen=True)
class Interval:
    """A mean over n pairs with its 95% t-interval (None where there is nothing to tell a spread by).

    `over` says what the interval is over: the means of meta-seeds; optimizee seeds, where there is one meta-seed, so
    that it says nothing about others; or the wider of both, against a baseline. `p`: of the two-sided t-test.
    `detectable`: the smallest difference that as many units of this spread find in 80% of all cases; of a ratio, as a
    factor above 1.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    meta_seeds: int
    over: str
    p: float | None = None
    detectable: float | None = None

    @property
    def ci95(self) -> float | None:
        """The half-width."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def units(self) -> int:
        """How many means of meta-seeds, or values of optimizees, it is over."""
        return self.meta_seeds if self.meta_seeds > 1 else self.n


def values_of(outcomes: Mapping[Any, Mapping[int, OptimizeeOutcome]], at: MetricAt) -> dict[Any, dict[int, float]]:
    """A metric of the optimizees that did not diverge, by meta-seed and optimizee seed."""
    return {
        meta_seed: {
            seed: outcome.metrics[at]
            for seed, outcome in seeds.items()
            if not outcome.diverged and at in outcome.metrics
        }
        for meta_seed, seeds in outcomes.items()
    }


def interval_of(outcomes: Mapping[Any, Mapping[int, OptimizeeOutcome]], at: MetricAt) -> Interval:
    """The mean of a metric over the optimizees that did not diverge, by meta-seed and optimizee seed."""
    return t_interval(values_of(outcomes, at))


def t_interval(values: Values, *, one_opponent: bool = False) -> Interval:
    """The mean over meta-seeds of the means over their optimizees, with its 95% t-interval.

    Over the means of meta-seeds; of one meta-seed, over its optimizees. `one_opponent`: differences from an optimizer
    that has no meta-seeds. How it did on an optimizee is then part of the difference of every meta-seed, so the
    interval is the wider of those over the means of meta-seeds and over the means of optimizees.
    """
    groups = [dict(group) for group in values.values() if group]
    by_meta_seed = [fmean(group.values()) for group in groups]
    optimizees = dict.fromkeys(seed for group in groups for seed in group)
    by_optimizee = [fmean(group[seed] for group in groups if seed in group) for seed in optimizees]
    several = len(groups) > 1
    over = (BOTH if one_opponent else META_SEEDS) if several else SEEDS
    units = ([by_meta_seed] if several else []) + ([by_optimizee] if one_opponent or not several else [])
    pairs = sum(map(len, groups))
    if not groups:
        return Interval(None, None, None, 0, 0, over)
    middle = fmean(by_meta_seed)
    if min(map(len, units)) < 2:
        return Interval(middle, None, None, pairs, len(groups), over)
    noise = ROUNDING * max(abs(value) for group in groups for value in group.values())
    half = max(mean(unit).ci95 or 0.0 for unit in units)
    low, high = (0.0 if abs(end) <= noise else end for end in (middle - half, middle + half))  # not from rounding
    p = max(_p_value(middle, unit) for unit in units) if abs(middle) > noise else 1.0
    return Interval(middle, low, high, pairs, len(groups), over, p, max(map(detectable, units)))


def _p_value(middle: float, unit: Sequence[float]) -> float:
    """Of no difference, two-sided."""
    from scipy.special import stdtr

    error = _standard_error(unit)
    return 2 * float(stdtr(len(unit) - 1, -abs(middle) / error)) if error else 0.0


def _standard_error(unit: Sequence[float]) -> float:
    average, n = fmean(unit), len(unit)
    return math.sqrt(math.fsum((value - average) ** 2 for value in unit) / (n - 1) / n)


def detectable(unit: Sequence[float]) -> float:
    """The smallest mean that a two-sided t-test at 5% finds with 80% power among so many values with their spread.

    The noncentrality parameter of Student's t for that power, times the standard error (Cohen 1988, ch. 2). The other
    tail, in which the test errs about the sign, is left out: it holds less than 1e-4 from three values on.
    """
    return _noncentrality(len(unit) - 1) * _standard_error(unit)


@cache
def _noncentrality(degrees_of_freedom: int) -> float:
    from scipy.special import nctdtrinc

    return float(nctdtrinc(degrees_of_freedom, 1 - POWER, t_quantile(degrees_of_freedom)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, corrected for their number (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def verdict(interval: Interval, nothing: float) -> str:
    """lower, higher, unclear (the interval includes `nothing`, the value of no difference) or too few pairs."""
    is_thin = interval.n < FEWEST_PAIRS and interval.meta_seeds < FEWEST_META_SEEDS
    if interval.low is None or interval.high is None or is_thin:
        return "too few pairs"
    if interval.high < nothing:
        return "lower"
    return "higher" if interval.low > nothing else "unclear"
