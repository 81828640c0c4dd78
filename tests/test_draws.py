"""Tasks with ranges and choices: what is drawn, how often, from which seed, and what a preset may say of it."""

from __future__ import annotations

import collections
import itertools
import json
import math

import pytest
import torch
from scipy import stats
from test_meta import TINY, run, steady

from engine.base import seeds, toml_text
from engine.base.draws import HELD_OUT_DRAWS, Choices, ListRange, Range, draw
from engine.base.errors import LregError, PresetError
from engine.base.settings import setting
from engine.evaluation.transfer_plan import TransferSettings, make
from engine.jobs.from_preset import meta_trainer
from engine.presets import catalog as catalogs
from engine.presets.preset import Preset, from_mapping, load_preset, merge
from engine.runs.store import RunReader
from engine.study.schedule import inputs
from engine.tasks.optimizees.base import ACTIVATIONS, INITS, OPTIMIZEES, Optimizee
from engine.tasks.table import DrawnTasks, build_task, build_tasks, check_tasks
from engine.worker import train

CPU = torch.device("cpu")
MIXED = {
    "dataset": "digits", "optimizee": "mlp", "batch_size": 16, "activation": ["sigmoid", "relu", "tanh"],
    "hidden": [3, 9], "depth": [1, 2],
}  # fmt: skip
DRAWS = 20_000


def preset(task: object, **changes: object) -> Preset:
    return from_mapping({**merge(TINY, changes), "task": task})


def distribution(task: dict) -> DrawnTasks:
    (values,) = preset(task).tasks
    return build_tasks(values, device=CPU)


def uniform(number: int) -> float:
    return (seeds.derive(number, "u") >> 10) / 2**53


# -- what is drawn ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("low, high", [(1, 3), (16, 64), (7, 8)])
def test_integers_are_log_uniform_with_both_ends(low, high):
    """P(k) = log((k + 1) / k) / log((high + 1) / low), by a chi-squared test."""
    counts = collections.Counter(Range((low, high)).at(uniform(number)) for number in range(DRAWS))
    numbers = range(low, high + 1)
    assert set(counts) == set(numbers)
    expected = [DRAWS * math.log((k + 1) / k) / math.log((high + 1) / low) for k in numbers]
    assert sum(expected) == pytest.approx(DRAWS)
    assert stats.chisquare([counts[k] for k in numbers], expected).pvalue > 1e-3


def test_numbers_are_log_uniform_and_from_zero_on_uniform():
    positive = [math.log(Range((0.01, 10.0)).at(uniform(number))) for number in range(DRAWS)]
    assert stats.kstest(positive, stats.uniform(math.log(0.01), math.log(1000)).cdf).pvalue > 1e-3
    from_zero = [Range((0.0, 0.5)).at(uniform(number)) for number in range(DRAWS)]
    assert stats.kstest(from_zero, stats.uniform(0, 0.5).cdf).pvalue > 1e-3
    counts = collections.Counter(Range((0, 3)).at(uniform(number)) for number in range(DRAWS))
    assert stats.chisquare([counts[k] for k in range(4)]).pvalue > 1e-3


def test_choices_are_uniform_and_keys_are_independent():
    (values,) = preset({**MIXED, "init": ["normal", "kaiming"]}).tasks
    families = {key: members for key, _, members in catalogs.load().selectors("task")}
    drawn = [draw(values, seed, families) for seed in range(6000)]
    pairs = collections.Counter((table["activation"], table["init"]) for table in drawn)
    assert set(pairs) == set(itertools.product(MIXED["activation"], ["normal", "kaiming"]))
    assert stats.chisquare(list(pairs.values())).pvalue > 1e-3


def test_a_seed_decides_the_task_and_equal_draws_are_one_task():
    one, other = distribution(MIXED), distribution(MIXED)
    first, second = [one.sample(seed) for seed in range(60)], [other.sample(seed) for seed in range(60)]
    assert [task.values for task in first] == [task.values for task in second]
    told = [json.dumps(task.values) for task in first]
    assert 10 < len(set(told)) == len({id(task) for task in first}) < 60
    assert one.sample(7) is first[7]


