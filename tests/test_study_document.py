"""What a study file resolves to, and what is refused before anything is started."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from functools import cache

import pytest

from engine.base.errors import LregError, RunError
from engine.evaluation.transfer_plan import TransferSettings, make
from engine.presets.catalog import load as load_catalog
from engine.presets.preset import load_preset, shipped
from engine.runs.reader import RunReader
from engine.runs.store import RunStore
from engine.study.plan.document import load_study
from engine.study.plan.plan import StudyPlan, grid
from engine.study.plan.sources import StudyError, shipped_studies
from engine.study.plan.state import cells, plan_of

STAMP = "20261121-120000"
FULL = """
name = "full"
description = "every table"
seeds = [0, 3]
preset = "base"
reference = "vanilla"
[set]
"meta.epochs" = 7
meta.inner_steps = 200
[axes]
"meta.truncation" = [20, 100]
[[arm]]
name = "vanilla"
[[arm]]
name = "sam"
preset = "lo-sam"
set = { "penalty.sam.weight" = 3.0 }
axes = { "penalty.sam.rho" = { from = 0.01, to = 1, points = 3 } }
[pick]
metric = "validation_loss"
[transfer]
of = "all"
to = ["digits/mlp", "all"]
steps = 100
seeds = 2
checkpoint = "last"
marks = [10, 50]
scales = [2, 1, 0.5]
untrained = false
baselines = ["sgd", "adam"]
evaluation = { examples = 50 }
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with a preset `base.toml` in it, and elsewhere than the process is."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "base.toml").write_text('[task]\ndataset = "digits"\n[optimizer]\nkind = "simple"\n')
    (tmp_path / "base").write_text("no preset at all")
    return tmp_path


@pytest.fixture
def read(folder):
    def read(text: str, *overrides: str) -> StudyPlan:
        (folder / "mine.toml").write_text(text.replace('"base"', '"base.toml"'))
        return load_study(folder / "mine.toml", overrides, STAMP)

    return read


@pytest.fixture
def refused(read, folder):
    def refused(text: str, *overrides: str) -> list[str]:
        with pytest.raises(StudyError) as caught:
            read(text, *overrides)
        assert caught.value.exit_code == 2
        return str(caught.value).replace(f"{folder / 'mine.toml'}: ", "").splitlines()

    return refused


# -- what it resolves to ---------------------------------------------------------------------------------------------


def test_a_whole_study(read):
    plan = read(FULL)
    assert (plan.name, plan.stamp, plan.seeds, plan.reference) == ("full", STAMP, (0, 3), "vanilla")
    assert [len(arm.grid()) for arm in plan.arms] == [2, 6]
    assert plan.arms[1].grid()[1] == {"meta.truncation": 20, "penalty.sam.rho": 0.1}
    cells = plan.grid()
    assert len(cells) == 2 * (2 + 6) and len({cell.run_id(STAMP) for cell in cells}) == 16
    last = cells[-1].preset
    assert last["meta"]["truncation"] == 100 and last["meta"]["epochs"] == 7 and last.seed == 3
    assert last["penalty"]["sam"] == {**last["penalty"]["sam"], "weight": 3.0, "rho": 1.0}
    assert last["optimizer"]["kind"] == "dm" and cells[0].preset["optimizer"]["kind"] == "simple"
    assert plan.pick.metric == "validation_loss" and plan.search is None
    transfer = plan.transfer
    assert transfer.of == "all" and transfer.to == ("digits/mlp", "all") and transfer.scales == (0.5, 2.0)
    assert transfer.settings == {"steps": 100, "seeds": 2, "checkpoint": "last", "marks": [10, 50]}
    assert transfer.baselines == ("sgd", "adam") and not transfer.untrained and transfer.evaluation == {"examples": 50}


def test_what_the_folder_keeps_is_the_same_study(read):
    for text in (FULL, 'preset = "lo"\n[axes]\n"optimizer.kind" = ["dm", "simple"]', SEARCH):
        plan = read(text)
        again = StudyPlan.from_json(json.loads(plan.dumps()))
        assert again == plan and again.dumps() == plan.dumps()
        if plan.search is None:
            assert [cell.run_id(STAMP) for cell in again.grid()] == [cell.run_id(STAMP) for cell in plan.grid()]


