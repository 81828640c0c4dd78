"""SIB against Hu et al.'s equations written out with autograd; starts that follow from an episode; its controls."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from unrolling import truncation

import engine
from engine.base.errors import LregError, PresetError, SettingsError
from engine.evaluation.frozen_unroll import frozen_unroll
from engine.evaluation.transfer import ProbeSettings, evaluate
from engine.evaluation.tuning import tune
from engine.export.optimizer import export_optimizer
from engine.jobs.from_preset import meta_trainer
from engine.meta_training.objective import Objective
from engine.meta_training.unroll import begin
from engine.optimizers.baselines import BASELINES
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS, LearnedOptimizer, Phi, learned_start
from engine.penalties.base import get
from engine.presets.tables import ObjectiveSettings
from engine.tasks.backbones.networks import BACKBONES
from engine.tasks.base import SPLITS
from engine.tasks.datasets import few_shot
from engine.tasks.datasets.base import DATASETS
from engine.tasks.episodes import EpisodeTask, ImagesByClass, prototype_accuracy
from engine.tasks.table import build_task

F64 = torch.float64
WAYS, INPUTS, SHOTS, STEPS, ETA = 2, 64, 3, 3, 0.05
SEEDS = [4, 5, 6]
PRESETS = ("sib-cifar-fs", "sib-cifar-fs-smooth", "sib-cifar100-60", "sib-cifar100-60-smooth")
SIB = LEARNED_OPTIMIZERS.create("sib", ways=WAYS, inputs=INPUTS, step_size=ETA)


def episodes(dtype=F64, **values) -> EpisodeTask:
    table = {"dataset": "digits-episodes", "optimizee": "cosine", "shots": SHOTS, "queries": 4, **values}
    task = build_task(table, device=torch.device("cpu"), dtype=dtype)
    assert isinstance(task, EpisodeTask)
    return task


def fresh_phi() -> Phi:
    """Meta-parameters away from where they start, so that each of them matters."""
    generator = torch.Generator().manual_seed(1)
    phi = {name: tensor.to(F64) for name, tensor in SIB.init_phi(generator).items()}
    return {
        name: (tensor + 0.1 * torch.randn(tensor.shape, generator=generator, dtype=F64)).requires_grad_()
        for name, tensor in phi.items()
    }


def synthetic(phi: Phi, scores: Tensor) -> Tensor:
    """The network of Hu et al. by torch's own layers: [Q, N] to [Q, N]."""
    hidden = 8 * WAYS
    layers = [nn.Linear(WAYS, hidden), nn.ReLU(), nn.BatchNorm1d(hidden, track_running_stats=False)]
    layers += [nn.Linear(hidden, hidden), nn.ReLU(), nn.BatchNorm1d(hidden, track_running_stats=False)]
    network = nn.Sequential(*layers, nn.Linear(hidden, WAYS)).to(F64)
    values = {}
    for index, name in ((0, "linear0"), (3, "linear1"), (6, "linear2")):
        values |= {f"{index}.weight": phi[f"{name}.weight"].T, f"{index}.bias": phi[f"{name}.bias"]}
    for index, name in ((2, "norm0"), (5, "norm1")):
        values |= {f"{index}.weight": phi[f"{name}.weight"], f"{index}.bias": phi[f"{name}.bias"]}
    return functional_call(network, values, (scores,))


def scores_of(weight: Tensor, phi: Phi, x: Tensor) -> Tensor:
    return phi["scale"] * (F.cosine_similarity(x[:, None], weight[None], dim=-1) + phi["bias"])


def gradient_of(weight: Tensor, phi: Phi, x: Tensor, by: Tensor | None = None) -> Tensor:
    """J^T f(s), by autograd; `by`: other scores that f is shown."""
    if not weight.requires_grad:
        weight = weight.requires_grad_()
    scores = scores_of(weight, phi, x)
    (gradient,) = torch.autograd.grad(scores, weight, synthetic(phi, scores if by is None else by), create_graph=True)
    return gradient


