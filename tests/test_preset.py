"""A preset is checked as a whole, every problem at once, before anything starts. The shipped ones do what they say."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from stand_ins import put_digits_in_their_place
from test_sib import PRESETS as SIB  # which need features, and are trained there

from engine.base.errors import PresetError
from engine.base.settings import schema_of
from engine.jobs.from_preset import meta_trainer
from engine.meta_training.meta_train import MetaTrainer
from engine.presets.preset import LATER, TABLES, Preset, PresetSettings, defaults, from_mapping, load_preset, shipped

SHIPPED = (
    "lo", "lo-gam", "lo-gam-smooth", "lo-gsam", "lo-gsam-smooth", "lo-sam", "lo-sam-smooth", "lo-smooth", "mixed",
    "quickstart", "rnnprop-mnist", "smooth-conv3-cifar10", "smooth-lenet-mnist", "smooth-mlp-mnist",
    "lo-asam", "lo-hessian-trace", "lo-top-eigenvalue", "gpt-shakespeare", "text-sst2", "text-sst2-smooth",
    "flat-rnnprop", "flat-rnnprop-gam", "flat-rnnprop-gsam", "flat-rnnprop-sam",
    "flat-simple", "flat-simple-gam", "flat-simple-gsam", "flat-simple-sam", "lin", "mlp", "adafac", "flat-1",
    "meta-lstm-omniglot", "meta-lstm-omniglot-smooth", "meta-lstm-cifar-fs", "meta-lstm-cifar-fs-smooth",
    "meta-lstm-digits", "several-networks", "simple-resnet18-cifar100",
    "flat", "flat-broad", "flat-broad-control", "flat-control", "flat-held-out", "flat-held-out-control",
    "flat-l2", "flat-mnist", "flat-mnist-control", "flat-pes", "flat-validation",
)  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(text: str) -> list[str]:
    """What is wrong with a preset, a line each, without the file's name."""
    Path("p.toml").write_text(text)
    with pytest.raises(PresetError) as caught:
        load_preset("p.toml")
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems)
    assert all(line.startswith("p.toml: ") and line.isprintable() and len(line) < 600 for line in lines), lines
    return [line.removeprefix("p.toml: ") for line in lines]


# -- unknown keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "hint"),
    [
        ("epochs = 3", "epochs", "did you mean meta.epochs?"),
        ("dataset = 'mnist'", "dataset", "did you mean task.dataset?"),
        ("kind = 'dm'", "kind", "did you mean optimizer.kind?"),
        ("hidden = 3", "hidden", "did you mean task.hidden or optimizer.hidden?"),
        ("radii = [1]", "radii", "did you mean evaluation.radii?"),
        ("sed = 1", "sed", "did you mean seed?"),
        ("Seed = 1", "Seed", "did you mean seed?"),
        ("[optimiser]", "optimiser", "did you mean optimizer?"),
        ("[Meta]", "Meta", "did you mean meta?"),
        ("[[tasks]]", "tasks", "did you mean task?"),
        ("[penalties.sam]", "penalties", "did you mean penalty?"),
        ("[sam]\nrho = 1", "sam", "did you mean [penalty.sam]?"),
        ("[meta]\nepoch = 1", "meta.epoch", "did you mean epochs?"),
        ("[meta]\nEpochs = 1", "meta.Epochs", "did you mean epochs?"),
        ("[meta]\nname = 'x'", "meta.name", "did you mean name before the first table?"),
        ("[meta]\nextends = 'lo'", "meta.extends", "did you mean extends before the first table?"),
        (
            "[meta]\nascent_steps = 1",
            "meta.ascent_steps",
            "evaluation.ascent_steps, penalty.smooth.ascent_steps",
        ),
        ("[meta]\nrho = 1", "meta.rho", "penalty.gam.rho, penalty.gsam.rho or penalty.sam.rho"),
        ("[meta.penalty.sam]", "meta.penalty", "did you mean [penalty]?"),
        ("[evaluation]\nepochs = 1", "evaluation.epochs", "did you mean meta.epochs?"),
        ("[task]\nepochs = 1", "task.epochs", "did you mean meta.epochs?"),
        ("[task]\nclass = [1, 2]", "task.class", "did you mean classes?"),
        ("[[task]]\n[[task]]\nbatchsize = 3", "task.1.batchsize", "did you mean batch_size?"),
        ("[optimizer]\nlearning_rate = 1.0", "optimizer.learning_rate", "did you mean meta.learning_rate?"),
        ("[penalty.samm]", "penalty.samm", "did you mean sam?"),
        ("[penalty.SAM]", "penalty.SAM", "did you mean sam?"),
        ("[penalty]\nweight = 1.0", "penalty.weight", "penalty.gam.weight, penalty.gsam.weight"),
        ("[penalty.sam]\nalpha = 1.0", "penalty.sam.alpha", "did you mean penalty.gsam.alpha?"),
        ("[penalty.sam]\nlambda = 1.0", "penalty.sam.lambda", ""),
        ("[penalty.sam.extra]", "penalty.sam.extra", ""),
        ('"a\\nb\\u001b[31m" = 1', r"a\nb\x1b[31m", ""),
        ('"" = 1', "", ""),
    ],
)
def test_an_unknown_key(text, path, hint):
    (line,) = problems(text)
    assert line.startswith(f"{path}: found an unknown key; allowed: " if path else "found an unknown key"), line
    assert hint in line if hint else "did you mean" not in line, line