def test_the_smallest_study(read):
    plan = read("")
    (cell,) = plan.grid()
    assert (plan.name, cell.seed, plan.transfer) == ("mine", 0, None) and cell.preset["task"][0]["dataset"] == "digits"
    assert read('preset = "lo-sam"').arms[0].name == "lo-sam" == read('preset = "lo-sam"').reference


def test_a_number_of_seeds(read):
    assert read("seeds = 3").seeds == (0, 1, 2) and read("", "seeds=[5]").seeds == (5,)


def test_the_reference_is_the_first_arm_without_a_penalty(read):
    arms = '[[arm]]\nname = "a"\npreset = "lo-sam"\n[[arm]]\nname = "b"\npreset = "lo"\n[[arm]]\nname = "c"\n'
    assert read(arms).reference == "b" and read('reference = "c"\n' + arms).reference == "c"
    assert read(arms, "arm.1.set.penalty.gam.rho=0.1", "arm.2.set.penalty.gam.rho=0.1").reference == "a"


def test_overrides_reach_every_key(read):
    plan = read(
        FULL,
        "seeds=2",
        "set.meta.epochs=5",
        "transfer.steps=60",
        "transfer.evaluation.examples=9",
        "arm.1.axes.penalty.sam.rho.points=5",
        "axes.meta.truncation=[10]",
    )
    assert plan.seeds == (0, 1) and len(plan.grid()) == 2 * (1 + 5)
    assert {cell.preset["meta"]["epochs"] for cell in plan.grid()} == {5}
    assert plan.transfer.settings["steps"] == 60 and plan.transfer.evaluation == {"examples": 9}
    arms = '[[arm]]\nname = "a.b"\n[[arm]]\nname = "c"\n'
    assert read(arms, "arm.a.b.preset=lo-sam", "arm.c.set.penalty.gam.rho=0.1").arms[1].preset["penalty"]["gam"]


def test_a_preset_beside_the_study_goes_before_a_shipped_one(read, folder):
    (folder / "lo").write_text("[meta]\nepochs = 4\n")
    assert read('preset = "lo"').arms[0].preset["meta"]["epochs"] == 4
    assert read('preset = "lo.toml"').arms[0].preset["meta"]["epochs"] == 1000


def test_estimators_and_terms_are_set_searched_over_and_taken_away(read):
    text = """preset = "lo"
set = { "meta.estimator" = "es", "meta.pairs" = 2, objective.log = true, objective.terms.sharpness.radius = 0.2 }
[[arm]]
name = "flat"
axes = { "objective.terms.sharpness.weight" = [0.5, 1], "meta.sigma" = [0.1, 0.2] }
[[arm]]
name = "plain"
set = { objective = {} }
[[arm]]
name = "first order"
set = { objective = {}, "meta.estimator" = "tbptt" }
"""
    plan = read(text)
    flat, plain, first_order = (arm.preset for arm in plan.arms)
    assert (flat["objective"]["log"], flat["objective"]["terms"]["sharpness"]["radius"]) == (True, 0.2)
    assert flat["meta"]["pairs"] == 2 and len(plan.arms[0].grid()) == 4
    assert "sharpness" not in plain["objective"]["terms"] and plain["objective"]["log"] is False
    assert "pairs" not in first_order["meta"], "the settings of another estimator are left behind"
    assert plan.reference == "plain"
    cell = next(cell for cell in plan.grid() if cell.point.get("objective.terms.sharpness.weight") == 0.5)
    assert cell.preset["objective"]["terms"]["sharpness"]["weight"] == 0.5 and cell.preset["meta"]["sigma"] == 0.1


def test_a_study_in_the_former_form_of_the_objective_is_that_of_todays(read):
    former = """preset = "flat"
    [set]
    "objective.loss" = "last"
    "objective.batches" = 5
    objective.sharpness.at_loss = 0.5
    [axes]
    "objective.sharpness.weight" = [0.5, 1]
    """
    today = former.replace('"last"', '"last_many"').replace("at_loss", "at").replace(".sharpness", ".terms.sharpness")
    assert read(former).dumps() == read(today).dumps()
    overridden = read(former, "set.objective.terms.sharpness.at=0.25", "set.objective.adaptive_sharpness.weight=0")
    terms = overridden.arms[0].preset["objective"]["terms"]
    assert (terms["sharpness"]["at"], terms["adaptive_sharpness"]["weight"]) == (0.25, 0.0)
    points = [cell.point for cell in overridden.grid()]
    assert points == [{"objective.terms.sharpness.weight": 0.5}, {"objective.terms.sharpness.weight": 1}]


