"""Which runs are one arm, what it is called, and what differs between arms."""

from __future__ import annotations

import pytest
from comparing import make_run, readers

from engine.comparison import controls, group_arms, reference_arm, settings_table
from engine.runs import notes

SAM = {"penalty": {"sam": {"weight": 2.0}}}


def arms_of(*runs):
    return group_arms(readers(*runs))


def test_runs_that_differ_in_their_seed_only_are_one_arm(tmp_path):
    first = make_run(tmp_path, "lo-s0", seed=0)
    second = make_run(tmp_path, "lo-s1", seed=1, description="another", threads=1, tags=["x"])
    third = make_run(tmp_path, "lo-sam-s0", seed=0, **SAM)
    arms = arms_of(first, third, second)
    assert [(arm.label, [run.meta_seed for run in arm.runs], arm.has_penalty) for arm in arms] == [
        ("lo", [0, 1], False),
        ("lo-sam", [0], True),
    ]


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (["lo-s0", "lo-s10"], "lo"),
        (["lo-seed1", "lo-seed2"], "lo"),
        (["lo-10", "lo-11"], "lo"),
        (["lo", "lo"], "lo"),
        (["lo-sam-a", "lo-sam-b"], "lo-sam"),
        (["one", "two"], "one"),
        (["s-0.05-s0", "s-0.05-s1"], "s-0.05"),
    ],
)
def test_an_arm_is_called_by_what_its_names_have_in_common(tmp_path, names, label):
    (arm,) = arms_of(*(make_run(tmp_path, name, seed=seed) for seed, name in enumerate(names)))
    assert arm.label == label


def test_labels_are_unique(tmp_path):
    first, second = make_run(tmp_path, "lo-s0"), make_run(tmp_path, "lo-s1", **SAM)
    assert [arm.label for arm in arms_of(first, second)] == ["lo-s0", "lo-s1"]
    third = make_run(tmp_path, "lo-s0", penalty={"gsam": {}})
    labels = [arm.label for arm in arms_of(first, third)]
    assert labels == [f"lo-s0 ({first.id[-4:]})", f"lo-s0 ({third.id[-4:]})"]
    seeds = [
        make_run(tmp_path, f"lo-s{seed}", seed=seed, penalty={"gam": {"rho": rho}})
        for rho in (0.1, 0.2)
        for seed in (0, 1)
    ]
    assert [arm.label for arm in arms_of(*seeds)] == ["lo gam.rho 0.1", "lo gam.rho 0.2"]  # of no single run


def test_a_run_that_starts_from_another_is_no_repeat_of_one_that_does_not(tmp_path):
    scratch = make_run(tmp_path, "lo")
    runs = [make_run(tmp_path, "on", meta={"init_from": parent}) for parent in ("a", "b")]
    arms = arms_of(scratch, *runs)
    assert [len(arm.runs) for arm in arms] == [1, 2]
    assert [run.meta_seed for run in arms[1].runs] == ["0 from a", "0 from b"]
    assert settings_table(arms).differing == {"meta.init_from": ("", "a, b")}


def test_a_run_given_twice_counts_once(tmp_path):
    run = make_run(tmp_path, "lo")
    (arm,) = arms_of(run, run)
    assert len(arm.runs) == 1


def test_a_damaged_preset_is_an_arm_of_its_own(tmp_path):
    runs = [make_run(tmp_path, "lo") for _ in range(2)]
    for run in runs:
        (run.path / "preset.toml").write_text("task = 3")
    arms = arms_of(*runs)
    assert len(arms) == 2 and all(arm.runs[0].problem and arm.has_penalty for arm in arms)
    assert settings_table(arms).differing == {}


def test_terms_and_estimators_are_listed_where_arms_differ(tmp_path):
    es = {"meta": {"estimator": "es", "pairs": 4}}
    flat = make_run(tmp_path, "flat", **es, objective={"log": True, "terms": {"sharpness": {"radius": 0.2}}})
    plain = make_run(tmp_path, "plain", **es, objective={"log": True})
    table = settings_table(arms_of(flat, plain))
    assert table.differing == {
        "objective.terms.sharpness.weight": (1.0, None),
        "objective.terms.sharpness.radius": (0.2, None),
    }
    lone = settings_table(arms_of(flat)).differing
    assert lone["meta.estimator"] == ("es",) and lone["meta.pairs"] == (4,) and lone["objective.log"] == (True,)
    assert lone["objective.terms.sharpness.weight"] == (1.0,) and "objective.terms.sharpness.examples" not in lone
    assert "meta.sigma" not in lone, "the estimator's default"
    many = make_run(tmp_path, "many", **es, objective={"loss": "last_many"})
    lone = settings_table(arms_of(many)).differing
    assert lone["objective.loss"] == ("last_many",) and "objective.batches" not in lone


