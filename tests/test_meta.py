"""Meta-training on real digits: what is logged, what is chosen, and going on from a checkpoint bit for bit."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from engine.base.errors import PresetError, TrainingError
from engine.jobs.from_preset import meta_trainer
from engine.meta_training import validation as evaluation
from engine.meta_training.meta_epoch import MetaEpoch
from engine.meta_training.meta_train import MetaTrainer
from engine.presets.preset import from_mapping, load_preset, merge
from engine.tasks.base import Task, UniformTasks

TINY = {
    "name": "tiny",
    "task": {"dataset": "digits", "optimizee": "mlp", "hidden": [4], "batch_size": 16},
    "optimizer": {"kind": "simple", "hidden": 6},
    "meta": {"epochs": 4, "inner_steps": 10, "truncation": 5, "meta_batch": 2, "learning_rate": 3e-3},
    "evaluation": {
        "every": 2, "optimizees": 2, "examples": 10, "restarts": 1, "ascent_steps": 1, "final_optimizees": 2,
        "radii": [0.05],
    },
}  # fmt: skip
TWO_TASKS = [TINY["task"], {**TINY["task"], "optimizee": "mlp-relu", "hidden": [6]}]
VOLATILE = {"inner_steps_per_s", "coordinate_steps_per_s", "memory_bytes"}
CPU = torch.device("cpu")


def trainer(**changes) -> MetaTrainer:
    return meta_trainer(from_mapping(merge(TINY, changes)), device=CPU)


def run(one: MetaTrainer, units: int | None = None) -> list[dict]:
    records: list[dict] = []
    while not one.finished and (units is None or len(records) < units):
        records += one.advance()
    return records


def steady(records: list[dict]) -> list[dict]:
    return [{name: value for name, value in record.items() if name not in VOLATILE} for record in records]


ALL_PENALTIES = {
    "sam": {"rho": 0.05},
    "gsam": {"rho": 0.05, "relative": True},
    "gam": {"rho": 0.05, "weight": 0.1, "start": 3},
    "smooth": {"ascent_steps": 2},
    "l2": {"weight": 1e-3},
    "orthogonal": {"weight": 1e-3},
    "spectral": {"weight": 0.5},
}


def test_records_hold_the_figures_of_the_contract():
    records = run(trainer(penalty=ALL_PENALTIES))
    steps = [record for record in records if "meta_loss" in record]
    evaluations = [record for record in records if "validation_loss" in record]
    assert [record["step"] for record in steps] == list(range(1, 9))
    assert [(record["step"], record["meta_epoch"]) for record in evaluations] == [(0, 0), (4, 2), (8, 4)]
    names = {f"{name}_penalty" for name in ALL_PENALTIES} | {f"{name}_penalty_share" for name in ALL_PENALTIES}
    names |= {"meta_loss", "update_norm", "meta_grad_norm", *VOLATILE, "skipped", "diverged"}
    assert names <= set(steps[0]), names - set(steps[0])
    assert all(math.isfinite(value) for record in steps for value in record.values())
    figures = {"train_loss", "test_loss", "test_accuracy", "sharpness", "max_grad_norm", "surrogate_gap"}
    assert figures <= set(evaluations[0])


def test_meta_training_learns_to_train_digits():
    """After 60 meta-steps a fresh optimizee ends far below where it began, and below what the untrained one reaches."""
    one = trainer(
        task={"hidden": [20], "batch_size": 64},
        optimizer={"hidden": 20},
        meta={"epochs": 6, "inner_steps": 100, "truncation": 10, "meta_batch": 1, "learning_rate": 3e-3},
    )
    records = [record for record in run(one) if "validation_loss" in record]
    assert records[-1]["validation_loss"] < 0.6 < math.log(10) < records[0]["validation_loss"]
    assert records[-1]["test_accuracy"] > 0.85


@pytest.mark.parametrize(
    "changes",
    [
        {"penalty": ALL_PENALTIES},
        {"optimizer": {"kind": "rnnprop"}, "meta": {"random_scaling": 1.0, "loss_batch": "validation"}},
        {
            "optimizer": {"kind": "dm", "theta_input": True},
            "meta": {"inner_steps": [5, 10], "epochs": 12, "meta_batch": 1},
            "evaluation": {"every": 1},
            "penalty": {"spectral": {}},
        },
        {"meta": {"momentum": 0.9, "optimizer": "sgd", "schedule": "cosine", "second_order": True}},
        {"task": {"optimizee": "lenet", "dropout": 0.5}, "meta": {"epochs": 2}},
        {"task": TWO_TASKS, "penalty": {"gsam": {}, "smooth": {"ascent_steps": 1}}},
        {
            "optimizer": {"kind": "adafac", "step_scale": "rms", "features": ["time", "previous_update"]},
            "meta": {"random_scaling": 1.0, "random_scaling_of": "tensor"},
        },
    ],
    ids=["penalties", "rnnprop", "curriculum", "second-order", "dropout", "several tasks", "adafac"],
)
def test_resuming_gives_the_metrics_of_an_uninterrupted_run_bit_for_bit(changes):
    document = merge(merge(TINY, {"evaluation": {"optimizees": 1}}), changes)
    if changes.get("task") and "dropout" in changes["task"]:
        del document["task"]["hidden"]
    preset = from_mapping(document)

    def fresh() -> MetaTrainer:
        return meta_trainer(preset, device=CPU)

    whole = steady(run(fresh()))
    if isinstance(document["meta"]["inner_steps"], list):
        assert any(record.get("stage") == 1 for record in whole), "the curriculum must move on for this to be a test"
    one, records = fresh(), []
    for units in (1, 2, 4, 7, 11, 20):  # interrupted after each of them
        records += run(one, max(0, units - len(records)))
        tensors, values = one.state_dict()
        one = fresh()
        one.load_state_dict(tensors, json.loads(json.dumps(values)))
    assert steady(records + run(one)) == whole


def test_coordinates_tensors_or_networks_have_a_random_scale_each():
    one = meta_trainer(from_mapping(merge(TINY, {"meta": {"meta_batch": 3, "random_scaling": 2.0}})), device=CPU)

    def scales(of: str) -> list[list[torch.Tensor]]:
        """The logarithms of each optimizee's scales, tensor by tensor."""
        scaled = {"random_scaling": 2.0, "random_scaling_of": of}
        settings = replace(one.settings, **scaled)
        epoch = MetaEpoch(one.tasks, one.objective_on, one.estimator, settings, seed=1, number=0, horizon=10)
        (group,) = epoch.begin(3).groups
        assert group.carry.scaling.log().abs().max() <= 2.0001
        return [list(row.log().split(group.task.layout.sizes)) for row in group.carry.scaling]

    for optimizee in scales("network"):
        assert len(torch.cat(optimizee).unique()) == 1
    for optimizee in scales("tensor"):
        assert [len(tensor.unique()) for tensor in optimizee] == [1] * len(optimizee)
        assert len(torch.cat(optimizee).unique()) == len(optimizee)
    coordinates = [torch.cat(optimizee) for optimizee in scales("coordinate")]
    assert all(len(row.unique()) > 0.99 * len(row) for row in coordinates)
    assert torch.cat(coordinates).std() == pytest.approx(2 / math.sqrt(3), rel=0.1)
    assert len({float(optimizee[0][0]) for optimizee in scales("network")}) == 3