def test_a_study_of_version_0_1_finds_its_runs(read):
    """Settings that came later leave a run what it was, at their defaults; else it is another one."""
    both = '[[arm]]\nname = "a"\npreset = "lo-sam-smooth"\n[[arm]]\nname = "b"\npreset = "flat-simple"\n'
    assert [cell.identity for cell in read(both).grid()] == ["66ab2f6b", "d4a4d2ab"]  # as that version calls them
    later = ["meta.average=0.5", "meta.estimator=es", "optimizer.step_scale=mup", "task.depth=2", "objective.loss=last"]
    others = [read('preset = "flat-simple"', f"set.{key}").grid()[0].identity for key in later]
    assert len({"d4a4d2ab", *others}) == 6


def test_what_is_set_can_take_a_penalty_away_and_the_last_word_counts(read):
    set_over = 'preset = "lo-sam-smooth"\nset = { penalty = {}, "penalty.l2.weight" = 0.1, "penalty.l2.start" = 3 }'
    (arm,) = read(set_over).arms
    assert arm.preset["penalty"].keys() == {"l2"} and arm.preset["penalty"]["l2"]["weight"] == 0.1
    (arm,) = read(set_over, "set.penalty.l2.weight=0.2", "set.penalty.gam={}").arms
    assert {name: values["weight"] for name, values in arm.preset["penalty"].items()} == {"l2": 0.2, "gam": 1.0}
    assert read(set_over, "set.penalty={}").arms[0].preset["penalty"] == {}


def test_what_is_set_can_pick_another_learned_optimizer(read):
    plan = read('preset = "lo"\nset = { optimizer.kind = "simple" }')
    assert plan.arms[0].preset["optimizer"]["kind"] == "simple" and "layers" not in plan.arms[0].preset["optimizer"]


def test_an_axis_can_be_the_learned_optimizer_or_the_task(read):
    plan = read('preset = "lo"\n[axes]\noptimizer.kind = ["dm", "simple"]\ntask.optimizee = ["mlp", "conv3"]')
    found = [(cell.preset["optimizer"]["kind"], cell.preset.tasks[0]["optimizee"]) for cell in plan.grid()]
    assert found == [("dm", "mlp"), ("dm", "conv3"), ("simple", "mlp"), ("simple", "conv3")]


def test_an_axis_over_a_list_and_over_one_task_of_several(read, folder):
    (folder / "two.toml").write_text('[[task]]\ndataset = "mnist"\n[[task]]\ndataset = "digits"\n')
    plan = read('preset = "two.toml"\n[axes]\nmeta.inner_steps = [[50, 100], [200]]\n"task.1.batch_size" = [8, 16]')
    presets = [cell.preset for cell in plan.grid()]
    assert [preset["meta"]["inner_steps"] for preset in presets] == [(50, 100), (50, 100), (200,), (200,)]
    assert [preset.tasks[1]["batch_size"] for preset in presets] == [8, 16, 8, 16]
    assert len({cell.run_id(STAMP) for cell in plan.grid()}) == 4


@pytest.mark.parametrize(
    ("low", "high", "points", "how", "values"),
    [
        (0.01, 10.0, 4, {"log": True, "integer": False}, [0.01, 0.1, 1.0, 10.0]),
        (0.001, 0.3, 3, {"log": True, "integer": False}, [0.001, 0.0173205, 0.3]),
        (-1.0, 1.0, 5, {"log": False, "integer": False}, [-1.0, -0.5, 0.0, 0.5, 1.0]),
        (1.0, 100.0, 3, {"log": True, "integer": True}, [1, 10, 100]),
        (1.0, 3.0, 5, {"log": False, "integer": True}, [1, 2, 3]),
    ],
)
def test_a_grid(low, high, points, how, values):
    found = grid(low, high, points, **how)
    assert found == values and all(type(one) is type(other) for one, other in zip(found, values, strict=True))


