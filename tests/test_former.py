"""What was written in a former form of [objective] opens still and means the same; what is written is today's form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tomli
from comparing import make_run

import engine
from engine.base.errors import PresetError
from engine.presets.catalog import is_of_member, member_name, named_members, weighing
from engine.presets.former import todays_objective, todays_pairs, todays_path
from engine.presets.preset import from_mapping, load_preset
from engine.runs.reader import RunReader
from engine.study.plan.plan import ArmPlan, StudyPlan
from lreg_tui.runs.feed import row_of

ES = '[meta]\nestimator = "es"\n'
FORMER_RUN = """\
name = "former"
[task]
dataset = "digits"
[meta]
estimator = "es"
[objective]
loss = "last"
batches = 10
split = "train"
log = true
[objective.sharpness]
weight = 2.0
log = true
start = 0
at_loss = 0.5
radius = 0.2
"""  # as a run's own preset had it


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(*texts: str, sets: tuple[str, ...] = ()) -> dict:
    """[objective] of the last of these presets, each of which extends the one before it; terms only as they differ."""
    for number, text in enumerate(texts):
        extends = f'extends = "{number - 1}.toml"\n' if number else ""
        Path(f"{number}.toml").write_text(extends + text)
    preset = load_preset(f"{len(texts) - 1}.toml", sets)
    Path("again.toml").write_text(preset.dumps())
    assert load_preset("again.toml").values == preset.values
    return told(preset)


def told(preset) -> dict:
    objective = preset["objective"]
    usual = from_mapping(
        {"meta": {"estimator": "es"}, "objective": {"terms": {name: {} for name in objective["terms"]}}}
    )
    terms = {
        name: {key: value for key, value in term.items() if usual["objective"]["terms"][name][key] != value}
        for name, term in objective["terms"].items()
    }
    return {key: value for key, value in objective.items() if key not in ("log", "terms")} | terms


def problem(text: str, *sets: str) -> str:
    Path("p.toml").write_text(text)
    with pytest.raises(PresetError) as caught:
        load_preset("p.toml", sets)
    (line,) = str(caught.value).splitlines()
    return line.split(": ", 1)[1]


# -- today's form ------------------------------------------------------------------------------------------------------


def test_todays_form():
    text = '[objective]\nloss = "last_many"\nbatches = 5\nlog = true\n'
    text += "[objective.terms.sharpness]\nweight = 0.5\nlog = true\nradius = 0.1\nat = 0.3\nstart = 2\n"
    term = {"weight": 0.5, "log": True, "radius": 0.1, "at": 0.3, "start": 2}
    assert loaded(ES + text) == {"loss": "last_many", "batches": 5, "sharpness": term}
    assert loaded(ES + '[objective]\nloss = "validation"') == {"loss": "validation", "batches": 10}
    for loss in ("mean", "last", "minimum"):
        assert loaded(f'{ES}[objective]\nloss = "{loss}"') == {"loss": loss}
    assert loaded(ES + '[objective]\nloss = "minimum"\nbatches = 5') == {"loss": "minimum"}, "means nothing there"
    assert from_mapping({})["objective"] == {"loss": "mean", "log": False, "terms": {}}


def test_of_layers_in_todays_form_the_last_word_counts():
    many = ES + '[objective]\nloss = "last_many"\nbatches = 5\n'
    assert loaded(many, '[objective]\nloss = "last"') == {"loss": "last"}
    assert loaded(many, '[objective]\nloss = "validation"') == {"loss": "validation", "batches": 5}
    assert loaded(many, '[objective]\nloss = "last"', '[objective]\nloss = "validation"')["batches"] == 10
    assert loaded(many, sets=("objective.loss=last",)) == {"loss": "last"}
    assert loaded(many, sets=("objective.batches=7", "objective.terms.sharpness.at=0.1")) == {
        "loss": "last_many",
        "batches": 7,
        "sharpness": {"at": 0.1},
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[objective]\nloss = "last_man"', "did you mean last_many?"),
        ('[objective]\nloss = "last_many"\nbatches = 0', "objective.batches: found 0; allowed: an integer >= 1"),
        (
            "[objective]\nbatch = 3",
            "objective.batch: found an unknown key; allowed: loss, batches, log, terms (did you",
        ),
        ("[objective.term.sharpness]\nweight = 1.0", "did you mean terms?"),
        ("[objective.terms.sharpnes]", "objective.terms.sharpnes: found an unknown key; allowed: adaptive_sharpness"),
        ("[objective.terms.sharpnes]", "did you mean sharpness?"),
        ("[objective.terms.sharpness]\nradus = 1.0", "did you mean radius?"),
        ("[objective.terms]\nsharpness = 1.0", "as objective.terms.sharpness.weight = 1"),
        ("[objective]\nterms = 'sharpness'", "did you mean [objective.terms.sharpness]?"),
        ("[terms.sharpness]", "did you mean [objective.terms.NAME]?"),
        # what is wrong in a former form, too
        ("[objective.sharpnes]\nweight = 1.0", "objective.terms.sharpnes: found an unknown key"),
        ("[objective]\nsharpness = 1.0", "did you mean [objective.terms.sharpness]?"),
        ("[objective.sharpness]\nat_loss = -1.0", "objective.terms.sharpness.at: found -1.0; allowed: a number >= 0"),
        ('[objective]\nloss = "last"\nbatches = -1', "objective.batches: found -1; allowed: an integer >= 1"),
        ('[objective]\nloss = "last"\nbatches = true', "objective.batches: found true; allowed: an integer >= 1"),
        ('[objective]\nloss = "last"\nbatches = 2\nsplit = "test"', 'did you mean objective.loss = "validation"'),
        ('[objective]\nloss = "last_many"\nsplit = "train"', "objective.split: found an unknown key"),
        ("[objective.sharpness]\nstart = 200", "objective.terms.sharpness.start: found 200; allowed: below 100"),
    ],
)
def test_what_is_wrong_is_told_once_by_todays_key(text, words):
    assert words in problem(ES + text)


def test_back_propagation_refuses_what_it_has_no_derivative_of():
    assert 'objective.loss: found "minimum"; allowed: left out, or meta.estimator = "es" or "pes"' in problem(
        '[objective]\nloss = "minimum"'
    )
    assert loaded('[objective]\nloss = "last"\nbatches = 3') == {"loss": "last_many", "batches": 3}
    assert loaded('[objective]\nloss = "validation"') == {"loss": "validation", "batches": 10}
    assert "objective.terms.sharpness: found a table" in problem("[objective.sharpness]")
    assert loaded('[objective]\nloss = "last"\nbatches = 0\nsplit = "train"\nlog = false') == {"loss": "last"}


# -- former forms ------------------------------------------------------------------------------------------------------


def test_the_preset_of_a_former_run(tmp_path):
    assert loaded(FORMER_RUN) == {
        "loss": "last_many",
        "batches": 10,
        "sharpness": {"weight": 2.0, "log": True, "at": 0.5, "radius": 0.2},
    }
    assert (
        "split" not in Path("again.toml").read_text()
        and "[objective.terms.sharpness]" in Path("again.toml").read_text()
    )
    run = make_run(tmp_path, "former")
    (run.path / "preset.toml").write_text(FORMER_RUN)
    assert RunReader(run.path).preset()["objective"]["terms"]["sharpness"]["at"] == 0.5
    assert row_of(RunReader(run.path)).penalties == ("sharpness",), "as the console lists it, unchecked"


@pytest.mark.parametrize(
    ("former", "today"),
    [
        ({"loss": "last", "batches": 5}, {"loss": "last_many", "batches": 5}),
        ({"loss": "last", "batches": 5, "split": "train"}, {"loss": "last_many", "batches": 5}),
        ({"loss": "last", "batches": 5, "split": "validation"}, {"loss": "validation", "batches": 5}),
        ({"loss": "last", "batches": 0, "split": "validation"}, {"loss": "last"}),
        ({"loss": "mean", "batches": 0, "split": "train", "log": False}, {"loss": "mean", "log": False}),
        ({"sharpness": {"at_loss": 0.1}}, {"terms": {"sharpness": {"at": 0.1}}}),
        ({"terms": {"sharpness": {"at_loss": 0.1}}}, {"terms": {"sharpness": {"at": 0.1}}}),
        ({}, {}),
    ],
)
def test_a_former_table(former, today):
    assert todays_objective(former) == today == todays_objective(today)


LAST_5 = ES + '[objective]\nloss = "last"\nbatches = 5\n'


@pytest.mark.parametrize(
    ("parent", "child", "expected"),
    [
        (LAST_5, "[objective]\nbatches = 0", {"loss": "last"}),
        (LAST_5, "[objective]\nbatches = 7", {"loss": "last_many", "batches": 7}),
        (LAST_5, '[objective]\nsplit = "validation"', {"loss": "validation", "batches": 5}),
        (LAST_5, '[objective]\nloss = "minimum"\nbatches = 0', {"loss": "minimum"}),
        (LAST_5, '[objective]\nloss = "validation"', {"loss": "validation", "batches": 5}),
        (LAST_5, '[objective]\nloss = "last"', {"loss": "last"}),
        (f'{LAST_5}split = "validation"', '[objective]\nsplit = "train"', {"loss": "last_many", "batches": 5}),
        (f'{LAST_5}split = "validation"', "[objective]\nbatches = 7", {"loss": "validation", "batches": 7}),
        (f'{LAST_5}split = "validation"', '[objective]\nloss = "last"\nbatches = 7',
         {"loss": "validation", "batches": 7}),
        (ES + '[objective]\nloss = "last"', "[objective]\nbatches = 7", {"loss": "last_many", "batches": 7}),
        (ES + '[objective]\nloss = "last_many"', '[objective]\nloss = "last"\nbatches = 7\nsplit = "validation"',
         {"loss": "validation", "batches": 7}),
        (ES + '[objective]\nloss = "last_many"', "[objective]\nbatches = 0", {"loss": "last"}),
        (ES + "[objective.sharpness]\nat_loss = 0.2\nradius = 0.1", "[objective.terms.sharpness]\nat = 0.3",
         {"loss": "mean", "sharpness": {"radius": 0.1, "at": 0.3}}),
        (ES + "[objective.terms.sharpness]\nat = 0.2\nradius = 0.1", "[objective.sharpness]\nat_loss = 0.3",
         {"loss": "mean", "sharpness": {"radius": 0.1, "at": 0.3}}),
    ],
)  # fmt: skip
def test_layers_of_both_forms(parent, child, expected):
    assert loaded(parent, child) == expected
    pairs = tomli.loads(child)["objective"]
    flat = {f"{k}.{key}": v for k, table in pairs.items() if isinstance(table, dict) for key, v in table.items()}
    flat = flat or pairs
    if "terms" not in pairs:  # --set says what the child says
        sets = tuple(f"objective.{key}={value}" for key, value in flat.items())
        assert loaded(parent, sets=sets) == expected


def test_set_takes_both_forms():
    sets = ("objective.sharpness.weight=1.5", "objective.sharpness.at_loss=0.2", "objective.terms.sharpness.radius=0.1")
    assert loaded(ES, sets=sets)["sharpness"] == {"weight": 1.5, "at": 0.2, "radius": 0.1}
    assert loaded(ES, sets=("objective.loss=last", "objective.batches=4"))["loss"] == "last_many"
    whole = "objective={loss = 'last', batches = 4, sharpness = {at_loss = 0.2}}"
    assert loaded(ES, sets=(whole,)) == {"loss": "last_many", "batches": 4, "sharpness": {"at": 0.2}}
    assert loaded(ES, sets=("objective.sharpness={}",)) == {"loss": "mean", "sharpness": {}}
    assert loaded(FORMER_RUN, sets=("objective.terms={}",)) == {"loss": "last_many", "batches": 10}
    assert "--set" in problem_of_set("objective.sharpnes.weight=1")
    assert "objective.terms.sharpnes" in problem_of_set("objective.sharpnes.weight=1")
    assert "objective.terms.sharpness.at: found -1" in problem_of_set("objective.sharpness.at_loss=-1")
    assert dict(todays_pairs([("objective", 1), ("meta.epochs", 2)], {})) == {"objective": 1, "meta.epochs": 2}


def problem_of_set(text: str) -> str:
    Path("p.toml").write_text(ES)
    with pytest.raises(PresetError) as caught:
        load_preset("p.toml", [text])
    return str(caught.value)


def test_paths():
    assert todays_path("objective.sharpness.at_loss") == "objective.terms.sharpness.at"
    for path in ("objective.loss", "objective.split", "objective", "objective.terms.sharpness.at", "penalty.sam.rho"):
        assert todays_path(path) == path
    assert is_of_member("objective.terms.sharpness.at") and is_of_member("penalty.sam.rho")
    assert not any(map(is_of_member, ("objective.loss", "objective.terms.sharpness", "penalty.sam", "meta.epochs")))
    former = {"penalty": {"sam": {}}, "objective": {"log": True, "sharpness": {"weight": 0}}}
    assert list(map(member_name, named_members(former))) == ["sam", "sharpness"] and list(weighing(former)) == [
        "penalty.sam"
    ]


# -- studies, Python ---------------------------------------------------------------------------------------------------


def test_runs_of_back_propagation_are_named_as_before():
    """A study finds the runs that it has: what decides them is what it was."""
    assert "objective" not in from_mapping({"objective": {"loss": "mean", "batches": 0, "split": "train"}}).decisive()
    last = from_mapping({"objective": {"loss": "last", "batches": 0, "split": "train", "log": False}})
    assert last.decisive()["objective"] == {"loss": "last"}


def test_a_study_of_before_goes_on():
    """Its folder holds presets and points in the former form."""
    values = tomli.loads(FORMER_RUN)
    arm = {"name": "a", "preset": values, "axes": [{"key": "objective.sharpness.weight", "values": [0.0, 3.0]}]}
    plan = StudyPlan(name="s", stamp="20261121-120000", seeds=(0,), arms=(), reference="a")
    former = StudyPlan.from_json({**vars(plan), "pick": {}, "arms": [arm], "transfer": None, "search": None})
    objectives = [cell.preset["objective"] for cell in former.grid()]
    assert [objective["terms"]["sharpness"]["weight"] for objective in objectives] == [0.0, 3.0]
    assert all(objective["loss"] == "last_many" for objective in objectives)


def test_the_plan_of_a_study_of_before_is_that_of_the_same_file():
    """So `lreg study` goes on with it, rather than begin another."""
    preset = tomli.loads(from_mapping({"name": "a"}).dumps())
    former = {**preset, "objective": {"loss": "mean", "batches": 0, "split": "train", "log": False}}
    plans = [StudyPlan("s", "20261121-120000", (0,), (ArmPlan("a", values),), "a") for values in (preset, former)]
    today, before = (StudyPlan.from_json(json.loads(plan.dumps())) for plan in plans)
    assert today.dumps() == before.dumps()


def test_settings_objects_are_in_todays_form():
    assert engine.ObjectiveSettings() == engine.ObjectiveSettings(loss="mean", batches=10, log=False)
    assert engine.terms.get("sharpness", at=0.5).at == 0.5
    with pytest.raises(engine.LregError, match="at_loss"):
        engine.terms.get("sharpness", at_loss=0.5)