def support_and_queries(task: EpisodeTask, row: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    support = task.inputs_at(task.positions("train")[row], F64).flatten(1)
    queries = task.inputs_at(task.positions("test")[row], F64).flatten(1)
    return support, task.labels("train"), queries, task.labels("test")


def first_weight(phi: Phi, x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([x[y == label].mean(0) for label in range(WAYS)]) * phi["diagonal"]


def objective_on(task: EpisodeTask, **more) -> Objective:
    settings = ObjectiveSettings(loss="validation", batches=1)
    plain = {"loss": task.loss, "layout": task.layout, "optimizer": SIB, "task": task, "settings": settings}
    return Objective(**plain, divergence_cap=1e9, **more)


def meta_gradient(objective: Objective, task: EpisodeTask, phi: Phi, randomness):
    rows = range(len(SEEDS))
    theta = torch.stack([task.init_theta(seed) for seed in rows])
    batches = task.batches(rows).draw(STEPS)
    carry = begin(objective, theta, batches[0] if objective.loss_batch == "next" else None, horizon=STEPS)
    fresh = task.batches(rows, "validation").draw(1)
    return truncation(objective, phi, carry, batches, [0.0, 0.0, 1.0], randomness, final=fresh)


@pytest.mark.parametrize("loss_batch", ["next", "same"])
def test_the_meta_gradient_is_that_of_the_paper_written_out(loss_batch):
    task, phi = episodes().of(SEEDS), fresh_phi()
    meta, carry = meta_gradient(objective_on(task, loss_batch=loss_batch), task, phi, ())
    total = torch.zeros((), dtype=F64)
    for row in range(len(SEEDS)):
        x, y, queries, labels = support_and_queries(task, row)
        weight = first_weight(phi, x, y)
        for _ in range(STEPS):
            weight = weight - ETA * gradient_of(weight, phi, queries)
        total = total + F.cross_entropy(scores_of(weight, phi, queries), labels) / len(SEEDS)
        end = torch.cat([weight.flatten(), phi["scale"][None], phi["bias"][None]])
        torch.testing.assert_close(carry.theta[row], end.detach())
    expected = dict(zip(phi, torch.autograd.grad(total, list(phi.values()), materialize_grads=True), strict=True))
    for name in phi:
        torch.testing.assert_close(meta.gradient[name], expected[name], rtol=1e-8, atol=1e-10)
        assert name == "linear2.bias" or expected[name].norm() > 1e-6
    torch.testing.assert_close(meta.figures["meta_loss"], total.detach())


def test_the_smoothed_meta_gradient_holds_scores_and_weights_constant_and_adds_up_over_all_steps():
    task, phi = episodes().of(SEEDS), fresh_phi()
    penalty = get("smooth", weight=7.0, epsilon=0.3, ascent_steps=2, distance="sum", every_step=True)
    plain, _ = meta_gradient(objective_on(task), task, phi, ())
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    smoothed, _ = meta_gradient(objective_on(task, update={"smooth": penalty}), task, phi, generators)
    total = torch.zeros((), dtype=F64)
    for row, seed in enumerate(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        x, y, queries, _ = support_and_queries(task, row)
        weight = first_weight(phi, x, y)
        frozen = {name: tensor.detach() for name, tensor in phi.items()}
        for _ in range(STEPS):
            held = weight.detach().clone()
            center = scores_of(held, frozen, queries)
            offset = torch.empty_like(center).normal_(generator=generator).mul_(0.05).clamp_(-0.3, 0.3)
            clean = gradient_of(held, frozen, queries).detach()
            for _ in range(2):
                moved = (center.detach() + offset).requires_grad_()
                change = (ETA * (clean - gradient_of(held, frozen, queries, moved))).square().sum()
                offset = (offset + 0.06 * torch.autograd.grad(change, moved)[0].sign()).clamp(-0.3, 0.3)
            worst = center.detach() + offset
            both = [functional(phi, frozen, held, queries, scores) for scores in (center.detach(), worst)]
            total = total + 7.0 * (both[0] - both[1]).square().sum() / len(SEEDS)
            weight = weight - ETA * gradient_of(weight, phi, queries)
    expected = torch.autograd.grad(total, list(phi.values()), materialize_grads=True)
    for name, gradient in zip(phi, expected, strict=True):
        torch.testing.assert_close(smoothed.gradient[name] - plain.gradient[name], gradient, rtol=1e-7, atol=1e-9)
    assert float(smoothed.figures["smooth_penalty"]) > 0
    gradients = dict(zip(phi, expected, strict=True))
    assert gradients["diagonal"].norm() == gradients["scale"].norm() == 0 < gradients["linear0.weight"].norm()


def functional(phi: Phi, frozen: Phi, held: Tensor, queries: Tensor, scores: Tensor) -> Tensor:
    """The update with J at constants and f by phi at given scores."""
    at = held.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(scores_of(at, frozen, queries), at, synthetic(phi, scores), create_graph=True)
    return ETA * gradient


def test_an_episodes_scores_depend_on_no_other_episode_and_on_no_query_label():
    task, phi = episodes(), {name: tensor.detach() for name, tensor in fresh_phi().items()}
    alone = [list(frozen_unroll(task.of([seed]), SIB, phi, [seed], STEPS))[-1].theta for seed in SEEDS]
    together = list(frozen_unroll(task.of(SEEDS), SIB, phi, SEEDS, STEPS))
    torch.testing.assert_close(together[-1].theta, torch.cat(alone))
    bound = task.of(SEEDS)
    bound.labels = lambda split: task.labels(split) if split == "train" else torch.full((8,), 77)
    blind = list(frozen_unroll(bound, SIB, phi, SEEDS, STEPS))
    assert torch.equal(blind[-1].theta, together[-1].theta)
    for row in range(len(SEEDS)):
        x, y, *_ = support_and_queries(task.of(SEEDS), row)
        torch.testing.assert_close(together[0].theta[row, :-2], first_weight(phi, x, y).flatten())


def test_controls_begin_at_the_learned_start_and_episodes_are_measured_before_the_first_step():
    task, phi = episodes(), {name: tensor.detach() for name, tensor in fresh_phi().items()}
    start = learned_start(SIB, phi)
    held_out = task.held_out("test").of(SEEDS)
    sgd = {"learning_rate": torch.full((len(SEEDS), 1), 0.1, dtype=F64)}
    descent = list(frozen_unroll(held_out, BASELINES["sgd"], sgd, SEEDS, 2, start=start))
    ours = next(frozen_unroll(held_out, SIB, phi, SEEDS, 2))
    assert torch.equal(descent[0].theta, ours.theta) and not torch.equal(descent[1].theta, ours.theta)
    assert tune(task, BASELINES["sgd"], SEEDS, 2, start=start).values["learning_rate"] > 0
    seen = evaluate(task, SIB, phi, SEEDS, STEPS, ProbeSettings(radii=[0.1]))["seeds"]
    assert [mark["inner_step"] for mark in seen[0]["marks"]] == [0, STEPS]
    untouched = {**phi, "diagonal": torch.ones(INPUTS, dtype=F64)}
    marks = [
        one["marks"][0] for one in evaluate(task, SIB, untouched, range(40), 1, ProbeSettings(radii=[0.1]))["seeds"]
    ]
    accuracy = sum(mark["test_accuracy"] for mark in marks) / 40
    assert abs(accuracy - prototype_accuracy(task.held_out("test").of(range(40))).mean()) < 0.15  # other episodes


def test_an_episode_that_begins_with_its_support_set_learned_has_not_diverged():
    """The support loss of one shot is nearly nothing at the start, ten times of which is nothing to speak of."""
    task = episodes(shots=1)
    phi = {name: tensor.to(F64) for name, tensor in SIB.init_phi(torch.Generator().manual_seed(0)).items()}
    phi["scale"] = phi["scale"] * 5
    shifted = LEARNED_OPTIMIZERS.create("sib", ways=WAYS, inputs=INPUTS, step_size=0.1)
    outcomes = evaluate(task, shifted, phi, range(30), STEPS, ProbeSettings(radii=[0.1]))["seeds"]
    rises = [one["curve"]["train_loss"][-1] / one["curve"]["train_loss"][0] for one in outcomes]
    on_queries = [one["marks"][-1]["validation_loss"] / one["marks"][0]["validation_loss"] for one in outcomes]
    assert [one["diverged"] for one in outcomes] == [rise > 10 for rise in on_queries]
    assert any(rise > 10 and not one["diverged"] for rise, one in zip(rises, outcomes, strict=True))


def trained(task, **settings):
    table = {"epochs": 2, "inner_steps": 3, "truncation": 3, "divergence_cap": 1e9, **settings}
    how = {"settings": table, "objective": {"loss": "validation", "batches": 1}}
    return engine.meta_train(task, SIB, **how, evaluation={"optimizees": 2, "final_optimizees": 0})


def test_meta_training_moves_every_part_of_phi():
    task, told = episodes(torch.float32), []
    how = {"objective": {"loss": "validation", "batches": 1}, "evaluation": {"optimizees": 2, "every": 30}}
    settings = {"epochs": 30, "inner_steps": 3, "truncation": 3, "divergence_cap": 1e9, "learning_rate": 1e-2}
    phi = engine.meta_train(task, SIB, settings=settings, **how, on_step=told.append)
    losses = [record["validation_loss"] for record in told if "validation_loss" in record]
    assert losses[-1] < losses[0]
    fresh = SIB.init_phi(torch.Generator())
    assert all(not torch.equal(phi[name].detach(), fresh[name]) for name in ("diagonal", "scale", "bias", "norm0.bias"))


@pytest.mark.parametrize("name", PRESETS)
def test_a_shipped_preset_can_be_trained_on_features(name, monkeypatch):
    def images(dataset, folder):
        splits = {split: {str(k): torch.arange(16 * k, 16 * k + 16) for k in range(6)} for split in SPLITS}
        return ImagesByClass(torch.zeros(96, 3, 32, 32, dtype=torch.uint8), splits)

    def features(place, architecture, data, to_input, dataset):
        with torch.device("meta"):
            size = BACKBONES[architecture]((3, 32, 32)).features
        return ImagesByClass(torch.randn(96, size, generator=torch.Generator().manual_seed(0)), data.splits)

    monkeypatch.setenv("LREG_DATA_DIR", "made-up-images")
    monkeypatch.setattr(few_shot, "features_of_kept", features)
    for dataset in ("cifar-fs", "cifar100-60"):
        monkeypatch.setattr(DATASETS[dataset], "read_classes", images)
    preset = engine.load_preset(name, ["evaluation.optimizees=2"])
    trainer = meta_trainer(preset, device=torch.device("cpu"))
    records = [record for _ in range(3) for record in trainer.advance()]
    assert [record["step"] for record in records] == [0, 1, 2] and records[-1]["meta_loss"] > 0
    assert ("smooth_penalty" in records[-1]) == name.endswith("smooth") and trainer.total == preset["meta"]["epochs"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"second_order": True}, "meta.estimator: found .*second_order.*allowed: tbptt with the learned optimizer sib"),
        ({"learn_start": True}, "meta.learn_start: found true; allowed: false with the learned optimizer sib"),
        ({"random_scaling": 1.0}, "meta.random_scaling: found 1.0; allowed: 0.0 with the learned optimizer sib"),
    ],
)
def test_what_does_not_go_with_it_is_one_line(settings, words):
    with pytest.raises(SettingsError, match=words) as caught:
        trained(episodes(), **settings)
    assert "\n" not in str(caught.value)