def test_another_range_leaves_the_other_keys_draws_alone():
    fewer, more = distribution(MIXED), distribution({**MIXED, "batch_size": [8, 32]})
    for seed in range(20):
        one, other = fewer.sample(seed).values, more.sample(seed).values
        assert {**one, "batch_size": 0} == {**other, "batch_size": 0} and 8 <= other["batch_size"] <= 32


def test_what_is_drawn_is_the_network():
    """Its number of parameters, and its outputs by the formula."""
    for seed in range(12):
        task = distribution(MIXED).sample(seed)
        (width,), depth = task.values["hidden"], task.values["depth"]
        assert task.parameters == 65 * width + (depth - 1) * (width + 1) * width + (width + 1) * 10
        theta, x = task.init_theta(3), task.fixed_batch(5, dtype=torch.float32).x
        parts, expected = list(task.layout.split(theta).values()), x.flatten(1)
        for weight, bias in zip(parts[:-2:2], parts[1:-2:2], strict=True):
            expected = ACTIVATIONS[task.values["activation"]](expected @ weight.T + bias)
        torch.testing.assert_close(task.outputs(theta, x), expected @ parts[-2].T + parts[-1])


def test_members_are_drawn_with_the_keys_that_they_have():
    task = {"optimizee": ["mlp", "mlp-xh", "lenet"], "activation": ["relu", "tanh"], "dropout": [0.0, 0.5]}
    drawn = [distribution({**task, "batch_size": 8}).sample(seed).values for seed in range(12)]
    assert {table["optimizee"] for table in drawn} == set(task["optimizee"])
    for table in drawn:
        assert ("dropout" in table, "hidden" in table) == (table["optimizee"] == "lenet", table["optimizee"] != "lenet")
        if "hidden" in table:
            assert table["hidden"] == ((20,) if table["optimizee"] == "mlp" else (32,)), "each its own default"


def test_several_tables_are_equally_likely_whatever_they_draw():
    fixed = {"dataset": "digits", "optimizee": "mlp", "hidden": [4], "batch_size": 16}
    one = meta_trainer(preset([fixed, MIXED]), device=CPU)
    tasks = [one.tasks.sample(seed) for seed in range(400)]
    is_fixed = sum(task.values["hidden"] == (4,) and task.values["depth"] == 0 for task in tasks)
    assert stats.binomtest(is_fixed, 400, 0.5).pvalue > 1e-3
    held_out = one.tasks.held_out(3)
    assert held_out[0][1] == [0, 1, 2] and sum(len(numbers) for _, numbers in held_out) == 6


# -- meta-training ---------------------------------------------------------------------------------------------------


def test_resuming_gives_the_metrics_of_an_uninterrupted_run_bit_for_bit():
    made = preset(MIXED, meta={"meta_batch": 4}, penalty={"gsam": {}, "smooth": {"ascent_steps": 1}})
    whole = steady(run(meta_trainer(made, device=CPU)))
    interrupted, records = meta_trainer(made, device=CPU), []
    for units in (2, 7):
        records += run(interrupted, units - len(records))
        tensors, values = interrupted.state_dict()
        interrupted = meta_trainer(made, device=CPU)
        interrupted.load_state_dict(tensors, json.loads(json.dumps(values)))
    assert steady(records + run(interrupted)) == whole


def test_held_out_tasks_are_the_same_for_every_meta_seed_and_the_transfers(tmp_path):
    """A whole run, and what its transfer evaluations would be of."""
    made = preset(MIXED, meta={"epochs": 1}, evaluation={"final_optimizees": 3})
    others = meta_trainer(made.with_values(seed=5), device=CPU).tasks.held_out(3)
    reader = train(made, tmp_path, "cpu")
    results = [item["task"] for item in reader.transfers().values() if item["label"].startswith("simple (best)")]
    assert sorted(map(str, results)) == sorted(str(json.loads(json.dumps(task.facts))) for task, _ in others)
    again = RunReader(reader.path).preset()
    assert again.values == made.values
    tasks = make([reader], [], TransferSettings()).tasks
    assert len(tasks) == HELD_OUT_DRAWS and [task.values for task, _ in others] == list(tasks[:3])


