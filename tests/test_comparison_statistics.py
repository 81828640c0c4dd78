"""Intervals and crossings with known answers, and how often verdicts are wrong where nothing differs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.comparison import MetricAt, OptimizeeOutcome
from engine.comparison.paired import at_first_crossing, crossings, exponential
from engine.comparison.statistics import Interval, detectable, holm, interval_of, t_interval, verdict
from engine.runs.results import t_quantile


def test_equal_pairs_have_an_interval_without_width():
    found = t_interval(by_seed([[0.1] * 3, [0.1] * 5]))
    assert (found.n, found.meta_seeds) == (8, 2) and found.p < 1e-9
    assert (found.low, found.mean, found.high) == pytest.approx((0.1, 0.1, 0.1), abs=1e-12)


def test_the_interval_is_over_the_means_of_meta_seeds():
    """Means 0, 1, 2: 1 ± t(2) * 1 / sqrt(3), however many optimizees each has; n of one does not weigh more."""
    for counts in ((1, 1, 1), (100, 100, 100), (1, 9, 3)):
        found = t_interval(by_seed([[float(value)] * count for value, count in enumerate(counts)]))
        half = t_quantile(2) / math.sqrt(3)
        assert (found.mean, found.low, found.high) == pytest.approx((1.0, 1 - half, 1 + half))
        assert (found.over, found.meta_seeds, found.n) == ("meta-seeds", 3, sum(counts))


def test_of_one_meta_seed_the_interval_is_over_its_optimizees():
    values = np.random.default_rng(1).normal(3.0, 2.0, 100)
    found = t_interval({0: {}, 1: dict(enumerate(values.tolist()))})
    half = t_quantile(99) * values.std(ddof=1) / 10
    assert (found.over, found.meta_seeds, found.n) == ("seeds", 1, 100)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half))


def test_against_one_opponent_the_wider_of_two_intervals_counts():
    """Rows differ by 0.1, columns by 1: over two meta-seeds it is 12.7 * 0.05, over three optimizees 4.3 / 1.7."""
    rows = by_seed([[0.0, 1.0, 2.0], [0.1, 1.1, 2.1]])
    wide, narrow = t_interval(rows, one_opponent=True), t_interval(rows)
    assert (narrow.high - narrow.mean, narrow.over) == (pytest.approx(t_quantile(1) * 0.05), "meta-seeds")
    assert (wide.high - wide.mean, wide.over) == (pytest.approx(t_quantile(2) / math.sqrt(3)), "meta-seeds and seeds")
    assert narrow.p < 0.05 < wide.p
    alone = t_interval(by_seed([[0.0, 1.0, 2.0]]), one_opponent=True)
    assert (alone.high - alone.mean, alone.over) == (pytest.approx(t_quantile(2) / math.sqrt(3)), "seeds")


@pytest.mark.parametrize(("effect", "units"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_power_is_that_of_published_tables(effect, units):
    """Pairs for 80% power at 5%, two-sided, by effect in standard deviations (Cohen 1988; G*Power 3: 199, 34, 15)."""

    def of(count: int) -> float:
        """The smallest effect found among so many values of standard deviation 1."""
        values = np.linspace(-1, 1, count)
        return detectable((values / values.std(ddof=1)).tolist())

    assert of(units) <= effect < of(units - 1)


def test_what_is_detectable_is_found_in_four_of_five_studies():
    """Five meta-seeds drawn again and again, at the difference that their true spread lets be found."""
    draws = np.random.default_rng(0).standard_normal((4000, 5))
    effect = detectable([-1.0, -1.0, 0.0, 1.0, 1.0])
    intervals = [t_interval({seed: {0: effect + value} for seed, value in enumerate(row)}) for row in draws]
    assert np.mean([interval.low > 0 for interval in intervals]) == pytest.approx(0.8, abs=0.02)


def test_of_ratios_the_detectable_one_is_a_factor():
    logs = {seed: {0: value} for seed, value in enumerate((-0.1, 0.0, 0.1))}
    found = exponential(t_interval(logs))
    assert found.detectable == pytest.approx(math.exp(detectable([-0.1, 0.0, 0.1])))


def test_without_a_spread_there_is_no_interval():
    assert t_interval(by_seed([[], []])) == Interval(None, None, None, 0, 0, "seeds")
    assert t_interval(by_seed([[0.5]])) == Interval(0.5, None, None, 1, 1, "seeds")
    assert t_interval(by_seed([[0.5], [0.7]]), one_opponent=True).low is None  # one optimizee: nothing of others


def test_p_values_and_intervals_agree():
    rng = np.random.default_rng(3)
    for one_opponent in (False, True):
        for _ in range(200):
            found = t_interval(by_seed(rng.normal(0.6, 1.0, (4, 5)).tolist()), one_opponent=one_opponent)
            assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


TRIALS = 3000  # the standard error of a share of 5% is 0.4%


@pytest.mark.parametrize("between", [1.0, 3.0])
@pytest.mark.parametrize("meta_seeds", [2, 3, 5])
def test_where_nothing_differs_verdicts_are_as_rare_as_they_say(meta_seeds, between):
    """Paired by meta-seed. A hierarchical bootstrap says lower or higher in up to 35% (2), 23% (3), 17% (5)."""
    rng = np.random.default_rng([meta_seeds, int(between)])
    own = rng.normal(0.0, math.sqrt(2 * between), (TRIALS, meta_seeds, 1))
    pairs = own + rng.normal(0.0, math.sqrt(2), (TRIALS, meta_seeds, 5))
    assert 0.035 < false_verdicts(pairs, one_opponent=False) < 0.065


@pytest.mark.parametrize("between", [1.0, 3.0])
@pytest.mark.parametrize("meta_seeds", [2, 3, 5])
def test_one_opponent_is_no_more_than_its_own_optimizees(meta_seeds, between):
    """A baseline has five optimizees, whatever the number of meta-seeds that each of them is paired with."""
    rng = np.random.default_rng([meta_seeds, int(between), 1])
    own = rng.normal(0.0, math.sqrt(between), (TRIALS, meta_seeds, 1)) + rng.normal(0.0, 1.0, (TRIALS, meta_seeds, 5))
    baseline = rng.normal(0.0, math.sqrt(between), (TRIALS, 1, 5)) + rng.normal(0.0, 1.0, (TRIALS, 1, 5))
    assert false_verdicts(own - baseline, one_opponent=True) < 0.07


def false_verdicts(trials: np.ndarray, one_opponent: bool) -> float:
    """Share of the trials, each [meta-seeds, optimizees], that say lower or higher."""
    words = [verdict(t_interval(by_seed(pairs), one_opponent=one_opponent), 0.0) for pairs in trials.tolist()]
    return sum(word in ("lower", "higher") for word in words) / len(words)


def by_seed(groups: list[list[float]]) -> dict[int, dict[int, float]]:
    return {meta_seed: dict(enumerate(group)) for meta_seed, group in enumerate(groups)}


def test_holm_corrects_for_the_number_of_tests():
    """0.01 * 4, then 0.02 * 3, then 0.03 * 2, never less than the one before."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


