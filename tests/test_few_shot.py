"""Meta-training on episodes: learned initial parameters, Meta-LSTM, and the readings of a meta-test."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch.nn import functional as F

import engine
from engine.base import seeds
from engine.evaluation.frozen_unroll import frozen_unroll
from engine.evaluation.transfer import EPISODES_AT_ONCE, ProbeSettings, evaluate
from engine.jobs.from_preset import meta_trainer
from engine.meta_training.meta_train import MetaTrainer
from engine.optimizers.baselines import BASELINES
from engine.optimizers.learned.base import START, get
from engine.presets.preset import from_mapping
from engine.tasks.table import build_task

CPU = torch.device("cpu")
F64 = torch.float64
TASK = {"dataset": "digits-episodes", "optimizee": "mlp", "hidden": [16], "init": "uniform", "shots": 2, "queries": 5}
META = {"learn_start": True, "epochs": 6, "inner_steps": 3, "truncation": 3, "meta_batch": 2, "clip": "none"}
EVALUATION = {"every": 3, "optimizees": 4, "final_optimizees": 0}
PRESET = {
    "task": TASK,
    "optimizer": {"kind": "meta-lstm", "hidden": 4},
    "meta": META,
    "objective": {"loss": "validation", "batches": 1},
    "evaluation": EVALUATION,
}


def with_changes(**tables) -> dict:
    return {**PRESET, **{name: {**PRESET.get(name, {}), **table} for name, table in tables.items()}}


def trainer(dtype: torch.dtype = torch.float32, **tables) -> MetaTrainer:
    return meta_trainer(from_mapping(with_changes(**tables)), device=CPU, dtype=dtype)


def test_one_meta_step_on_an_episode_equals_autograd_written_out():
    """theta_0 and the gates' bias by the query loss after three steps on the support set, by hand, for one episode."""
    run = trainer(F64, meta={"meta_batch": 1})
    run.advance()  # the evaluation that comes first
    phi = {name: tensor.detach().clone().requires_grad_() for name, tensor in run.phi.items()}
    episode_seed = seeds.derive(run.seed, "meta-training", 0, 0, "episode")
    task = build_task(TASK, device=CPU, dtype=F64).of([episode_seed])
    support, query = (task.batches([0], split).draw(1)[0].of(0) for split in ("train", "validation"))
    theta, gates = phi[START], torch.zeros(len(phi[START]), 2, dtype=F64)
    h = c = torch.zeros(len(theta), 4, dtype=F64)
    for _ in range(3):
        here = theta.detach().requires_grad_()
        loss = task.loss(here, support)
        (gradient,) = torch.autograd.grad(loss, here)
        seen = []
        for number in (gradient, loss.detach().expand_as(gradient)):
            large = number.abs() >= math.exp(-10)
            seen += [
                torch.where(large, number.abs().log() / 10, -1),
                torch.where(large, number.sign(), math.exp(10) * number),
            ]
        z = torch.stack(seen, -1) @ phi["lstm0.input"] + h @ phi["lstm0.hidden"] + phi["lstm0.bias"]
        i, f, g, o = z.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        gates = torch.cat([h, theta[:, None]], 1) @ phi["gates.weight"][:5] + gates * phi["gates.weight"][5]
        gates = gates + phi["gates.bias"]
        theta = gates[:, 0].sigmoid() * theta - gates[:, 1].sigmoid() * gradient
    expected = torch.autograd.grad(task.loss(theta, query), list(phi.values()))
    measured: dict = {}
    run.parameters.step = lambda gradient, rate: bool(measured.update(gradient)) or True  # type: ignore[method-assign]
    (record,) = run.advance()
    assert record["meta_loss"] == pytest.approx(float(task.loss(theta, query).detach()), rel=1e-12)
    for name, slope in zip(phi, expected, strict=True):
        torch.testing.assert_close(measured[name], slope, rtol=1e-9, atol=1e-12, msg=name)


def test_terms_of_evolution_strategies_are_measured_on_the_episode_that_was_trained_on():
    """The validation loss of an episode is that of its queries, which is what the objective counts here."""
    run = trainer(
        F64,
        optimizer={"kind": "lin"},
        meta={"learn_start": False, "estimator": "es", "pairs": 2, "sigma": 1e-9, "meta_batch": 3},
        objective={**PRESET["objective"], "terms": {"validation_loss": {"weight": 0.5}, "sharpness": {"radius": 0.1}}},
    )
    run.advance()
    (record,) = run.advance()
    query_loss, sharpness = record["objective_validation_loss"], record["objective_sharpness"]
    assert record["meta_objective"] == pytest.approx(1.5 * query_loss + sharpness, rel=1e-6)


@pytest.mark.parametrize("kind", ["meta-lstm", "dm"])
def test_a_learned_start_learns_and_query_accuracy_rises(kind):
    run = trainer(optimizer={"kind": kind}, meta={"epochs": 60, "learning_rate": 0.03}, evaluation={"every": 60})
    records = []
    while not run.finished:
        records += run.advance()
    first, *_, last = [record for record in records if "test_accuracy" in record]
    assert last["validation_loss"] < first["validation_loss"] - 0.02
    assert not {"sharpness", "top_eigenvalue"} & set(last)
    moved = run.parameters.best[START] - run.parameters.initial[START]
    assert moved.abs().max() > 0.1