# -- what a preset may say -------------------------------------------------------------------------------------------


def test_a_list_of_hidden_layers_is_a_range_where_something_says_so():
    def hidden(**task: object) -> object:
        return preset(task).tasks[0]["hidden"]

    assert hidden(hidden=[16, 64]) == (16, 64) and not isinstance(hidden(hidden=[16, 64]), Range)
    for beside in ({"depth": 1}, {"depth": [1, 3]}, {"activation": ["relu", "tanh"]}):
        assert isinstance(hidden(hidden=[16, 64], **beside), ListRange)
        assert hidden(hidden=[16], **beside) == (16,)
    assert hidden(hidden=[[64, 32], [20]]) == Choices([(64, 32), (20,)])
    built = build_task({"hidden": [5], "depth": 3, "dataset": "digits"}, device=CPU)
    assert [shape[0] for shape in built.layout.shapes.values()][::2] == [5, 5, 5, 10]


def test_a_preset_with_ranges_is_the_same_when_it_is_loaded_again(tmp_path):
    made = preset([MIXED, {"optimizee": ["mlp", "lenet"], "hidden": [[8], [4, 4]], "dataset": ["digits", "mnist"]}])
    (tmp_path / "again.toml").write_text(made.dumps())
    again = load_preset(tmp_path / "again.toml")
    assert again.values == made.values
    kinds = [{key: type(value) for key, value in table.items()} for table in again.tasks]
    assert kinds == [{key: type(value) for key, value in table.items()} for table in made.tasks]


@pytest.mark.parametrize(
    "task, key, allowed",
    [
        ({"activation": ["relu", "softsign"]}, "task.activation", ['"softsign" does not fit', "sigmoid, relu, tanh"]),
        ({"activation": ["relu", "relu"]}, "task.activation", ["twice"]),
        ({"activation": []}, "task.activation", ["empty"]),
        ({"batch_size": [64, 16]}, "task.batch_size", ["[low, high]", "the low end comes first"]),
        ({"batch_size": [16, 32, 64]}, "task.batch_size", ["[low, high]", "two ends"]),
        ({"batch_size": [0, 16]}, "task.batch_size", ["0 does not fit", "an integer >= 1"]),
        ({"hidden": [64, 32], "depth": 2}, "task.hidden", ["[low, high]", "[[64, 32]]"]),
        ({"hidden": [0, 32], "depth": 2}, "task.hidden", ["0 does not fit"]),
        ({"dataset": ["digits", "mnits"]}, "task.dataset", ['"mnits" does not fit', "digits"]),
        (
            {"optimizee": ["mlp", "mlp-xh"], "dropout": 0.5},
            "task.dropout",
            ['["mlp", "mlp-xh"] does not have', "lenet"],
        ),
        ({"optimizee": ["mlp", "lenet"], "dropout": [0.1, 0.95]}, "task.dropout", ["0.95 does not fit", "<= 0.9"]),
        ({"classes": [[0, 1], [2, 2]]}, "task.classes", ["different classes"]),
    ],
)
def test_what_does_not_fit_is_told_with_file_key_and_what_is_allowed(tmp_path, task, key, allowed):
    file = tmp_path / "mine.toml"
    file.write_text(toml_text.dumps({"task": task}))
    with pytest.raises(PresetError) as error:
        load_preset(file)
    (problem,) = error.value.problems
    line = str(error.value)
    assert problem.path == key and str(file) in line and all(words in line for words in allowed), line


def test_no_other_table_draws():
    with pytest.raises(PresetError, match=r"meta.learning_rate: found \[0.1, 0.2\]"):
        from_mapping({"meta": {"learning_rate": [0.1, 0.2]}})


