"""Bootstrap intervals and crossings with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.comparison.curves import at_first_crossing, crossings
from engine.comparison.evaluations import Figure, Outcome
from engine.comparison.statistics import Cell, Interval, bootstrap, cell, verdict
from engine.results import t_quantile


def test_equal_pairs_have_an_interval_without_width():
    found = bootstrap([[0.1] * 3, [0.1] * 5])
    assert (found.low, found.high, found.n, found.meta_seeds) == (found.mean, found.mean, 8, 2)
    assert found.mean == pytest.approx(0.1, abs=1e-15)


def test_more_seeds_within_a_meta_seed_do_not_narrow_the_interval():
    """Two meta-seeds at 0 and 1: a quarter of the resamples has one of them twice, so the interval is [0, 1]."""
    for seeds in (1, 100):
        found = bootstrap([[0.0] * seeds, [1.0] * seeds])
        assert (found.mean, found.low, found.over) == (0.5, 0.0, "meta-seeds")
        assert found.high == pytest.approx(1.0, abs=1e-12)


def test_the_meta_seed_is_the_unit_of_the_mean():
    assert bootstrap([[0.0] * 9, [1.0]]).mean == 0.5


def test_seeds_within_a_meta_seed_are_resampled_as_well():
    """Both meta-seeds have the same mean; the spread within is what is left. Var = (1/2) (1/100) = 0.005."""
    found = bootstrap([[-1.0, 1.0] * 50, [-1.0, 1.0] * 50])
    assert found.mean == 0.0
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(0.005), rel=0.05)


@pytest.mark.parametrize("n", [100, 1000])  # weights that are kept, and weights that come in portions
def test_one_meta_seed_resamples_its_seeds(n):
    values = np.random.default_rng(1).normal(3.0, 2.0, n)
    found = bootstrap([[], values.tolist()])
    spread = 1.96 * values.std() / math.sqrt(n)
    assert (found.over, found.meta_seeds, found.n) == ("seeds", 1, n)
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - spread, values.mean() + spread), abs=0.08 * spread)
    assert found == bootstrap([values.tolist()])


def test_no_pairs_no_interval():
    assert bootstrap([[], []]) == Interval(None, None, None, 0, 0, "seeds")


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


def outcomes(*values: float, diverged: bool = False) -> dict[int, Outcome]:
    return {seed: Outcome(diverged, {Figure("train_loss"): value}) for seed, value in enumerate(values)}


def test_a_cell_takes_meta_seeds_as_the_unit_where_there_are_two():
    """Means 2 and 4 of two meta-seeds: 3 ± t(1) * sqrt(2) / sqrt(2)."""
    found = cell({0: outcomes(1.0, 3.0), 1: outcomes(4.0)}, Figure("train_loss"))
    assert found == Cell(3.0, pytest.approx(t_quantile(1) * 1.0), 2, "meta-seeds")
    alone = cell({0: outcomes(1.0, 3.0), 1: outcomes(9.0, diverged=True)}, Figure("train_loss"))
    assert alone == Cell(2.0, pytest.approx(t_quantile(1) * 1.0), 2, "seeds")
    assert cell({0: outcomes(1.0)}, Figure("test_loss")) == Cell(None, None, 0, "seeds")


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