def test_evolution_strategies_refuse_it_and_a_penalty_of_every_step():
    with pytest.raises(SettingsError, match="meta.estimator.*es.*allowed: tbptt"):
        engine.meta_train(episodes(), SIB, estimator=engine.estimators.get("es"))
    with pytest.raises(
        SettingsError, match="penalty.smooth.every_step: found true; allowed: false with the estimator es"
    ):
        dm = LEARNED_OPTIMIZERS.create("dm")
        engine.meta_train(episodes(), dm, [get("smooth", every_step=True)], estimator=engine.estimators.get("es"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optimizee": "mlp"}, "task.optimizee: found digits-episodes/mlp; allowed: cosine"),
        (
            {"dataset": "digits", "optimizee": "cosine"},
            "task.optimizee: found digits/cosine; allowed: cosine, with a da",
        ),
        ({}, "optimizer.inputs: found 3; allowed: 64, as digits-episodes/cosine has"),
    ],
)
def test_other_tasks_are_refused(values, words):
    table = {"dataset": "digits-episodes", "optimizee": "cosine", **values}
    task = build_task(table, device=torch.device("cpu"))
    with pytest.raises(PresetError, match=words):
        LEARNED_OPTIMIZERS.create("sib", ways=2, inputs=3).check_task(task)
    fitting = {"ways": 2, "inputs": 64, "features": ("time",)}
    if not values:
        with pytest.raises(PresetError, match=r"optimizer.features: found .*; allowed: \[\], as sib sees the scores"):
            LEARNED_OPTIMIZERS.create("sib", **fitting).check_task(task)
    with pytest.raises(PresetError):
        evaluate(task, LEARNED_OPTIMIZERS.create("sib", ways=2, inputs=3), {}, [0], 1, ProbeSettings(radii=[0.1]))