def test_a_task_distribution_is_sampled_for_each_optimizee():
    one = meta_trainer(from_mapping({**merge(TINY, {"meta": {"meta_batch": 8}}), "task": TWO_TASKS}), device=CPU)
    draws = set()
    while not one.finished:
        one.advance()
        for epoch in one.epochs:
            sizes = [group.carry.theta.shape[1] for group in epoch.groups]
            assert set(sizes) <= {(64 + 1) * 4 + (4 + 1) * 10, (64 + 1) * 6 + (6 + 1) * 10}
            assert sorted(place for group in epoch.groups for place in group.members) == list(range(8))
            draws.add(tuple(tuple(group.members) for group in epoch.groups))
    assert len(draws) == 4, "every meta-epoch draws its tasks anew"


def test_counts_of_several_tasks_add_up():
    """A SAM radius beyond all bounds breaks the penalty at every inner step of every optimizee: 4 epochs x 10 x 8."""
    document = {**merge(TINY, {"meta": {"meta_batch": 8}, "penalty": {"sam": {"rho": 1e38}}}), "task": TWO_TASKS}
    records = run(meta_trainer(from_mapping(document), device=CPU))
    assert [record for record in records if "dropped_terms" in record][-1]["dropped_terms"] == 4 * 10 * 8


def test_the_best_checkpoint_is_the_one_with_the_lowest_validation_loss():
    one, seen = trainer(meta={"epochs": 8}), {}
    while not one.finished:
        (record,) = one.advance()
        if "validation_loss" in record:
            seen[record["step"]] = (record["validation_loss"], one.frozen_state("last")[0])
    lowest = min(seen.values(), key=lambda pair: pair[0])[1]
    best = one.frozen_state("best")[0]
    assert all(torch.equal(best[name], lowest[name]) for name in best)
    untrained = one.frozen_state("initial")[0]
    assert all(torch.equal(untrained[name], tensor) for name, tensor in trainer().frozen_state("initial")[0].items())