def test_the_allowed_keys_are_listed():
    assert "allowed: weight, start, relative, rho" in problems("[penalty.sam]\nx = 1")[0]
    allowed = "asam, gam, gsam, hessian_trace, l2, orthogonal, sam, smooth, spectral, top_eigenvalue"
    assert f"allowed: {allowed}" in problems("[penalty.x]")[0]
    tables = "task, optimizer, meta, objective, penalty, evaluation"
    assert f"seed, threads, extends; tables: {tables}" in problems("x = 1")[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[task]\noptimizee = 'resnet18'\nhidden = [20]",
            'task.hidden: found a key that optimizee = "resnet18" does not have; allowed: dataset, optimizee, ',
        ),
        ("[task]\noptimizee = 'resnet18'\nhidden = [20]", "(it is one of mlp, mlp-gelu, mlp-relu or 2 more)"),
        ("[task]\ndataset = 'mnist'\naugment = true", 'dataset = "mnist" does not have'),
        ("[task]\naugment = true", "(it is one of cifar10, cifar100 or folder)"),
        ("[[task]]\n[[task]]\ndropout = 0.1", 'task.1.dropout: found a key that optimizee = "mlp" does not have'),
        ("[optimizer]\nkind = 'simple'\nlayers = 2", '(it is one of dm, meta-lstm or rnnprop)'),
        ("[optimizer]\npreprocess = 2\nkind = 'rnnprop'", 'optimizer.preprocess: found a key that kind = "rnnprop"'),
    ],
)  # fmt: skip
def test_a_key_of_another_member(text, words):
    (line,) = problems(text)
    assert words in line


def test_a_wrong_pick_hides_no_other_problem_and_makes_up_none():
    text = "[task]\ndataset = 'minst'\naugment = true\nhidden = [0]\n[optimizer]\nkind = 'DM'\nlayers = 9\nhiden = 1\n"
    lines = problems(text)
    assert [line.split(": ")[0] for line in lines] == [
        "task.dataset", "task.hidden", "optimizer.kind", "optimizer.layers", "optimizer.hiden"
    ]  # fmt: skip
    assert "did you mean mnist?" in lines[0] and "did you mean dm?" in lines[2]
    for value in ("['dm']", "{}", "3"):
        assert problems(f"[optimizer]\nkind = {value}\nlayers = 2")[0].startswith("optimizer.kind: found")
        assert problems(f"[task]\ndataset = {value}\naugment = true")[0].startswith("task.dataset: found")


