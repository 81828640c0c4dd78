"""Comparisons whose answers are known: power laws along the training curve, frontiers above and below."""

from __future__ import annotations

import json
import math

import pytest
from comparing import RADII, TASK, baseline, evaluation, make_run, mark, readers

from engine.base.errors import SettingsError
from engine.comparison import NORMALISED, MetricAt, collect, compare, group_arms
from engine.comparison.forms import TIDY_COLUMNS, as_json, tidy
from engine.runs.results import t_quantile

SAM = {"penalty": {"sam": {"weight": 2.0}}}
STEPS = (10, 30, 100)
SCALES = (0.2, 1.0, 2.0, 4.0)


def law(factor: float, exponent: float = 0.5, scale: float = 1.0):
    """Train loss 2 (scale t)^-exponent, a little other for each seed; sharpness factor * loss^2."""

    def figures(seed: int, step: int):
        loss = 2 * (scale * step) ** -exponent * (1 + 0.01 * seed)
        return mark(loss, factor * loss**2)

    return figures


def two_arms(root, factor: float, exponent: float = 0.5, scales=SCALES, meta_seeds=(0, 1)):
    """A vanilla arm with sharpness 3 loss^2 under scales, and one with a penalty."""
    runs = []
    for seed in meta_seeds:
        vanilla, sam = make_run(root, f"lo-s{seed}", seed=seed), make_run(root, f"sam-s{seed}", seed=seed, **SAM)
        for scale in scales:
            vanilla.write_transfer(f"x{scale}", evaluation(law(3.0, scale=scale), steps=STEPS, scale=scale))
        sam.write_transfer("best", evaluation(law(factor, exponent), steps=STEPS))
        runs += [vanilla, sam]
    return readers(*runs)


def effect(found, setting: str, name: str, radius: str | None = None):
    (wanted,) = [
        item for item in found.effects if (item.setting, item.metric.name, item.radius) == (setting, name, radius)
    ]
    return wanted


def test_an_arm_is_flatter_at_matched_loss_though_sharper_at_equal_steps(tmp_path):
    """Sharpness is 1.5 loss^2 against 3 loss^2, but the loss falls as t^-0.4 against t^-0.5: at t = 100 the loss is
    10^0.2 times as high, and so is the ratio of sharpness 10^0.4 / 2.
    """
    found = compare(two_arms(tmp_path, 1.5, 0.4))
    equal, matched, frontier = (
        effect(found, setting, "sharpness", "0.1") for setting in ("equal steps", "matched loss", "frontier")
    )
    assert equal.interval.mean == pytest.approx(10**0.4 / 2) and equal.verdict == "higher"
    for item in (matched, frontier):
        assert item.interval.mean == pytest.approx(0.5, rel=1e-12) and item.verdict == "lower"
        assert (item.interval.low, item.interval.high) == pytest.approx((0.5, 0.5), rel=1e-12)
        assert (item.interval.n, item.interval.meta_seeds, item.outside, item.left_out) == (6, 2, 0, 0)
    loss = effect(found, "equal steps", "train_loss")
    assert loss.kind == "difference" and loss.interval.mean == pytest.approx(2.02 * (100**-0.4 - 100**-0.5))
    assert not [item for item in found.effects if item.metric.name == "train_loss" and item.setting != "equal steps"]


@pytest.mark.parametrize(("factor", "word"), [(6.0, "higher"), (3.0, "unclear"), (1.0, "lower")])
def test_which_side_of_the_frontier_an_arm_lies_on(tmp_path, factor, word):
    found = compare(two_arms(tmp_path, factor, 0.45))
    for radius in RADII:
        for name in ("sharpness", "max_grad_norm"):
            item = effect(found, "frontier", name, radius)
            assert item.interval.mean == pytest.approx(factor / 3) and item.verdict == word
    assert effect(found, "frontier", "top_eigenvalue").kind == "difference"