def test_zero_weights_and_no_penalties_are_the_same_run_bit_for_bit():
    silent = {name: {**settings, "weight": 0.0} for name, settings in ALL_PENALTIES.items()}
    plain, penalized = run(trainer()), run(trainer(penalty=silent))
    for one, other in zip(steady(plain), steady(penalized), strict=True):
        assert {name: other[name] for name in one} == one


def test_init_from_starts_with_the_other_runs_learned_optimizer():
    first = trainer()
    run(first)
    phi = {name.removeprefix("frozen/"): tensor for name, tensor in first.frozen_state("best")[0].items()}
    second = meta_trainer(from_mapping(merge(TINY, {"seed": 5})), device=CPU, init_phi=phi)
    assert all(torch.equal(second.phi[name], phi[name]) for name in phi)
    with pytest.raises(PresetError, match="meta.init_from"):
        meta_trainer(from_mapping(merge(TINY, {"optimizer": {"hidden": 7}})), device=CPU, init_phi=phi)


def test_what_a_run_started_from_is_not_called_untrained():
    first = trainer()
    run(first)
    phi = {name.removeprefix("frozen/"): tensor for name, tensor in first.frozen_state("best")[0].items()}
    document = merge(TINY, {"meta": {"init_from": "some-run"}, "evaluation": {"final_optimizees": 1}})
    second = meta_trainer(from_mapping(document), device=CPU, init_phi=phi)
    rows = {row["label"]: row for row in second.result(lambda text: None)}
    assert list(rows) == ["simple (best)", "simple (untrained)", "simple (start)", "sgd", "adam"]
    assert (rows["simple (start)"]["checkpoint"], rows["simple (untrained)"]["checkpoint"]) == ("initial", None)
    fresh = next(row for row in first.result(lambda text: None) if row["label"] == "simple (untrained)")
    losses = [row["seeds"][0]["marks"][-1]["train_loss"] for row in (rows["simple (untrained)"], fresh)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_released_codes_weights_learn_even_from_an_optimizer_that_climbs():
    """Its first truncation weighs nothing, so an unroll that was ended there would never teach anything."""
    changes = ["task.dataset=digits", "task.batch_size=32", "penalty.smooth.ascent_steps=1", "meta.epochs=2"]
    one = meta_trainer(load_preset("smooth-mlp-mnist", changes), device=CPU)
    one.pending = ""
    records = [one.advance()[0] for _ in range(6)]
    assert records[-1]["meta_loss"] > 10 * math.log(10), "the untrained optimizer climbs, or this tests nothing"
    assert records[0]["meta_grad_norm"] == 0 < records[-1]["meta_grad_norm"]
    assert records[-1]["diverged"] == 0


def test_the_learning_rate_falls_but_no_meta_step_is_wasted():
    for schedule in ("linear", "cosine"):
        rates = [
            record["learning_rate"] for record in run(trainer(meta={"schedule": schedule})) if "meta_loss" in record
        ]
        assert rates == sorted(rates, reverse=True) and rates[0] == 3e-3 and 0 < rates[-1] < 1e-3


def test_the_spectral_norm_goes_into_what_is_frozen():
    one = trainer(penalty={"spectral": {}})
    run(one, 3)
    frozen = one.frozen_state("last")[0]["frozen/rnn.hidden"]
    assert float(torch.linalg.matrix_norm(frozen, 2)) == pytest.approx(1.0, rel=0.02)
    raw = one.phi["rnn.hidden"].detach()
    assert float(torch.linalg.matrix_norm(raw, 2)) != pytest.approx(1.0, rel=0.05)


def test_meta_steps_that_are_not_finite_are_skipped_counted_and_at_last_an_error():
    one = trainer(meta={"epochs": 100})
    run(one, 3)
    (task,) = one.tasks.tasks  # its landscape breaks: every penalty and loss is NaN from here on
    task.loss = lambda theta, batch: theta.sum() * torch.nan
    one.objective_on.cache_clear()
    one.epochs = []
    with pytest.raises(TrainingError, match=r"in [0-9]+ of 20 meta-steps"):
        run(one)
    assert one.counts["skipped"] > 10
    assert all(tensor.isfinite().all() for tensor in one.phi.values())


def test_a_learned_optimizer_that_only_diverges_is_a_clear_error():
    with pytest.raises(TrainingError, match="diverged in each of the last 100 meta-epochs: lower meta.learning_rate"):
        run(trainer(meta={"learning_rate": 1e3, "epochs": 200}, evaluation={"every": 300}))


def test_a_run_that_learned_nothing_says_so():
    broken = trainer(meta={"learning_rate": 1e3, "clip": "none", "optimizer": "sgd", "epochs": 3})
    run(broken)
    assert broken.counts["diverged"] > 0
    assert "diverged" in broken.remark or "no evaluation beat" in broken.remark
    meta = {"epochs": 6, "inner_steps": 100, "truncation": 10, "meta_batch": 1}
    fine = trainer(task={"hidden": [20], "batch_size": 64}, optimizer={"hidden": 20}, meta=meta)
    run(fine)
    assert fine.remark == ""


def test_result_sets_the_learned_optimizer_beside_tuned_baselines():
    one = trainer()
    run(one)
    said: list[str] = []
    result = one.result(said.append)
    assert [entry["label"] for entry in result] == ["simple (best)", "simple (untrained)", "sgd", "adam"]
    assert {text.split(": ")[1].split(",")[0] for text in said} == {entry["label"] for entry in result}
    for entry in result:
        assert [seed["seed"] for seed in entry["seeds"]] == [0, 1]
        mark = entry["seeds"][0]["marks"][-1]
        assert mark["inner_step"] == 10 and set(mark["sharpness"]) == {"0.05"}
        assert entry["seeds"][0]["curve"]["inner_step"] == [0, 1, 2, 5, 10]
    starts = {tuple(seed["curve"]["train_loss"][0] for seed in entry["seeds"]) for entry in result}
    assert len(starts) == 1, "every optimizer must start from the same parameters"
    assert result[2]["learning_rate"] > 0 and result[2]["run"] is None
    json.dumps(result, allow_nan=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_meta_training_runs_on_the_gpu():
    one = meta_trainer(from_mapping(merge(TINY, {"penalty": ALL_PENALTIES})), device=torch.device("cuda"))
    records = run(one)
    assert all(math.isfinite(record["meta_loss"]) for record in records if "meta_loss" in record)
    assert all(tensor.is_cuda for tensor in one.phi.values())


@pytest.mark.parametrize("name", ["validation_loss", "validation_mean_loss"])
def test_what_winners_are_picked_by_counts_what_diverged(monkeypatch, name):
    """Else an optimizer that breaks most optimizees could win by those that it leaves."""

    def outcome(loss: float | None) -> dict:
        figures = ("train_loss", "test_loss", "test_accuracy", "top_eigenvalue", "parameter_norm", "validation_loss")
        ball = {figure: {} for figure in ("sharpness", "max_grad_norm", "surrogate_gap")}
        mark = {"inner_step": 10, **dict.fromkeys(figures, loss), **ball}
        return {"curve": {"train_loss": [2.0]}, "mean_loss": loss, "marks": [mark], "diverged": loss is None}

    monkeypatch.setattr(evaluation.transfer, "evaluate", lambda *_, **__: {"seeds": [outcome(0.1), outcome(None)]})
    settings = evaluation.EvaluationSettings(optimizees=2)
    figures = evaluation.validate(UniformTasks([Task()]), None, {}, 10, settings)
    assert figures[name] == pytest.approx((0.1 + 20.0) / 2) and figures["train_loss"] == 0.1