# -- tables that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "task = 'mnist'",
            'task: found "mnist"; allowed: a table [task], or several [[task]] (did you mean task.dataset',
        ),
        ("task = 'lenet'", 'did you mean task.optimizee = "lenet"?'),
        ("task = []", "task: found []"),
        ("task = [1]", "task: found [1]"),
        ("task = [{}, 1]", "task: found [a table, 1]"),
        ("optimizer = 'simple'", 'did you mean optimizer.kind = "simple"?'),
        ("optimizer = 'adam'", 'optimizer: found "adam"; allowed: a table: [optimizer]'),
        ("[[optimizer]]", "optimizer: found [a table]; allowed: a table: [optimizer]"),
        ("meta = 3", "meta: found 3; allowed: a table: [meta]"),
        ("evaluation = true", "evaluation: found true; allowed: a table: [evaluation]"),
        ("penalty = 'sam'", "did you mean [penalty.sam]?"),
        ("penalty = ['sam']", 'penalty: found ["sam"]; allowed: tables, as [penalty.sam]'),
        ("[[penalty]]\nname = 'sam'", "penalty: found [a table]"),
        ("penalty.sam = 0.1", "penalty.sam: found 0.1; allowed: a table: [penalty.sam] (as penalty.sam.weight = 1)"),
        ("penalty.sam = false", "(penalty.sam.weight = 0 makes it count nothing)"),
        ("[meta]\nepochs = {x = 1}", "meta.epochs: found a table; allowed: an integer >= 0"),
    ],
)
def test_a_table_that_is_none(text, words):
    (line,) = problems(text)
    assert words in line


# -- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[meta]\nepochs = 10.0", "meta.epochs: found 10.0; allowed: an integer >= 0 (write 10)"),
        ("[meta]\nepochs = '10'", "(write 10 without quotes)"),
        ("[meta]\nepochs = true", "meta.epochs: found true"),
        ("[meta]\nlearning_rate = 0", "meta.learning_rate: found 0; allowed: a number > 0 and <= 1000"),
        ("[meta]\nlearning_rate = nan", "meta.learning_rate: found nan"),
        ("[meta]\nclip_at = inf", "meta.clip_at: found inf"),
        ("[meta]\nclip_at = 1e999", "meta.clip_at: found inf"),
        ("[meta]\nweights = 'Uniform'", "did you mean uniform?"),
        ("[meta]\nepochs = 99999999999999999999", "meta.epochs: found 99999999999999999999"),
        (f"seed = 0x{'f' * 5000}", "seed: found an integer of about 6021 digits"),
        ("seed = 9007199254740993", "<= 9007199254740992"),
        ("[penalty.sam]\nrho = -0.01", "penalty.sam.rho: found -0.01; allowed: a number >= 0"),
        ("[penalty.sam]\nweight = '1'", "penalty.sam.weight"),
        ("name = 5", 'name: found 5; allowed: a string (write "5", in quotes)'),
        ("name = 2024-01-01", "name: found 2024-01-01"),
        ("tags = 'a'", 'write ["a"]'),
        ("name = 'a\u202eb'", r'name: found "a\u202eb"; allowed: at most 80 printable characters'),
        (r'name = "a\nb"', r'name: found "a\nb"'),
        ("name = '  '", "not only spaces"),
        (f"name = '{'x' * 81}'", "at most 80"),
        # what concerns more than one value
        ("[meta]\ninner_steps = [20, 20]", "meta.inner_steps: found [20, 20]; allowed: a growing list"),
        ("[meta]\ninner_steps = [40, 30]", "a growing list"),
        ("[meta]\ntruncation = 101", "meta.truncation: found 101; allowed: at most 100, which is meta.inner_steps"),
        ("[meta]\ninner_steps = [10, 50]", "meta.truncation: found 20; allowed: at most 10, the shortest"),
        ("[evaluation]\nradii = [0.1, 1e-1]", "evaluation.radii: found [0.1, 0.1]; allowed: different radii"),
        ("[evaluation]\nradii = [0.1, 0.10000000001]", "different radii"),  # figures go by six digits of their radius
        ("[penalty.sam]\nstart = 100", "penalty.sam.start: found 100; allowed: below 100"),
        ("[task]\nclasses = [3]", "task.classes: found [3]; allowed: two or more different classes"),
        ("[[task]]\n[[task]]\nclasses = [3, 3]", "task.1.classes: found [3, 3]"),
    ],
)
def test_a_bad_value(text, words):
    (line,) = problems(text)
    assert words in line


def test_names_that_are_odd_but_fine():
    for name in ("../up", "a/b", "[red]x[/red]", "ünï ☃", "-x", "x" * 80):
        assert from_mapping({"name": name}).name == name