def test_pairs_whose_loss_the_frontier_does_not_reach_are_counted(tmp_path):
    found = compare(two_arms(tmp_path, 1.5, 0.2))
    item = effect(found, "frontier", "sharpness", "0.1")
    assert (item.interval.n, item.outside, item.verdict) == (0, 6, "too few pairs")


def test_the_lowest_point_of_a_frontier_that_turns_back_counts(tmp_path):
    """Under scales 0.5, 1, 2, 4 the loss falls, falls, and rises again, while sharpness goes on falling."""
    vanilla, sam = make_run(tmp_path, "lo"), make_run(tmp_path, "sam", **SAM)
    for scale, loss, sharpness in ((0.5, 0.8, 8.0), (1, 0.4, 4.0), (2, 0.2, 2.0), (4, 0.8, 1.0)):
        figures = mark(loss, sharpness)
        vanilla.write_transfer(f"x{scale}", evaluation(lambda seed, step, now=figures: now, scale=scale))
    sam.write_transfer("best", evaluation(lambda seed, step: mark(0.4, 1.0)))
    item = effect(compare(readers(vanilla, sam)), "frontier", "sharpness", "0.1")
    assert item.interval.mean == pytest.approx(1 / math.sqrt(2.0))  # halfway from (0.2, 2) to (0.8, 1)


TURNING = ((0.5, 0.8, 8.0), (1.0, 0.4, 4.0), (2.0, 0.2, 2.0), (4.0, 0.8, 1.0))  # scale, train loss, sharpness


def against_the_frontier(root, arm: tuple[float, float], decayed=(), meta_seeds=(0, 1, 2), spread=1.0):
    """A reference whose frontier turns back at scale 2, under weight decays too, and an arm at (loss, sharpness), which
    is `spread` times as sharp with every further meta-seed.
    """
    runs = []
    for seed in meta_seeds:
        vanilla, sam = make_run(root, f"lo-s{seed}", seed=seed), make_run(root, f"sam-s{seed}", seed=seed, **SAM)
        for scale, loss, sharpness, *decay in (*TURNING, *decayed):
            figures = mark(loss, sharpness, adaptive_sharpness={"0.5": 2 * sharpness})
            facts = {"scale": scale, "weight_decay": decay[0] if decay else 0.0}
            name = "-".join(map(str, facts.values()))
            vanilla.write_transfer(name, evaluation(lambda seed, step, now=figures: now, **facts))
        sharpness = arm[1] * spread**seed
        ours = mark(arm[0], sharpness, adaptive_sharpness={"0.5": 2 * sharpness})
        sam.write_transfer("best", evaluation(lambda seed, step, now=ours: now))
        runs += [vanilla, sam]
    return compare(readers(*runs))


def test_the_regular_branch_ends_at_the_best_scale_and_the_envelope_goes_on(tmp_path):
    """At a loss of 0.4 the regular branch has sharpness 4, the overshoot sqrt 2, halfway from (0.2, 2) to (0.8, 1)."""
    found = against_the_frontier(tmp_path, (0.4, 1.0))
    assert found.best_scales == {"fmnist/mlp": (2.0, 2.0, 2.0)}
    for name, radius in (("sharpness", "0.1"), ("adaptive_sharpness", "0.5"), ("top_eigenvalue", None)):
        regular, envelope = (effect(found, setting, name, radius) for setting in ("regular frontier", "envelope"))
        assert regular.interval.mean == pytest.approx(1 / 4) and regular.verdict == "lower"
        assert envelope.interval.mean == pytest.approx(1 / math.sqrt(2.0))
        assert regular.kind == envelope.kind == "ratio" and regular.interval.n == 9
    loss = effect(found, "regular frontier", "test_loss")
    assert loss.interval.mean == pytest.approx(1.0) and loss.verdict == "unclear"
    assert not [item for item in found.effects if item.setting == "scale x weight decay"]
    assert not any("largest that was evaluated" in note for note in found.notes)