@pytest.mark.parametrize("estimator", ["tbptt", "second_order"])
@pytest.mark.parametrize("truncation", [3, 2])
def test_resuming_is_bit_for_bit(truncation, estimator):
    meta = {"truncation": truncation, "estimator": estimator}
    whole, parted = trainer(meta=meta), trainer(meta=meta)
    records = [whole.advance() for _ in range(9)]
    resumed_records = [parted.advance() for _ in range(4)]
    resumed = trainer(meta=meta)
    tensors, values = parted.state_dict()
    resumed.load_state_dict(tensors, json.loads(json.dumps(values)))
    resumed_records += [resumed.advance() for _ in range(5)]
    keys = ("meta_loss", "meta_grad_norm", "validation_loss", "test_accuracy")
    assert [[{k: r.get(k) for k in keys} for r in rs] for rs in records] == [
        [{k: r.get(k) for k in keys} for r in rs] for rs in resumed_records
    ]
    assert torch.equal(whole.phi[START], resumed.phi[START])


def test_frozen_optimizees_begin_at_the_learned_start_where_it_fits_and_elsewhere_as_ever():
    optimizer, task = get("dm"), build_task(TASK, device=CPU)
    other = build_task({**TASK, "hidden": [8]}, device=CPU)
    phi = optimizer.init_phi(torch.Generator().manual_seed(0)) | {START: torch.arange(float(task.parameters))}
    (begun, *_), (begun_other, *_) = (
        list(frozen_unroll(where.of([1, 2]), optimizer, phi, [1, 2], 1)) for where in (task, other)
    )
    assert torch.equal(begun.theta, phi[START].expand(2, -1))
    assert torch.equal(begun_other.theta[1], other.init_theta(seeds.derive(2, "theta")))


def test_episodes_are_measured_in_portions_as_each_alone():
    task, probe = build_task(TASK, device=CPU, dtype=F64), ProbeSettings(radii=(0.05,))
    phi = {"learning_rate": torch.tensor([[0.5]], dtype=F64)}
    numbers = list(range(EPISODES_AT_ONCE + 2))
    together = evaluate(task, BASELINES["sgd"], phi, numbers, 3, probe, marks=(0,))
    assert [seed["seed"] for seed in together["seeds"]] == numbers
    for number in (0, EPISODES_AT_ONCE + 1):
        alone = evaluate(task, BASELINES["sgd"], phi, [number], 3, probe, marks=(0,))["seeds"][0]
        assert alone["marks"][1]["test_loss"] == pytest.approx(together["seeds"][number]["marks"][1]["test_loss"])
    bound = task.held_out("test").of([seeds.derive(seeds.derive(3, "test"), "episode")])
    theta = bound.init_theta(seeds.derive(seeds.derive(3, "test"), "theta"))
    support, query = (bound.batches([0], split).draw(1)[0].of(0) for split in ("train", "test"))
    for _ in range(3):
        theta = theta - 0.5 * torch.func.grad(bound.loss)(theta, support)
    mark = together["seeds"][3]["marks"][1]
    assert mark["test_loss"] == pytest.approx(float(F.cross_entropy(bound.outputs(theta, query.x), query.y)), rel=1e-9)
    assert mark["train_loss"] == pytest.approx(float(bound.loss(theta, support)), rel=1e-9)
    assert mark["sharpness"] == {} and mark["top_eigenvalue"] is None


def test_the_result_holds_the_controls():
    run = trainer(evaluation={"final_optimizees": 6})
    while not run.finished:
        run.advance()
    results = {item["label"]: item for item in run.result(lambda text: None)}
    assert set(results) == {
        "meta-lstm (best)", "meta-lstm (untrained)", "sgd", "adam", "sgd from the learned start", "prototypes",
    }  # fmt: skip
    assert [mark["inner_step"] for mark in results["meta-lstm (best)"]["seeds"][0]["marks"]] == [0, 3]
    assert all(len(item["seeds"]) == 6 for item in results.values())
    assert 0 <= results["prototypes"]["seeds"][0]["marks"][0]["test_accuracy"] <= 1


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"meta": {"estimator": "es"}}, r"meta\.learn_start: found true; allowed: false with estimator = es"),
        ({"meta": {"estimator": "pes"}}, r"meta\.learn_start"),
        ({"task": {"hidden": [8, 16], "depth": 1}}, r"meta\.learn_start: .*one layout"),
    ],
)
def test_initial_parameters_that_cannot_be_learned_are_one_line(tables, message):
    with pytest.raises(engine.LregError, match=message):
        trainer(**tables)


def test_an_optimizee_with_a_loss_of_its_own_learns_no_classes():
    with pytest.raises(engine.LregError, match=r'task\.optimizee: found "autoencoder"; allowed: .*classes'):
        build_task({"dataset": "digits-episodes", "optimizee": "autoencoder"}, device=CPU)