def test_long_names_stay_names_of_presets(read):
    arm = f'name = "{"s" * 40}"\npreset = "lo-sam-smooth"\n[[arm]]\nname = "{"a" * 40}"\n'
    axes = '[axes]\n"penalty.smooth.epsilon" = [0.123456789, 2]\n"penalty.sam.rho" = [0.5]\n'
    names = [cell.preset.name for cell in read(arm + axes).grid()]
    assert all(len(name) == 80 and name.endswith("-s0") for name in names)


# -- a search --------------------------------------------------------------------------------------------------------

SEARCH = """
preset = "lo-smooth"
[axes]
"penalty.smooth.epsilon" = { from = 0.01, to = 10 }
"meta.truncation" = { from = 5, to = 50, integer = true, linear = true }
"meta.weights" = ["uniform", "linear"]
[search]
trials = 7
"""


def test_a_search_has_ranges_and_choices(read):
    plan = read(SEARCH)
    epsilon, truncation, weights = plan.arms[0].axes
    assert (epsilon.low, epsilon.high, epsilon.log) == (0.01, 10.0, True)
    assert (truncation.log, truncation.integer) == (False, True) and weights.values == ("uniform", "linear")
    assert (plan.search.trials, plan.search.sampler) == (7, "tpe")


def test_the_ends_of_what_is_searched_are_checked(refused):
    lines = refused(
        SEARCH, "axes.meta.truncation.to=101", "axes.penalty.smooth.epsilon={from = -1, to = 1, linear = true}"
    )
    assert [line.split(": found")[0] for line in lines] == [
        "--set: axes.penalty.smooth.epsilon",
        "--set: axes.meta.truncation",
    ]
    assert "at most 100" in lines[1]
    lines = refused(SEARCH.replace("integer = true, ", ""))
    assert lines[0] == (
        "axes.meta.truncation: found 5.0; allowed: an integer >= 1 (in a range, integer = true gives whole numbers)"
    )