def test_the_regular_branch_is_straight_in_logarithms_and_ratios_have_intervals_over_meta_seeds(tmp_path):
    """Between (0.4, 4) and (0.2, 2) sharpness is 10 loss: at 0.3 it is 3. Ratios 1/2, 3/4, 9/8: mean 3/4 in logarithms,
    whose standard deviation is log 1.5.
    """
    found = against_the_frontier(tmp_path, (0.3, 1.5), spread=1.5)
    interval = effect(found, "regular frontier", "sharpness", "0.1").interval
    assert interval.mean == pytest.approx(0.75) and interval.over == "meta-seeds"
    half = t_quantile(2) * math.log(1.5) / math.sqrt(3)
    assert (interval.low, interval.high) == pytest.approx((0.75 * math.exp(-half), 0.75 * math.exp(half)))


@pytest.mark.parametrize(
    ("decayed", "ratio"),
    [
        (((1.0, 0.4, 0.8, 1e-3),), 1 / 0.8),  # at the loss itself
        (((1.0, 0.3, 0.9, 1e-3),), 1 / 0.9),  # at a lower loss
        (
            ((1.0, 0.5, 0.1, 1e-3), (2.0, 0.32, 1.6, 1e-3)),
            2.5,
        ),  # halfway on the line of that decay
        (((1.0, 0.8, 0.1, 1e-3),), 1 / math.sqrt(2.0)),  # at a higher loss alone: nothing beats the overshoot
    ],
)
def test_the_grid_is_as_low_as_its_lowest_point_that_trains_as_far(tmp_path, decayed, ratio):
    found = against_the_frontier(tmp_path, (0.4, 1.0), decayed)
    item = effect(found, "scale x weight decay", "sharpness", "0.1")
    assert item.interval.mean == pytest.approx(ratio) and item.interval.n == 9
    assert effect(found, "regular frontier", "sharpness", "0.1").interval.mean == pytest.approx(1 / 4), "of no decay"
    kinds = {row.label: row.kind for row in found.tables[0].rows}
    assert kinds["lo ×2"] == "scaled" and kinds["lo decay 0.001"] == "decayed"


@pytest.mark.parametrize(("loss", "settings"), [(0.1, {"regular frontier", "envelope", "scale x weight decay"})])
def test_beyond_the_frontier_nothing_is_extrapolated(tmp_path, loss, settings):
    found = against_the_frontier(tmp_path, (loss, 1.0), ((1.0, 0.3, 0.9, 1e-3),))
    for setting in settings:
        item = effect(found, setting, "sharpness", "0.1")
        assert (item.interval.mean, item.interval.n, item.outside) == (None, 0, 9) and item.is_beyond


def test_a_regular_branch_that_may_go_on_is_noted(tmp_path):
    found = compare(two_arms(tmp_path, 1.0))
    assert any("the best scale of lo is the largest that was evaluated on fmnist/mlp" in it for it in found.notes)


def test_explicit_sam_around_an_arm_is_a_row_and_no_part_of_its_frontier(tmp_path):
    runs = two_arms(tmp_path, 1.5)
    from engine.runs.store import Run

    for reader in runs:
        facts = {"sam": 0.05, "passes_per_step": 2, "label": "simple (best) sam 0.05"}
        Run(reader.path).write_transfer("sam", evaluation(law(0.01), steps=STEPS, **facts))
    found = compare(runs)
    rows = {row.label: row for row in found.tables[0].rows}
    assert [(rows[name].kind, rows[name].passes) for name in ("lo SAM 0.05", "sam SAM 0.05")] == [("sam", 200)] * 2
    assert effect(found, "envelope", "sharpness", "0.1").interval.mean == pytest.approx(0.5)
    assert rows["lo"].metrics[MetricAt("sharpness", "0.1")].mean == pytest.approx(0.012 * 1.01**2, rel=1e-3)