def test_a_target_of_a_transfer_is_one_task(tmp_path):
    reader = train(preset(MIXED, meta={"epochs": 1}, evaluation={"final_optimizees": 0}), tmp_path, "cpu")
    with pytest.raises(PresetError, match=r"--to digits/mlp: task.activation: found .* a target is one task"):
        make([reader], ["digits/mlp"], TransferSettings(), {"task": {"activation": ["relu", "tanh"]}})
    (task,) = make([reader], ["digits/mlp"], TransferSettings(), {"task": {"hidden": [5]}}).tasks
    assert (task["hidden"], task["activation"], task["batch_size"]) == ((5,), "sigmoid", 16)


def test_every_member_that_may_be_drawn_is_tried_before_a_run():
    """The meta-training would meet the one that does not fit after an hour."""
    with pytest.raises(PresetError, match=r"classes: found \[0, 12\]"):
        check_tasks(preset({"classes": [[0, 1], [0, 12]]}).tasks[0], device=CPU)


def test_a_parents_choices_are_left_behind_with_the_member(tmp_path):
    (tmp_path / "base.toml").write_text('[task]\noptimizee = ["mlp", "lenet"]\nhidden = [4, 8]\ndropout = 0.5\n')
    (tmp_path / "child.toml").write_text('extends = "base.toml"\n[task]\noptimizee = "lenet"\n')
    (task,) = load_preset(tmp_path / "child.toml").tasks
    assert "hidden" not in task and task["dropout"] == 0.5


# -- a plug-in's own settings ----------------------------------------------------------------------------------------


def test_a_plug_ins_scalar_settings_are_drawn_from_too(monkeypatch):
    monkeypatch.setattr(OPTIMIZEES, "_members", dict(OPTIMIZEES._members))

    @OPTIMIZEES.register("scaled-linear")
    class ScaledLinear(Optimizee):
        """A linear classifier of scaled inputs."""

        factor: float = setting(1.0, above=0.0, help="of the inputs")
        bias: bool = setting(True, help="whether there is one")

        def build(self, input_shape, outputs):
            linear = torch.nn.Linear(math.prod(input_shape), outputs, bias=self.bias)
            return torch.nn.Sequential(torch.nn.Flatten(), linear)

    task = {"optimizee": "scaled-linear", "factor": [0.5, 2.0], "bias": [True, False]}
    (values,) = from_mapping({"task": task}, catalog=catalogs.build()).tasks
    assert values["factor"] == Range((0.5, 2.0)) and values["bias"] == Choices((True, False))
    tasks = build_tasks(values, device=CPU)
    drawn = [tasks.sample(seed) for seed in range(20)]
    assert {one.parameters for one in drawn} == {640, 650} and len({one.optimizee.factor for one in drawn}) == 20


# -- starts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", INITS)
def test_the_starts_have_the_spread_of_their_formula(init):
    task = build_task({"dataset": "digits", "hidden": [200], "init": init}, device=CPU)
    weight, bias, *_ = task.layout.split(task.init_theta(0)).values()  # fan-in 64, fan-out 200
    spread = {"normal": 0.01, "uniform": 1 / 8 / 3**0.5, "kaiming": (2 / 64) ** 0.5, "xavier": (2 / 264) ** 0.5}[init]
    assert float(weight.std()) == pytest.approx(spread, rel=0.03) and abs(float(weight.mean())) < spread / 20
    if init in ("kaiming", "xavier"):
        assert not bias.any()
        is_normal = stats.kstest(weight.flatten().double() / spread, "norm").pvalue > 1e-3
        assert is_normal == (init == "kaiming")


def test_a_process_that_is_asked_whether_the_data_are_there_knows_ranges(forked):
    """The console and studies ask one: what it is told has been JSON."""
    inputs.check_run(preset(MIXED).tasks, "cpu", None)
    with pytest.raises(LregError, match=r"classes: found \[0, 12\]"):
        inputs.check_run(preset({"classes": [[0, 1], [0, 12]]}).tasks, "cpu", None)