def test_a_search_without_optuna_says_what_to_do(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)  # which is how Python remembers that there is no such module
    with pytest.raises(LregError, match="^a study with a .search. needs Optuna.*: pip install optuna$") as caught:
        read(SEARCH)
    assert caught.value.exit_code == 2
    read(FULL)


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sedes = 3", "sedes: found an unknown key; allowed: name, .*, transfer, report .did you mean seeds.."),
        ("seeds = []", "seeds: found .*; allowed: .*integer"),
        ("seeds = [1, 1]", r"seeds: found \[1, 1\]; allowed: different meta-seeds"),
        ("seeds = 0", "seeds: found 0; allowed: different meta-seeds, or how many"),
        ("seeds = 1000000000000", "seeds: found 1000000000000"),
        ('name = ""\nseeds = "2"', "seeds: found .*write 2 without quotes"),
        (f'name = "{"x" * 41}"', "name: found .*; allowed: 1 to 40 printable characters"),
        ('preset = "lo-sma"', "preset: found .*; allowed: a TOML file beside the study.*did you mean lo-sam"),
        ('preset = "nope.toml"', 'preset: found "nope.toml", no such file'),
        ("preset = 3", "preset: found 3; allowed: a string"),
        ('reference = "x"\n[[arm]]\nname = "y"', 'reference: found "x"; allowed: an arm: y'),
        ("arm = 3", "arm: found 3; allowed: tables: ..arm.."),
        ("arm = []", "arm: found .*; allowed: tables"),
        ("[arm]\nname = 'x'", "arm: found a table; allowed: tables: ..arm.."),
        ("[[arm]]\n", "arm.0.name: found \"\"; allowed: 1 to 40 printable"),
        ('[[arm]]\nname = "a b"\n[[arm]]\nname = "a-b"', 'arm.1.name: found "a-b"; allowed: a name of its own'),
        ('[[arm]]\nname = "a"\nnmae = 3', "arm.0.nmae: found an unknown key.*did you mean name"),
        ('[[arm]]\nname = "a"\nset = 3', "arm.a.set: found 3; allowed: a table"),
        ("[set]\nseed = 3", r"set.seed: found a key that the study gives itself; allowed: seeds = \[...\]"),
        ("[set]\nmeta.epoch = 3", "set.meta.epoch: found an unknown key.*did you mean epochs"),
        ("[set]\nmeta = 3\n", "set.meta: found 3; allowed: a table"),
        ("[axes]\nseed = [1]", "axes.seed: found an axis over the meta-seed; allowed: seeds"),
        ("[axes]\nname = ['a']", "axes.name: found an axis over name"),
        ("[axes]\nmeta.epochs = 3", r"axes.meta.epochs: found 3; allowed: a list of values.*write \[3\]"),
        ("[axes]\nmeta.epochs = []", "axes.meta.epochs: found .*it is empty"),
        ("[axes]\nmeta.epochs = [3, 3.0]", "axes.meta.epochs: found .*; allowed: different values"),
        ("[axes]\nmeta.epochs = [3, -1]", "axes.meta.epochs: found -1; allowed: an integer >= 0"),
        ("[axes]\nmeta.epochs = [nan]", "axes.meta.epochs: found .*nan does not fit"),
        ("[axes]\nmeta.epochs = [2026-01-01]", "axes.meta.epochs: found .* does not fit"),
        ("[axes]\nmeta.epochs = { from = 1 }", "axes.meta.epochs.to: found nothing; allowed: a number"),
        ("[axes]\nmeta.epochs = { from = 1, to = 2 }", "axes.meta.epochs.points: found nothing; .*>= 2"),
        ("[axes]\nmeta.epochs = { from = 1, to = 9, points = 1 }", "axes.meta.epochs.points: found 1"),
        ("[axes]\nmeta.epochs = { from = 1, to = 9, points = 2, log = true }", "axes.meta.epochs.log: found an"),
        ("[axes]\nmeta.momentum = { from = 0, to = 1, points = 3 }", "axes.meta.momentum.from: .*linear = true"),
        ("[axes]\nmeta.momentum = { from = 1, to = 0.5, points = 3 }", "axes.meta.momentum.to: found 0.5; .* > 1"),
        ("[axes]\nmeta.epochs = { from = 1.5, to = 3, points = 2, integer = true }", "axes.meta.epochs: .*whole"),
        ("[axes]\nmeta.epochs = { from = 1, to = 3, points = 2 }", "axes.meta.epochs: found 1.*integer = true"),
        ("[search]\n[axes]\nmeta.epochs = { from = 1, to = 3, points = 2 }", "axes.meta.epochs.points: .*.search."),
        ("[search]", "search: found no axes to search in"),
        ("[search]\nsampler = 'grid'\n[axes]\nmeta.epochs = [1]", "search.sampler: found .*one of: tpe, random"),
        ("[search]\ntrials = 0\n[axes]\nmeta.epochs = [1]", "search.trials: found 0; allowed: an integer >= 1"),
        ("[pick]\nmetric = 'test_accuracy'", "pick.metric: .*measured on test data, and a winner picked by it"),
        ("[pick]\nmetric = 'best_test_loss'", "pick.metric: .*measured on test data"),
        ("[pick]\nmetric = 'sharpness'", "pick.metric: found \"sharpness\"; allowed: one of: best_validation_loss"),
        ("[transfer]\nstep = 3", "transfer.step: found an unknown key.*did you mean steps"),
        ("[transfer]\nto = ['mnist']", "transfer.to: found \"mnist\"; allowed: DATASET/OPTIMIZEE"),
        ("[transfer]\nto = ['mnits/mlp']", "transfer.to: found \"mnits/mlp\"; allowed: one of: .*did you mean mnist"),
        ("[transfer]\nbaselines = ['adm']", "transfer.baselines: found .*sgd"),
        ("[transfer]\nscales = [0]", "transfer.scales: found"),
        ("[transfer]\nof = 'best'", "transfer.of: found \"best\"; allowed: one of: winners, all"),
        ("[transfer]\nsteps = 100\nmarks = [200]", "transfer.marks: found 200; allowed: inner steps from 0 to 100"),
        ("[transfer]\nmarks = [101]", "transfer.marks: found 101; allowed: inner steps from 0 to 100"),
        ("[transfer]\nevaluation = { example = 3 }", "transfer.evaluation.example: found an unknown key.*did you mean"),
        ("[transfer]\nevaluation = 3", "transfer.evaluation: found 3"),
        ("transfer = 3", "transfer: found 3; allowed: a table"),
        ("[report]\npaper = 'x'", "report.paper: found"),
        ("name =", "found no valid TOML"),
    ],
)  # fmt: skip
def test_a_bad_study(refused, text, words):
    lines = refused(text)
    assert any(re.match(words, line) for line in lines), lines