def test_one_scale_is_no_frontier(tmp_path):
    found = compare(two_arms(tmp_path, 1.0, scales=(1.0, 2.0)))
    assert {item.setting for item in found.effects} == {"equal steps", "matched loss"}
    assert any("no scale frontier on fmnist/mlp" in note and "lreg transfer" in note for note in found.notes)


def test_a_lone_meta_seed_is_said(tmp_path):
    found = compare(two_arms(tmp_path, 1.5, meta_seeds=(0,)))
    item = effect(found, "equal steps", "sharpness", "0.1")
    assert (item.interval.over, item.interval.meta_seeds, item.interval.n) == ("seeds", 1, 3)
    assert any("one meta-seed only: sam" in note for note in found.notes)


@pytest.mark.parametrize(("meta_seeds", "said"), [(2, True), (5, False)])
def test_few_meta_seeds_are_said(tmp_path, meta_seeds, said):
    runs = [
        make_run(tmp_path, name, seed=seed, **table)
        for name, table in (("lo", {}), ("sam", SAM))
        for seed in range(meta_seeds)
    ]
    for run in runs:
        run.write_transfer("best", evaluation(law(1.0)))
    notes = compare(readers(*runs)).notes
    assert any("fewer than 5 meta-seeds: sam" in note for note in notes) == said


def test_pairs_have_the_same_meta_seed_and_the_same_seed(tmp_path):
    """Only meta-seed 1 and seed 2 are in both; elsewhere the figures would show."""
    vanilla, sam = make_run(tmp_path, "lo-s1", seed=1), make_run(tmp_path, "sam-s1", seed=1, **SAM)
    other = make_run(tmp_path, "sam-s7", seed=7, **SAM)
    vanilla.write_transfer("best", evaluation(lambda seed, step: mark(1.0 + (seed != 2)), seeds=(1, 2)))
    sam.write_transfer("best", evaluation(lambda seed, step: mark(1.5 + (seed != 2)), seeds=(2, 3)))
    other.write_transfer("best", evaluation(lambda seed, step: mark(9.0)))
    item = effect(compare(readers(vanilla, sam, other)), "equal steps", "train_loss")
    assert (item.interval.mean, item.interval.n, item.verdict) == (0.5, 1, "too few pairs")


def test_without_a_meta_seed_in_common_they_are_paired_in_their_order(tmp_path):
    vanilla, sam = make_run(tmp_path, "lo", seed=1), make_run(tmp_path, "sam", seed=2, **SAM)
    for run, loss in ((vanilla, 1.0), (sam, 2.0)):
        run.write_transfer("best", evaluation(lambda seed, step, loss=loss: mark(loss)))
    found = compare(readers(vanilla, sam))
    assert effect(found, "equal steps", "train_loss").interval.n == 3
    assert not found.effects[0].meta_seeds_match and any("paired in their order" in note for note in found.notes)


def test_diverged_seeds_take_no_part_and_are_counted(tmp_path):
    vanilla, sam = make_run(tmp_path, "lo"), make_run(tmp_path, "sam", **SAM)
    for run, diverged in ((vanilla, ()), (sam, (1,))):
        run.write_transfer("best", evaluation(lambda seed, step: mark(1.0 + 50 * seed), diverged=diverged))
    found = compare(readers(vanilla, sam))
    item = effect(found, "equal steps", "train_loss")
    assert (item.interval.n, item.left_out) == (2, 1)
    ours = found.tables[0].rows[1]
    assert (ours.diverged, ours.seeds, ours.metrics[MetricAt("train_loss")].mean) == (1, 3, 51.0)
    assert not any("diverged" in note for note in found.notes)  # one of three is no clear difference


def test_that_an_arm_diverged_more_often_is_noted(tmp_path):
    vanilla, sam = make_run(tmp_path, "lo"), make_run(tmp_path, "sam", **SAM)
    for run, diverged in ((vanilla, ()), (sam, (0, 1))):
        run.write_transfer("best", evaluation(lambda seed, step: mark(1.0), diverged=diverged))
    notes = compare(readers(vanilla, sam)).notes
    assert any("clearly more optimizees diverged than with lo: sam on fmnist/mlp" in note for note in notes)