def test_other_optimizers_know_no_task_and_start_where_the_task_says():
    dm = LEARNED_OPTIMIZERS.create("dm")
    assert not dm.gives_start and not dm.uses_task and learned_start(dm, {}) is None

    class Begins(LearnedOptimizer):
        def start(self, phi, theta, batch, layout):
            return theta + phi["shift"]

    assert Begins.gives_start and not LearnedOptimizer.gives_start
    moved = learned_start(Begins(), {"shift": torch.ones(())})
    assert moved is not None and torch.equal(moved(torch.zeros(1, 2), None, None), torch.ones(1, 2))


def test_cosine_scores_and_their_start():
    task = episodes(init="normal")
    theta = task.init_theta(0)
    parts = task.layout.split(theta)
    assert float(parts["scale"]) == 10 and float(parts["bias"]) == 0 and parts["weight"].std() < 0.02
    x = torch.randn(5, 1, 8, 8, dtype=F64, generator=torch.Generator().manual_seed(0))
    cosines = F.cosine_similarity(x.flatten(1)[:, None], parts["weight"][None], dim=-1)
    torch.testing.assert_close(task.outputs(theta, x), 10 * cosines)
    nothing = task.outputs(torch.zeros_like(theta), torch.zeros_like(x))
    assert nothing.isfinite().all()