def test_an_axis_that_an_arm_does_not_have_names_the_arm(refused):
    arms = '[[arm]]\nname = "plain"\n[[arm]]\nname = "sam"\npreset = "lo-sam"\n'
    (line,) = refused(arms + '[axes]\n"penalty.sam.rho" = [0.05, 0.1]')
    assert line.startswith('axes.penalty.sam.rho: found a key that the preset of arm "plain" does not have')
    (line,) = refused(arms + 'axes = { "penalty.sam.rhoo" = [0.05] }')
    assert line.startswith("arm.sam.axes.penalty.sam.rhoo: found a key that the preset of arm")
    assert line.endswith("(did you mean penalty.sam.rho?)")


def test_what_does_not_fit_together_in_one_cell_only(refused):
    text = "[axes]\nmeta.inner_steps = [50, 100]\nmeta.truncation = [20, 60]"
    assert refused(text) == [
        "axes.meta.truncation: found 60; allowed: at most 50, which is meta.inner_steps "
        "(at meta.inner_steps = 50, meta.truncation = 60)"
    ]
    assert refused("[axes]\nmeta.inner_steps = [10, 100]") == [
        "arm.base.meta.truncation: found 20; allowed: at most 10, which is meta.inner_steps (at meta.inner_steps = 10)"
    ]


def test_all_problems_at_once_each_once_with_who_says_so(refused, folder):
    (folder / "bad.toml").write_text("[meta]\nepochs = -1\n")
    arms = '[[arm]]\nname = "a"\npreset = "bad.toml"\n[[arm]]\nname = "b"\nset = { meta.truncation = "x" }\n'
    lines = refused("seeds = -1\n" + arms + "[[arm]]\nname = 'c'\n[axes]\nmeta.meta_batch = [0]\n", "transfer.steps=x")
    assert [line.split(": found")[0] for line in lines] == [
        "seeds", "bad.toml: meta.epochs", "arm.b.set.meta.truncation", "--set: transfer.steps"
    ]  # fmt: skip
    lines = refused(arms + "[[arm]]\nname = 'c'\n[axes]\nmeta.meta_batch = [0]\n", "arm.1.set.meta.truncation=y")
    assert [line.split(": found")[0] for line in lines] == [
        "bad.toml: meta.epochs", "--set: arm.b.set.meta.truncation", "axes.meta.meta_batch"
    ]  # fmt: skip


def test_too_many_runs(refused):
    (line,) = refused("seeds = 11\n[axes]\nmeta.learning_rate = { from = 1e-4, to = 1, points = 1000 }")
    assert line == "axes: found 11000 runs; allowed: at most 10000 in a study"


def test_what_is_not_there(folder):
    with pytest.raises(StudyError, match="^smkoe: found no such file and no shipped study.*did you mean smoke"):
        load_study("smkoe")
    with pytest.raises(StudyError, match="found a folder; allowed: a TOML file"):
        load_study(folder)
    os.mkfifo(folder / "pipe")
    with pytest.raises(StudyError, match="found no ordinary file"):
        load_study(folder / "pipe")


def test_text_that_would_harm_a_terminal(refused):
    lines = refused('"\\u001b[2J" = 3\n[[arm]]\nname = "\\u001b[2J"\n[axes]\n"\\u001b.x" = [1]\n')
    assert all(line.isprintable() for line in lines) and len(lines) == 3


# -- the shipped studies ---------------------------------------------------------------------------------------------