@pytest.fixture
def full(tmp_path):
    """One task with everything: two arms, scales, untrained, baselines of one and of two passes a step."""
    runs = two_arms(tmp_path, 1.5)
    from engine.runs.store import Run

    for reader in runs:
        run = Run(reader.path)
        facts = {"label": "simple (untrained) on fmnist/mlp", "checkpoint": "initial"}
        run.write_transfer("untrained", evaluation(lambda seed, step: mark(0.001, 1e-9), steps=(100,), **facts))
        run.write_transfer("sgd", baseline(law(2.0), steps=STEPS))
        run.write_transfer("result-sgd", baseline(law(9.0), label="sgd on fmnist/mlp", created="2026-11-19T10:00:00Z"))
        sam = baseline(lambda seed, step: mark(1 / step), "sam-sgdm", passes_per_step=2, rho=0.05, steps=(50, 100))
        run.write_transfer("sam-sgdm", sam)
    return compare(runs)


def test_a_table_has_arms_controls_and_baselines_once(full):
    (table,) = full.tables
    assert (table.task, table.inner_step, full.radius, full.radii) == ("fmnist/mlp", 100, "0.1", ("0.01", "0.1"))
    assert [(row.label, row.kind, row.seeds, row.meta_seeds, row.passes) for row in table.rows] == [
        ("lo", "arm", 6, 2, 100),
        ("sam", "arm", 6, 2, 100),
        ("lo ×0.2", "scaled", 6, 2, 100),
        ("lo ×2", "scaled", 6, 2, 100),
        ("lo ×4", "scaled", 6, 2, 100),
        ("untrained", "untrained", 6, 2, 100),
        ("sgd", "baseline", 3, 0, 100),
        ("sam-sgdm", "baseline", 3, 0, 200),
        ("sam-sgdm at equal passes", "equal passes", 3, 0, 100),
    ]
    rows = {row.label: row for row in table.rows}
    assert rows["sam-sgdm at equal passes"].metrics[MetricAt("train_loss")].mean == pytest.approx(0.02)
    assert rows["sam-sgdm"].facts.rho == 0.05
    sharpness = rows["lo"].metrics[MetricAt("sharpness", "0.01")].mean
    assert rows["lo"].metrics[MetricAt(NORMALISED, "0.01")].mean == pytest.approx(2 * sharpness / 0.01**2)
    assert rows["lo"].metrics[MetricAt("train_loss")].over == "meta-seeds"


def test_the_best_is_no_untrained_and_no_diverged_row(full):
    (table,) = full.tables
    labels = [table.rows[index].label for index in table.best(MetricAt("train_loss"))]
    assert labels == ["sam-sgdm"]  # not the untrained one, which is lower here
    assert [table.rows[index].label for index in table.best(MetricAt("test_accuracy"))] == ["sam-sgdm"]
    assert table.best(MetricAt("parameter_norm")) == frozenset()


def test_a_diverged_row_is_never_the_best(tmp_path):
    vanilla, sam = make_run(tmp_path, "lo"), make_run(tmp_path, "sam", **SAM)
    third = make_run(tmp_path, "sam-firm", penalty={"sam": {"weight": 9.0}})
    for run, loss, diverged in ((vanilla, 1.0, ()), (sam, 0.1, (2,)), (third, 2.0, ())):
        run.write_transfer("best", evaluation(lambda seed, step, loss=loss: mark(loss), diverged=diverged))
    (table,) = compare(readers(vanilla, sam, third)).tables
    assert table.best(MetricAt("train_loss")) == {0}