def test_a_run_of_it_is_exported_and_refused_where_there_is_no_task(tmp_path):
    preset = engine.load_preset("quickstart", [
        "task.dataset=digits-episodes", "task.optimizee=cosine", "optimizer.kind=sib", "optimizer.ways=2",
        "optimizer.inputs=64", "meta.inner_steps=3", "meta.truncation=3", "meta.epochs=1", "meta.divergence_cap=1e9",
        "evaluation.optimizees=2", "evaluation.final_optimizees=2", "objective.loss=validation", "objective.batches=1",
    ])  # fmt: skip
    run = engine.train(preset, runs_dir=tmp_path, device="cpu")
    labels = {one["label"] for one in (json.loads(path.read_text()) for path in run.path.glob("transfer/*.json"))}
    assert {"sib (best)", "sgd from the learned start", "prototypes"} <= labels
    parameters = [torch.nn.Parameter(torch.zeros(3))]
    with pytest.raises(LregError, match="sib looks at the episodes that it trains on"):
        engine.load_optimizer(run, parameters)
    file = tmp_path / "sib.safetensors"
    export_optimizer(run, file)
    with pytest.raises(LregError, match="sib looks at the episodes that it trains on") as caught:
        engine.load_optimizer(file, parameters)
    assert "\n" not in str(caught.value)