PAPERS = (
    "paper-lr",
    "paper-lr-small",
    "paper-xh-mnist",
    "paper-xh-mlp-small",
    "paper-xh-mnist-small",
    "paper-xh-table1",
    "paper-xh-sst2",
)
PAPERS += ("paper-xh-table1-small", "smoke")
SHIPPED = tuple(
    sorted(
        [
            "learned-flatness",
            "learned-flatness-broad",
            "learned-flatness-held-out",
            "learned-flatness-small",
            "open-questions",
            "open-questions-small",
            "paper-xh-fewshot",
        ]
        + ["paper-xh-fewshot-small", *PAPERS]
    )
)


@cache
def of(name: str) -> StudyPlan:
    """A shipped study, read once."""
    return load_study(name, stamp=STAMP)


def presets(name: str) -> dict[str, dict]:
    return {arm.name: arm.preset for arm in of(name).arms}


def bare(preset: dict) -> dict:
    """What is not of an arm alone."""
    return {key: value for key, value in preset.items() if key not in ("name", "description", "penalty")}


def test_studies_and_presets_have_names_of_their_own():
    assert tuple(shipped_studies()) == SHIPPED and not set(shipped()) & set(SHIPPED)
    assert load_study(shipped_studies()["smoke"], stamp=STAMP) == of("smoke")


@pytest.mark.parametrize("name", PAPERS)
def test_a_shipped_study(name):
    plan = of(name)
    assert plan.name == name and plan.description.isprintable() and plan.description
    assert plan.transfer is not None and plan.reference == "none"
    assert {cell.preset["meta"]["init_from"] for cell in plan.grid()} == {""}
    alike = [bare(arm.preset) for arm in plan.arms if not arm.name.startswith("dm")]  # Simple and DM are compared there
    assert all(one == alike[0] for one in alike), "arms differ in their penalties only"
    if name != "smoke":  # a frontier of six scales, the untrained optimizer, and normalised gradient descent
        assert {1.0, *plan.transfer.scales} == {0.5, 0.7, 1.0, 1.4, 2.0, 2.8}
        assert plan.transfer.untrained and "ngdm" in plan.transfer.baselines


def test_the_arms_of_the_papers():
    penalties = {name: set(preset.get("penalty", {})) for name, preset in presets("paper-lr").items()}
    for name, penalty in {"none": set(), "sam": {"sam"}, "gsam": {"gsam"}, "gam": {"gam"}}.items():
        assert penalties[name] == penalty
        assert penalties["smooth" if name == "none" else f"{name}-smooth"] == penalty | {"smooth"}
    for name in ("paper-xh-table1", "paper-xh-table1-small"):
        penalties = {arm: set(preset.get("penalty", {})) for arm, preset in presets(name).items()}
        assert penalties == {arm: {arm} - {"none"} for arm in ("none", "smooth", "l2", "orthogonal", "spectral")}
        assert {preset["task"]["optimizee"] for preset in presets(name).values()} == {"conv3"}


@pytest.mark.parametrize("name", [name for name in SHIPPED if "xh" in name and "mlp" not in name])
def test_xiong_and_hsieh_test_on_the_task_of_meta_training_augmentation_and_dropout_included(name, tmp_path):
    run = RunStore(tmp_path).create(of(name).grid()[0].preset)
    (run.checkpoints / "best.safetensors").touch()
    (task,) = make([RunReader(run.path)], of(name).transfer.to, TransferSettings()).tasks
    assert task == RunReader(run.path).preset().tasks[0]
    assert task.get("augment") or task.get("dropout") or "shots" in task or task["dataset"] == "sst2"


def test_the_control_of_the_meta_loss_is_that_loss_times_every_factor():
    """SAM with a ball of radius 0 is the loss once more: it separates re-weighting from flatness."""
    arms = presets("paper-lr")
    controls = {name: preset["penalty"]["sam"] for name, preset in arms.items() if name.startswith("reweighted")}
    assert {penalty["rho"] for penalty in controls.values()} == {0}
    assert {penalty["weight"] for penalty in controls.values()} == {1.0, 10.0, 100.0}
    assert controls["reweighted"]["weight"] == arms["sam"]["penalty"]["sam"]["weight"]