def test_the_reference_is_the_first_arm_without_a_penalty(tmp_path):
    runs = [
        make_run(tmp_path, "a", **SAM),
        make_run(tmp_path, "b"),
        make_run(tmp_path, "c", seed=1, meta={"epochs": 7}),
    ]
    weightless = make_run(tmp_path, "d", penalty={"sam": {"weight": 0.0}})
    assert reference_arm(arms_of(*runs)).label == "b"
    assert reference_arm(arms_of(runs[0], weightless)).label == "d"
    assert reference_arm(arms_of(runs[0])).label == "a"
    term = make_run(tmp_path, "e", meta={"estimator": "es"}, objective={"terms": {"sharpness": {"weight": 1.0}}})
    assert reference_arm(arms_of(term, weightless)).label == "d", "a term counts as a penalty does"
    assert reference_arm(arms_of(*runs), readers(runs[2])[0]).label == "c"


def test_the_control_of_an_arm_is_the_same_meta_training_without_a_penalty_or_a_term(tmp_path):
    es = {"meta": {"estimator": "es", "inner_steps": 20, "truncation": 20}, "objective": {"loss": "last"}}
    flat = {**es, "objective": {"loss": "last", "terms": {"adaptive_sharpness": {"log": True}}}}
    runs = [
        make_run(tmp_path, "flat", **flat),
        make_run(tmp_path, "plain", **es),
        make_run(tmp_path, "longer", **{**es, "meta": {**es["meta"], "epochs": 7}}),
        make_run(tmp_path, "sam", **SAM),
        make_run(tmp_path, "lo"),
        make_run(tmp_path, "weightless", penalty={"sam": {"weight": 0}}, optimizer={"kind": "dm"}),
    ]
    named = controls(arms_of(*runs))
    assert {arm: (control.label, control.without) for arm, control in named.items()} == {
        "flat": ("plain", ("objective.terms.adaptive_sharpness",)),
        "sam": ("lo", ("penalty.sam",)),
    }
    assert named["sam"].words == "lo is the control of sam: the same meta-training without penalty.sam"
    assert reference_arm(arms_of(*runs)).label == "plain", "an arm with a term is not without penalties"
    both = make_run(tmp_path, "both", penalty={"sam": {"weight": 2.0}, "gsam": {}})
    assert reference_arm(arms_of(both, runs[3])).label == "sam", "the control of another, where all have penalties"


def test_a_control_starts_from_the_same_runs(tmp_path):
    """Extra meta-training from a run of one's own is compared with the same extra meta-training from that run."""
    start, other = make_run(tmp_path, "start"), make_run(tmp_path, "other", seed=1)
    on = [
        make_run(tmp_path, "flat", meta={"init_from": str(start.path)}, **SAM),
        make_run(tmp_path, "plain", meta={"init_from": str(start.path)}),
    ]
    elsewhere = make_run(tmp_path, "elsewhere", meta={"init_from": str(other.path)})
    assert controls(arms_of(*on))["flat"].label == "plain"
    assert controls(arms_of(on[0], elsewhere)) == controls(arms_of(on[0], start)) == {}


def test_only_settings_that_differ_are_listed(tmp_path):
    arms = arms_of(make_run(tmp_path, "a"), make_run(tmp_path, "b", seed=3, meta={"epochs": 7}, **SAM))
    found = settings_table(arms)
    assert set(found.differing) == {"meta.epochs", "penalty.sam.weight", "penalty.sam.rho"}
    assert found.differing["meta.epochs"][1] == 7 and found.differing["penalty.sam.weight"] == (None, 2.0)
    assert found.equal > 20 and found.default > 0  # penalty.sam.start and the like


def test_of_a_lone_arm_what_is_not_the_default_is_listed(tmp_path):
    found = settings_table(arms_of(make_run(tmp_path, "a", seed=3, meta={"epochs": 7})))
    assert found.differing["meta.epochs"] == (7,) and "seed" not in found.differing
    assert "meta.truncation" not in found.differing


def test_arms_keep_their_order_when_a_run_is_given_again(tmp_path):
    runs = [make_run(tmp_path, "a"), make_run(tmp_path, "b", **SAM), make_run(tmp_path, "c", penalty={"gsam": {}})]
    assert [arm.label for arm in arms_of(*runs, runs[0])] == ["a", "b", "c"]


def test_an_arm_is_called_by_the_name_that_was_given_later(tmp_path):
    runs = [make_run(tmp_path, "a"), make_run(tmp_path, "b", **SAM)]
    notes.write(runs[0].path, notes.Notes(name="plain"))
    assert [arm.label for arm in arms_of(*runs)] == ["plain", "b"]


def test_the_reference_is_one_that_was_evaluated(tmp_path):
    arms = arms_of(make_run(tmp_path, "a"), make_run(tmp_path, "b", **SAM), make_run(tmp_path, "c", meta={"epochs": 7}))
    assert reference_arm(arms, evaluated={"b", "c"}).label == "c"
    assert reference_arm(arms, evaluated={"b"}).label == "b"
    assert reference_arm(arms, evaluated=()).label == "a"
    assert reference_arm(arms, arms[0].runs[0].reader, evaluated={"b"}).label == "a", "as wanted"