def test_of_equal_rows_none_is_the_best(tmp_path):
    runs = [make_run(tmp_path, "lo"), make_run(tmp_path, "sam", **SAM)]
    for run in runs:
        run.write_transfer("best", evaluation(lambda seed, step: mark(1.0)))
    (table,) = compare(readers(*runs)).tables
    assert table.best(MetricAt("train_loss")) == frozenset()


def test_untrained_optimizers_that_differ_have_a_row_each(tmp_path):
    runs = [make_run(tmp_path, "lo"), make_run(tmp_path, "sam", **SAM)]
    for run, loss in zip(runs, (1.0, 2.0), strict=True):
        facts = {"label": "simple (untrained)", "checkpoint": "initial"}
        run.write_transfer("untrained", evaluation(lambda seed, step, loss=loss: mark(loss), **facts))
    (table,) = compare(readers(*runs)).tables
    assert [row.label for row in table.rows] == ["lo (untrained)", "sam (untrained)"]


def test_the_newest_of_several_evaluations_counts(tmp_path):
    run = make_run(tmp_path, "lo")
    for name, created, loss in (("a", "2026-11-20T11:00:00Z", 2.0), ("b", "2026-11-20T09:00:00Z", 1.0)):
        run.write_transfer(name, evaluation(lambda seed, step, loss=loss: mark(loss), created=created))
    (table,) = compare(readers(run)).tables
    assert [row.metrics[MetricAt("train_loss")].mean for row in table.rows] == [2.0]


def test_radii_that_were_measured_at_another_time_stay(tmp_path):
    """Unless the probes were made otherwise, or nobody knows whether the learned optimizer is the same."""
    alike = {"inner_steps": 100, "examples": 1000, "restarts": 3, "ascent_steps": 20}
    for digest, protocol, radii in (
        ("one", alike, {"0.01", "0.1", "1"}),
        ("one", {**alike, "restarts": 1}, {"1"}),
        ("", alike, {"1"}),
    ):
        run = make_run(tmp_path, "lo")
        run.write_transfer("a", evaluation(lambda seed, step: mark(2.0), digest=digest, protocol=alike))
        facts = {"digest": digest, "protocol": protocol, "created": "2026-11-20T11:00:00Z"}
        run.write_transfer("b", evaluation(lambda seed, step: {**mark(1.0), "sharpness": {"1": 0.5}}, **facts))
        (table,) = compare(readers(run)).tables
        figures = table.rows[0].metrics
        assert {figure.radius for figure in figures if figure.name == "sharpness"} == radii
        assert figures[MetricAt("train_loss")].mean == 1.0 and figures[MetricAt("sharpness", "1")].mean == 0.5


def test_a_checkpoint_that_has_changed_since_replaces_the_old_one_at_every_step(tmp_path):
    """A run is evaluated, goes on, and is evaluated again for fewer inner steps: the old figures are another's."""
    old = {"created": "2026-11-20T09:00:00Z", "steps": (100, 1000)}
    new = {"created": "2026-11-20T11:00:00Z", "steps": (50, 100)}
    for digest, steps in (("one", {50, 100}), ("two", {50, 100, 1000})):
        run = make_run(tmp_path, "lo")
        run.write_transfer("a", evaluation(lambda seed, step: mark(2.0), digest="two", **old))
        run.write_transfer("b", evaluation(lambda seed, step: mark(1.0), digest=digest, **new))
        (task,) = collect(group_arms(readers(run)))[0].values()
        (entry,) = task.trained.values()
        assert entry.steps == steps and set(entry.outcomes[0]) == steps


def test_best_is_what_an_arm_is_judged_by(tmp_path):
    run = make_run(tmp_path, "lo")
    for checkpoint, loss in (("last", 1.0), ("best", 2.0)):
        facts = {"checkpoint": checkpoint, "label": f"simple ({checkpoint})"}
        run.write_transfer(checkpoint, evaluation(lambda seed, step, loss=loss: mark(loss), **facts))
    (table,) = compare(readers(run)).tables
    assert [(row.label, row.kind) for row in table.rows] == [("lo", "arm"), ("lo (last)", "checkpoint")]
    assert table.rows[0].metrics[MetricAt("train_loss")].mean == 2.0