def points(name: str, arm: str) -> list[tuple[float, ...]]:
    """The values along each axis of an arm."""
    axes = next(found.axes for found in of(name).arms if found.name == arm)
    return [axis.values for axis in sorted(axes, key=lambda axis: axis.key)]


def test_penalties_are_swept_as_the_method_has_it_with_smooth_as_without():
    for name, arm in (("paper-lr", "smooth"), ("paper-xh-mnist", "smooth"), ("paper-xh-mnist", "dm-smooth")):
        assert points(name, arm) == [(0.01, 0.1, 1.0, 10.0), (0.1, 1.0, 10.0, 100.0)], "Xiong and Hsieh's grid"
    assert points("paper-xh-table1", "smooth") == points("paper-lr", "smooth")
    for kind in ("sam", "gsam", "gam"):
        assert points("paper-lr", f"{kind}-smooth") == points("paper-lr", kind)
        assert points("paper-lr", kind)[1:] in ([], [(1.0, 10.0, 100.0)])


def test_reading_a_study_needs_no_torch():
    load_catalog()  # else a child process builds it, which takes seconds
    code = (
        "import sys; from engine.study.plan import document, search; document.load_study('smoke'); "
        "print(*sorted({'torch', 'numpy', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_shipped_preset_is_a_fine_base(read):
    for name in ("lo", "flat-simple", "smooth-conv3-cifar10"):
        assert read(f'preset = "{name}"').grid()[0].preset["meta"] == load_preset(name)["meta"]


@pytest.mark.parametrize(
    "change",
    [
        {"stamp": "../../elsewhere"},
        {"seeds": "none"},
        {"pick": 3},
        {"arms": [{"name": "a", "preset": [], "axes": []}]},
        {"arms": [{"name": "a", "preset": {}, "axes": [{"key": 3}]}]},
    ],
)
def test_a_study_from_a_stranger_is_refused_in_one_line(change):
    """study.json is data: a stamp becomes part of folders' names, and must not lead out of the run store."""
    plan = of("smoke")
    document = json.loads(plan.dumps())
    assert StudyPlan.from_json(document) == plan
    with pytest.raises(RunError, match=r"^study\.json: no study \(.+\)$"):
        StudyPlan.from_json({**document, **change})


def test_a_study_from_a_stranger_that_asks_for_any_number_of_runs_is_refused_before_they_are_made(tmp_path):
    document = json.loads(of("smoke").dumps())
    many = [{"key": f"meta.{name}", "values": list(range(1000))} for name in ("epochs", "meta_batch", "truncation")]
    document["arms"][0]["axes"] = many
    (tmp_path / "study.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match=r"^study\.json: found \d+ runs; allowed: at most 10000$") as refused:
        plan_of(tmp_path)
    assert "2000000006 runs" in str(refused.value)
    document["search"] = {"trials": 5}
    (tmp_path / "study.json").write_text(json.dumps(document))
    assert plan_of(tmp_path).search
    (tmp_path / "trials.json").write_text(json.dumps({"none": [{}] * 6000}))
    with pytest.raises(RunError, match=r"^trials\.json: found 12000 runs"):
        cells(plan_of(tmp_path), tmp_path)


UNKNOWN_KEYS = "\n".join(f"z{number} = 1" for number in range(100))
UNKNOWN_AXES = ", ".join(f'"meta.z{number}" = [1, 2]' for number in range(5_000))
UNKNOWN_TARGETS = [f"x{number}/y" for number in range(60_000)]


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("\n".join(f"[[arm]]\nname = 'a{number}'\n{UNKNOWN_KEYS}" for number in range(300)), "and 29960 more problems"),
        (f"axes = {{ {UNKNOWN_AXES} }}", "and 4960 more problems"),
        (f"[transfer]\nto = {UNKNOWN_TARGETS}", "study.toml: transfer.to: found 60000 targets; allowed: at most 1000"),
    ],
)
def test_many_mistakes_are_counted_not_told(folder, text, last):
    (folder / "study.toml").write_text(f'preset = "base.toml"\n{text}')
    began = time.process_time()
    with pytest.raises(StudyError) as refused:
        load_study(folder / "study.toml")
    assert time.process_time() - began < 5
    *rest, told = str(refused.value).splitlines()
    assert told.endswith(last) and len(rest) in (0, 40)