def test_every_problem_at_once_in_every_table_with_the_rules():
    lines = problems(
        "seed = -1\nextra = 1\n[task]\nbatch_size = 0\n[optimizer]\nkind = 'x'\n[meta]\nepoch = 1\ntruncation = 500\n"
        "[penalty.sam]\nrho = -1\nstart = 200\n[penalty.x]\n[evaluation]\nradii = [1, 1]\nevery = 0\n"
    )
    assert [line.split(": ")[0] for line in lines] == [
        "seed", "extra", "task.batch_size", "optimizer.kind", "meta.epoch", "evaluation.every", "penalty.sam.rho",
        "penalty.x", "meta.truncation", "penalty.sam.start", "evaluation.radii",
    ]  # fmt: skip


# -- the preset as an object -----------------------------------------------------------------------------------------


def odd_presets() -> list[Preset]:
    """Presets with everything that is hard to write down, and random ones."""
    text = "a\"b\\c'd\n\t\x7f\x01 é☃\u202e'''\"\"\" # [x]"
    odd = [
        {"name": "q\"uo'te", "description": text, "tags": ["", text, "a,b"], "seed": 2**53},
        {"task": [{"dataset": "mnist", "classes": [3, 1]}, {"optimizee": "lenet"}, {"hidden": []}]},
        {"meta": {"inner_steps": [20, 30], "learning_rate": 1e-300, "clip_at": 1e300, "epochs": 0}},
        {"penalty": {"smooth": {}, "sam": {"rho": 0, "relative": True}, "spectral": {"weight": 0.1 + 0.2}}},
    ]
    draw = random.Random(0)
    for _ in range(20):
        kind = draw.choice(["dm", "simple", "rnnprop"])
        odd.append(
            {
                "optimizer": {"kind": kind, "output_scale": draw.random() + 1e-9, "theta_input": draw.random() < 0.5},
                "penalty": {name: {"weight": draw.expovariate(0.1)} for name in draw.sample(["sam", "gam", "l2"], 2)},
                "evaluation": {"radii": [10 ** draw.uniform(-9, 3) for _ in range(draw.randint(1, 5))]},
                "tags": ["".join(chr(draw.randrange(1, 0x3000)) for _ in range(9)) for _ in range(2)],
            }
        )
    return [from_mapping(document) for document in odd]


def test_what_is_dumped_is_loaded_again_exactly():
    for preset in [*map(load_preset, shipped()), *odd_presets(), defaults(), from_mapping({})]:
        Path("dumped.toml").write_text(preset.dumps(), encoding="utf-8")
        again = load_preset("dumped.toml")
        assert again.values == preset.values and again.dumps() == preset.dumps()
        assert again.flat() == preset.flat()
        assert from_mapping(preset.values).values == preset.values


def test_lists_are_dumped_on_one_line_where_they_fit():
    text = load_preset("quickstart").dumps()
    assert "hidden = [20]" in text and "radii = [0.01, 0.05]" in text and "classes = []" in text
    long = from_mapping({"tags": ["a tag of some length"] * 10, "task": {"hidden": [1, 2]}}).dumps()
    assert "hidden = [1, 2]" in long and max(map(len, long.splitlines())) <= 120


def test_flat_lists_every_key_by_the_path_that_set_takes():
    preset = load_preset("lo-sam")
    flat = preset.flat()
    assert flat["task.dataset"] == "mnist" and flat["penalty.sam.rho"] == 0.11 and flat["seed"] == 0
    assert flat["meta.inner_steps"] == (100, 200, 500, 1000)
    assert not any(isinstance(value, (dict, list)) for value in flat.values())
    several = from_mapping({"task": [{}, {"dataset": "mnist"}]}).flat()
    assert several["task.1.dataset"] == "mnist" and "task.dataset" not in several


def test_other_values_at_the_top_are_checked():
    preset = load_preset("quickstart")
    other = preset.with_values(name="other", seed=7)
    assert (other.name, other.seed) == ("other", 7) and preset.seed == 0
    assert {key: other[key] for key in TABLES} == {key: preset[key] for key in TABLES}
    for values in ({"seed": -1}, {"name": "\x1b"}, {"sede": 1}, {"extends": "lo"}):
        with pytest.raises(PresetError, match="^quickstart: "):
            preset.with_values(**values)


def test_the_defaults_are_a_preset():
    assert defaults().name == "default"
    assert {item.name for item in schema_of(PresetSettings)} | set(TABLES) == set(defaults().values)
    assert from_mapping({}).name == "unnamed"


# -- the shipped presets ---------------------------------------------------------------------------------------------