def test_the_last_common_step_is_shown_or_the_wanted_one(tmp_path):
    vanilla, sam = make_run(tmp_path, "lo"), make_run(tmp_path, "sam", **SAM)
    vanilla.write_transfer("best", evaluation(law(1.0), steps=(10, 100, 1000)))
    sam.write_transfer("best", evaluation(law(1.0), steps=(10, 100)))
    assert compare(readers(vanilla, sam)).tables[0].inner_step == 100
    assert compare(readers(vanilla, sam), step=10).tables[0].inner_step == 10
    late = compare(readers(vanilla, sam), step=1000)
    assert [row.label for row in late.tables[0].rows] == ["lo"] and late.effects == ()
    assert any("not evaluated: sam" in note for note in late.notes)


def test_tasks_are_told_apart_by_what_is_unusual(tmp_path):
    run = make_run(tmp_path, "lo")
    for name, facts in (("a", {}), ("b", {"classes": [0, 1]}), ("c", {"batch_size": 64}), ("d", {"optimizee": "cnn"})):
        run.write_transfer(name, evaluation(law(1.0), task={**TASK, **facts}))
    names = ["fmnist/cnn", "fmnist/mlp", "fmnist/mlp batch_size=64", "fmnist/mlp classes=[0, 1]"]
    assert [table.task for table in compare(readers(run)).tables] == names
    assert [table.task for table in compare(readers(run), task="fmnist/mlp").tables] == names[1:]
    assert [table.task for table in compare(readers(run), task=names[2]).tables] == [names[2]]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"task": "fmnist/mlq"}, "did you mean fmnist/mlp?"),
        ({"step": 7}, "10, 30, 100"),
        ({"radius": 0.5}, "0.01, 0.1"),
    ],
)
def test_what_was_not_measured_is_refused_with_what_was(tmp_path, wanted, words):
    with pytest.raises(SettingsError) as caught:
        compare(two_arms(tmp_path, 1.0, meta_seeds=(0,)), **wanted)
    assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_radii_are_numbers_however_they_are_spelt(tmp_path):
    run = make_run(tmp_path, "lo")
    run.write_transfer("a", evaluation(lambda seed, step: {"sharpness": {"1e-2": 0.5, "x": 1, "-1": 1, "nan": 1}}))
    found = compare(readers(run), radius=0.010)
    assert found.radius == "0.01" and MetricAt("sharpness", "0.01") in found.tables[0].rows[0].metrics


def test_probes_that_were_not_made_alike_are_noted(tmp_path):
    vanilla, sam = make_run(tmp_path, "lo"), make_run(tmp_path, "sam", **SAM)
    vanilla.write_transfer("a", evaluation(law(1.0)))
    sam.write_transfer("a", evaluation(law(1.0), protocol={"examples": 77, "restarts": 3, "ascent_steps": 20}))
    assert any("probes were not made alike" in note for note in compare(readers(vanilla, sam)).notes)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        json.dumps({**evaluation(law(1.0)), "task": None}),
        json.dumps({**evaluation(law(1.0)), "task": {"dataset": 3, "optimizee": []}}),
        json.dumps({**evaluation(law(1.0)), "scale": "wide"}),
        json.dumps({**evaluation(law(1.0)), "seeds": 5}),
        json.dumps(
            {**evaluation(law(1.0)), "seeds": [None, {"seed": "a", "marks": []}, {"seed": 1, "marks": {"a": 1}}]}
        ),
        json.dumps({**evaluation(law(1.0)), "seeds": [{"seed": True, "marks": [{"inner_step": 10}]}]}),
        json.dumps(
            {**evaluation(law(1.0)), "seeds": [{"seed": 0, "marks": [{"inner_step": -1}, {"inner_step": 1.5}]}]}
        ),
    ],
)
def test_damaged_files_are_left_out_and_counted(tmp_path, content):
    run = make_run(tmp_path, "lo")
    run.write_transfer("good", evaluation(law(1.0)))
    (run.path / "transfer" / "bad.json").write_text(content)
    found = compare(readers(run))
    assert found.damaged_files == 1 and len(found.tables[0].rows) == 1


