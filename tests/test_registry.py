"""A new member is one file: it is found by itself, takes part in meta-training and in presets."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch

from engine.base.errors import PresetError, SettingsError
from engine.base.settings import schema_of
from engine.jobs.from_preset import meta_trainer
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS
from engine.penalties import base as penalties
from engine.penalties.base import PENALTIES
from engine.presets import catalog as catalogs
from engine.presets.preset import load_preset
from engine.tasks.datasets.base import DATASETS
from engine.tasks.optimizees.base import OPTIMIZEES
from engine.tasks.table import TaskSettings

MEMBER = """
from engine.base.settings import setting
from {package}.base import THINGS

@THINGS.register("{name}")
class Thing:
    size: int = setting(3, minimum=1, help="how large")
    colour: str = setting("red", choices=("red", "blue"), help="which")
"""

PENALTY = '''
"""The loss itself once more."""

from engine.penalties.base import PENALTIES, GeometricPenalty, setting


@PENALTIES.register("again")
class Again(GeometricPenalty):
    """R = factor * L(theta)."""

    factor: float = setting(1.0, minimum=0.0, help="how often")

    def at(self, loss, theta, value, gradient):
        return self.factor * value, self.factor * gradient
'''


@pytest.fixture
def things(tmp_path, monkeypatch, request):
    """A registry in a package of its own, with two members."""
    package = f"things_{abs(hash(request.node.name))}"
    folder = tmp_path / package
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "base.py").write_text(
        f"from engine.base.registry import Registry\nTHINGS = Registry('thing', {package!r})\n"
    )
    for name in ("first", "second"):
        (folder / f"{name}.py").write_text(MEMBER.format(package=package, name=name))
    monkeypatch.syspath_prepend(tmp_path)
    return __import__(f"{package}.base", fromlist=["THINGS"]).THINGS


def test_members_are_found_by_themselves(things):
    assert things.names() == ("first", "second")
    assert things["first"].name == "first"
    assert [item.name for item in things.schemas()["second"]] == ["size", "colour"]


def test_a_member_is_made_from_checked_settings(things):
    made = things.create("first", size=5)
    assert (made.size, made.colour) == (5, "red")
    with pytest.raises(AttributeError):
        made.size = 6  # frozen


def test_every_problem_with_a_member_comes_at_once(things):
    with pytest.raises(SettingsError) as caught:
        things.create("first", size=0, colour="rde", sise=3)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[0] == "first.size: found 0; allowed: an integer >= 1"
    assert "did you mean red?" in lines[1] and "did you mean size?" in lines[2]


@pytest.mark.parametrize("name", ["frist", "", 3, None, ["first"], "\x1b[2J"])
def test_an_unknown_member(things, name):
    with pytest.raises(SettingsError, match="thing: found .*; allowed: one of: first, second") as caught:
        things.create(name)
    assert ("did you mean first?" in str(caught.value)) == (name == "frist")


def test_a_member_from_outside_that_takes_a_name_is_refused_before_anything_is_looked_up(things):
    with pytest.raises(ValueError, match="two thing classes are registered as 'first'"):

        @things.register("first")
        class Mine:
            pass

    assert things["first"].__module__.endswith(".first")


def test_no_two_settings_of_a_task_share_a_name():
    for dataset, optimizee in itertools.product(DATASETS.names(), OPTIMIZEES.names()):
        classes = (TaskSettings, DATASETS[dataset], OPTIMIZEES[optimizee])
        names = [item.name for cls in classes for item in schema_of(cls)]
        assert len(set(names)) == len(names), (dataset, optimizee)


def test_every_default_fits_its_own_setting():
    """And names and help are fit to print: one line each."""
    catalog = catalogs.build()
    for schemas in vars(catalog).values():
        for schema in schemas.values():
            for item in schema:
                assert item.check(item.default) == (item.default, None), item
                assert item.help and item.help.isprintable() and item.name.isidentifier()
    assert "kind" not in {item.name for schema in catalog.learned_optimizers.values() for item in schema}


def test_every_penalty_has_weight_start_and_relative():
    for schema in PENALTIES.schemas().values():
        assert [item.name for item in schema][:3] == ["weight", "start", "relative"]
    assert {"dm", "rnnprop", "simple"} <= set(LEARNED_OPTIMIZERS.names())


@pytest.fixture
def one_file_more(tmp_path, monkeypatch):
    """A penalty in one new file of engine.penalties: here in a folder that only this test adds to the package."""
    import engine.penalties

    (tmp_path / "again.py").write_text(PENALTY)
    monkeypatch.setattr(engine.penalties, "__path__", [*engine.penalties.__path__, str(tmp_path)])
    monkeypatch.setattr(PENALTIES, "_members", dict(PENALTIES._members))
    monkeypatch.setattr(PENALTIES, "_is_loaded", False)
    yield
    sys.modules.pop("engine.penalties.again", None)


def test_adding_a_penalty_is_one_file_and_one_preset(one_file_more, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        "[task]\nbatch_size = 8\n[optimizer]\nkind = 'simple'\nhidden = 4\n[meta]\nepochs = 1\ninner_steps = 6\n"
        "truncation = 3\nclip = 'none'\n[penalty.again]\nfactor = 2.0\n"
        "[evaluation]\noptimizees = 1\nexamples = 32\nrestarts = 1\nascent_steps = 1\n"
    )
    catalog = catalogs.build()
    preset = load_preset(file, catalog=catalog)
    assert preset["penalty"] == {"again": {"weight": 1.0, "start": 0, "relative": False, "factor": 2.0}}
    assert penalties.get("again", factor=3).factor == 3.0

    trainer = meta_trainer(preset, device=torch.device("cpu"))
    records = []
    while not trainer.finished:
        records += trainer.advance()
    steps = [record for record in records if "meta_loss" in record]
    assert len(steps) == 2
    for record in steps:
        assert record["again_penalty_share"] == pytest.approx(2.0, rel=1e-4)

    with pytest.raises(PresetError) as caught:
        load_preset(file, ["penalty.again.factor=-1", "penalty.agian.factor=1"], catalog=catalog)
    assert "penalty.again.factor: found -1; allowed: a number >= 0" in str(caught.value)
    assert "did you mean again?" in str(caught.value)