@pytest.mark.parametrize(
    ("low", "high", "n", "word"),
    [
        (-2.0, -1.0, 5, "lower"),
        (1.0, 2.0, 5, "higher"),
        (-1.0, 1.0, 5, "unclear"),
        (0.0, 0.0, 5, "unclear"),
        (-1.0, 0.0, 5, "unclear"),
        (-2.0, -1.0, 2, "too few pairs"),
        (None, None, 0, "too few pairs"),
    ],
)
def test_the_verdict_needs_an_interval_that_excludes_no_difference(low, high, n, word):
    assert verdict(Interval(low, low, high, n, 1, "seeds"), 0.0) == word


def outcomes(*values: float, diverged: bool = False) -> dict[int, OptimizeeOutcome]:
    return {seed: OptimizeeOutcome(diverged, {MetricAt("train_loss"): value}) for seed, value in enumerate(values)}


def test_a_metric_has_meta_seeds_as_its_units_where_there_are_two():
    """Means 2 and 4 of two meta-seeds: 3 ± t(1) * sqrt(2) / sqrt(2)."""
    both = interval_of({0: outcomes(1.0, 3.0), 1: outcomes(4.0)}, MetricAt("train_loss"))
    assert (both.mean, both.ci95) == pytest.approx((3.0, t_quantile(1) * 1.0))
    assert (both.units, both.over) == (2, "meta-seeds")
    alone = interval_of({0: outcomes(1.0, 3.0), 1: outcomes(9.0, diverged=True)}, MetricAt("train_loss"))
    assert (alone.mean, alone.ci95) == pytest.approx((2.0, t_quantile(1) * 1.0))
    assert (alone.units, alone.over) == (2, "seeds")
    assert interval_of({0: outcomes(1.0)}, MetricAt("test_loss")).ci95 is None


def power_law(losses: list[float]) -> list[tuple[float, float]]:
    return [(loss, 3 * loss**1.7) for loss in losses]


def test_power_laws_are_interpolated_exactly():
    curve = power_law([2.0, 0.9, 0.3])
    for loss in (2.0, 1.3, 0.9, 0.5, 0.3):
        assert at_first_crossing(curve, loss) == pytest.approx(3 * loss**1.7, rel=1e-12)


def test_a_curve_that_does_not_reach_the_loss_has_no_figure_there():
    assert at_first_crossing(power_law([2.0, 0.9]), 0.8) is None
    assert at_first_crossing(power_law([2.0, 0.9]), 2.1) is None  # it was passed before the first mark
    assert at_first_crossing([(0.5, 1.0), (2.0, 2.0), (0.4, 3.0)], 1.0) is None
    assert at_first_crossing([], 1.0) is None


def test_the_first_crossing_counts():
    curve = [(2.0, 10.0), (0.5, 7.0), (2.0, 5.0), (0.5, 1.0)]
    assert at_first_crossing(curve, 0.5) == 7.0
    assert at_first_crossing([(2.0, 10.0), (2.0, 5.0), (1.0, 1.0)], 2.0) == 10.0
    assert at_first_crossing([(2.0, 10.0)], 2.0) == 10.0


def test_every_crossing_is_found_in_both_directions():
    assert list(crossings([(2.0, 10.0), (0.5, 7.0), (2.0, 5.0)], 2.0)) == [10.0, 5.0]
    assert list(crossings([(1.0, 4.0), (4.0, 1.0)], 2.0)) == [pytest.approx(2.0)]


def test_figures_that_are_not_positive_and_losses_that_are_neighbours():
    assert at_first_crossing([(4.0, -1.0), (1.0, 1.0)], 2.0) == pytest.approx(0.0)
    below = math.nextafter(math.nextafter(1.0, 0.0), 0.0)
    assert at_first_crossing([(1.0, 3.0), (below, 5.0)], math.nextafter(1.0, 0.0)) in (3.0, pytest.approx(4.0, abs=1.1))
    assert at_first_crossing([(1e300, 1e290), (1e-300, 1e-290)], 1.0) == pytest.approx(1.0)