def test_the_shipped_presets_are_those_of_the_issue():
    assert tuple(sorted(shipped())) == tuple(sorted((*SHIPPED, *SIB)))
    for name, path in shipped().items():
        preset = load_preset(name)
        assert preset.name == name and preset["description"] and preset["description"].isprintable()
        assert load_preset(path).values == preset.values


def differences(name: str, parent: str) -> set[str]:
    """The paths at which two presets differ, apart from what they are called."""
    one, other = load_preset(name).flat(), load_preset(parent).flat()
    paths = {path for path in one.keys() | other.keys() if one.get(path) != other.get(path)}
    return {path.rsplit(".", 1)[0] if path.startswith("penalty.") else path for path in paths} - {"name", "description"}


@pytest.mark.parametrize(
    ("name", "parent", "differing"),
    [
        ("lo-sam", "lo", {"penalty.sam"}),
        ("lo-gsam", "lo", {"penalty.gsam"}),
        ("lo-gam", "lo", {"penalty.gam"}),
        ("lo-asam", "lo", {"penalty.asam"}),
        ("lo-hessian-trace", "lo", {"penalty.hessian_trace"}),
        ("lo-top-eigenvalue", "lo", {"penalty.top_eigenvalue"}),
        ("lo-smooth", "lo", {"penalty.smooth"}),
        ("flat-simple-sam", "flat-simple", {"penalty.sam"}),
        ("flat-simple-gsam", "flat-simple", {"penalty.gsam"}),
        ("flat-simple-gam", "flat-simple", {"penalty.gam"}),
        ("flat-rnnprop-gam", "flat-rnnprop", {"penalty.gam", "meta.epochs", "meta.learning_rate"}),
        ("lo-sam-smooth", "lo-sam", {"penalty.smooth"}),
        ("lo-gsam-smooth", "lo-gsam", {"penalty.smooth"}),
        ("lo-gam-smooth", "lo-gam", {"penalty.smooth"}),
        ("lo-sam-smooth", "lo-smooth", {"penalty.sam"}),
        ("smooth-lenet-mnist", "smooth-mlp-mnist", {"task.optimizee", "task.dropout", "task.hidden", "task.depth"}),
        (
            "smooth-conv3-cifar10",
            "smooth-mlp-mnist",
            {"task.dataset", "task.optimizee", "task.augment", "task.hidden", "task.depth"},
        ),
    ],
)
def test_a_shipped_preset_differs_from_its_parent_only_where_it_says_so(name, parent, differing):
    assert differences(name, parent) == differing


def test_the_papers_setting():
    preset = load_preset("lo")
    assert (preset.tasks[0]["dataset"], preset.tasks[0]["optimizee"]) == ("mnist", "mlp")
    assert preset["meta"]["inner_steps"] == (100, 200, 500, 1000) and preset["optimizer"]["kind"] == "dm"
    assert preset["penalty"] == {}
    quickstart = load_preset("quickstart")
    assert quickstart.tasks[0]["dataset"] == "digits" and set(quickstart["penalty"]) == {"gsam", "smooth"}


def trainer_of(name: str, *sets: str) -> MetaTrainer:
    preset = load_preset(name, sets)
    trainer = meta_trainer(preset, device=torch.device("cpu"))
    assert trainer.penalties.keys() == preset["penalty"].keys()
    return trainer


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_preset_can_be_trained(name, monkeypatch):
    """On its own dataset, with digits in the place of its images; where these have too few classes, on digits."""
    put_digits_in_their_place(monkeypatch)
    few_shot = name.startswith(("meta-lstm-omniglot", "meta-lstm-cifar"))
    tasks = range(len(load_preset(name).tasks)) if few_shot else ()
    assert trainer_of(name, *(f"task.{number}.dataset=digits" for number in tasks)).total > 0


def test_settings_that_came_later_decide_nothing_at_their_defaults():
    """Names of runs and evaluations that are there already are made of what decides them."""
    values = defaults().values
    for table, later in LATER.items():
        assert {key: values[table][key] for key in later} == later
    assert "step_scale" not in defaults().decisive()["optimizer"] and "seed" not in defaults().decisive({"seed"})
    changed = from_mapping({"optimizer": {"step_scale": "mup"}}).decisive()
    assert changed["optimizer"]["step_scale"] == "mup" and "features" not in changed["optimizer"]