def test_odd_figures_in_a_file_make_no_trouble(tmp_path):
    odd = {"train_loss": "low", "test_loss": 10**400, "sharpness": [1], "max_grad_norm": {"0.1": None, "": 1}}
    run, other = make_run(tmp_path, "lo"), make_run(tmp_path, "sam", **SAM)
    facts = {"label": [], "optimizer": {}, "created": 5, "passes_per_step": 0, "learning_rate": "x", "protocol": 3}
    run.write_transfer("a", evaluation(lambda seed, step: odd | {"test_accuracy": True, "trace": -1e301}, **facts))
    other.write_transfer("a", evaluation(lambda seed, step: mark(0.0, -1.0)))
    other.write_transfer("b", evaluation(law(1.0), run=None, passes_per_step=10**30))
    found = compare(readers(run, other))
    assert found.tables[0].rows[0].metrics == {}
    json.dumps(as_json(found), allow_nan=False)


def test_the_end_of_meta_training_is_told(tmp_path):
    run = make_run(tmp_path, "lo", **SAM)
    with run:
        losses = [0.5, 0.3, None, 0.4]
        run.append([{"step": step, "validation_loss": loss, "diverged": 2} for step, loss in enumerate(losses)])
        run.append([{"step": step, "sam_penalty_share": 1.0 if step < 90 else 0.2} for step in range(100)])
        run.progress(100, 100, None)
        run.set_status(state="finished")
    (found,) = compare(readers(run)).runs
    assert (found.state, found.step, found.total, found.diverged) == ("finished", 100, 100, 2)
    assert (found.validation_loss, found.best_validation_loss) == (0.4, 0.3)
    assert found.penalty_shares == {"sam": pytest.approx(0.2)}


def test_runs_without_transfers_can_be_compared(tmp_path):
    found = compare(readers(make_run(tmp_path, "lo"), make_run(tmp_path, "sam", **SAM)))
    assert found.tables == found.effects == () and found.radius is None
    assert set(found.settings.differing) == {"penalty.sam.weight", "penalty.sam.rho"}


def test_the_json_says_what_the_tables_say(full):
    found = json.loads(json.dumps(as_json(full), allow_nan=False))
    (table,) = found["tables"]
    row = table["rows"][7]
    assert (row["label"], row["rho"], row["passes"]) == ("sam-sgdm", 0.05, 200) and ["train_loss"] in row["best"]
    assert set(row["figures"]["sharpness"]) == set(RADII)
    paired = [item for item in found["paired"] if item["setting"] == "frontier" and item["figure"] == "sharpness"]
    assert [item["radius"] for item in paired] == list(RADII) and all(item["verdict"] == "lower" for item in paired)
    assert all(item["low"] <= item["mean"] <= item["high"] for item in paired)


def test_the_tidy_table_has_every_figure_and_effect(full):
    rows = list(tidy(full))
    assert all(len(row) == len(TIDY_COLUMNS) for row in rows)
    own = [row for row in rows if row[0] == "table" and row[3:6] == ("lo", "sharpness", "0.1")]
    cell = full.tables[0].rows[0].metrics[MetricAt("sharpness", "0.1")]
    assert own == [
        (
            "table",
            "fmnist/mlp",
            100,
            "lo",
            "sharpness",
            "0.1",
            cell.mean,
            cell.mean - cell.ci95,
            cell.mean + cell.ci95,
            2,
        )
    ]
    assert sum(row[0].startswith("paired") for row in rows) == len(full.effects)
