"""Estimators of the meta-gradient against closed forms: on quadratics every meta-gradient is known exactly."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from torch import Tensor
from torch.func import grad_and_value
from torch.nn.functional import linear, mse_loss
from unrolling import truncation

import engine
from engine.base.flat import gradients_and_losses
from engine.meta_training.estimators.es import PES
from engine.meta_training.meta_train import MetaTrainer
from engine.optimizers.learned.base import StepInfo
from engine.tasks.outside import as_distribution, as_task

F64 = torch.float64
CURVATURE = torch.tensor([1.0, 2.0, 3.0], dtype=F64)


class Bowl:
    """L = 1/2 sum a x^2 from x = (1, 1, 1), without noise: an unroll is a function of the learning rate alone."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.name, self.layout = "bowl", engine.Layout({"x": (3,)})

    def init_theta(self, seed):
        return torch.ones(3, dtype=F64)

    def loss(self, theta, batch):
        return self.scale * 0.5 * (CURVATURE.to(theta) * (theta + batch) ** 2).sum()

    def batches(self, seeds, split):
        return itertools.repeat(torch.zeros(len(seeds), 3, dtype=F64))


class NoisyBowl(Bowl):
    """Every batch has its own minimum, and every optimizee its own start."""

    def init_theta(self, seed):
        return torch.randn(3, dtype=F64, generator=torch.Generator().manual_seed(seed))

    def batches(self, seeds, split):
        return engine.SampledStream(lambda generator: torch.randn(3, generator=generator).to(F64), seeds)


class GradientDescent(engine.LearnedOptimizer):
    """u = -exp(log_rate) g."""

    gradient_features = 1

    def init_phi(self, generator):
        return {"log_rate": torch.tensor([math.log(0.1)])}

    def init(self, theta):
        return {"time": torch.zeros((), dtype=theta.dtype)}

    def observe(self, theta, grad, state):
        return grad[..., None], {"time": state["time"] + 1}

    def step(self, phi, features, state):
        return -phi["log_rate"].exp() * features[..., 0], state


PHI = {"log_rate": torch.tensor([math.log(0.1)], dtype=F64)}


def losses(log_rate: Tensor, steps: int, scale: float = 1.0) -> Tensor:
    """The losses after inner steps 1 to `steps`, [steps], with their graph to the log of the learning rate."""
    theta = (1 - log_rate.exp() * scale * CURVATURE) ** torch.arange(1, steps + 1)[:, None]
    return scale * 0.5 * (CURVATURE * theta**2).sum(1)


def exact(objective, steps: int, scale: float = 1.0) -> float:
    """The derivative of an objective of the unroll's losses by the log of the learning rate."""
    log_rate = PHI["log_rate"][0].clone().requires_grad_()
    (slope,) = torch.autograd.grad(objective(losses(log_rate, steps, scale)), log_rate)
    return float(slope)


def trainer(estimator, task=None, **more) -> MetaTrainer:
    settings = {"epochs": 1, "inner_steps": 8, "truncation": 2, "meta_batch": 1, "clip": "none", "optimizer": "sgd"}
    settings |= {"learning_rate": 1e-12, **more.pop("settings", {})}
    evaluation = {"optimizees": 1, "final_optimizees": 0, "examples": 10, "restarts": 1, "ascent_steps": 1, "every": 50}
    return MetaTrainer(
        as_distribution(task or Bowl()),
        more.pop("optimizer", GradientDescent()),
        estimator=estimator,
        settings=settings,
        evaluation=evaluation,
        init_phi=more.pop("init_phi", PHI),
        **more,
    )


def meta_gradients(one: MetaTrainer) -> list[Tensor]:
    """Of all meta-steps, flat."""
    gradients = []
    one.pending = ""
    while not one.finished:
        if any("meta_loss" in record for record in one.advance()):
            gradients.append(torch.cat([tensor.grad.flatten() for tensor in one.phi.values()]).clone())
    return gradients


OBJECTIVES = {
    "mean": ({}, lambda values: values.mean()),
    "log mean": ({"log": True}, lambda values: values.mean().log()),
    "last": ({"loss": "last"}, lambda values: values[-1]),
    "log last": ({"loss": "last", "log": True}, lambda values: values[-1].log()),
    "minimum": ({"loss": "minimum"}, lambda values: values.min()),
    "last on many": ({"loss": "last_many", "batches": 3}, lambda values: values[-1]),
    "validation": ({"loss": "validation"}, lambda values: values[-1]),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_es_has_the_exact_gradient_of_every_objective(name):
    """N pairs of a one-dimensional phi: relative to the slope, the standard error is sqrt(2 / N)."""
    objective, value = OBJECTIVES[name]
    pairs = 20_000
    (gradient,) = meta_gradients(
        trainer(engine.estimators.get("es", pairs=pairs, sigma=1e-3, fitness="raw"), objective=objective)
    )
    slope = exact(value, 8)
    assert abs(float(gradient) - slope) < 4 * math.sqrt(2 / pairs) * abs(slope)


class TruncatedES(PES):
    """The estimator that PES corrects: each truncation's own perturbation alone."""

    def _directions(self, phi, noise_seeds):
        return self.noise(phi, noise_seeds[-1])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_pes_is_unbiased_over_the_truncations_of_an_unroll(name):
    """Its meta-gradients' mean over an unroll's 4 truncations is the gradient of the whole unroll."""
    objective, value = OBJECTIVES[name]
    estimates = torch.stack(
        [
            torch.stack(
                meta_gradients(
                    trainer(
                        engine.estimators.get("pes", pairs=5000, sigma=1e-3, fitness="raw"),
                        objective=objective,
                        seed=seed,
                    )
                )
            ).mean()
            for seed in range(6)
        ]
    )
    slope, error = exact(value, 8), float(estimates.std()) / math.sqrt(len(estimates))
    assert abs(float(estimates.mean()) - slope) < 4 * error + 0.01 * abs(slope)
    assert error < 0.1 * abs(slope)


def test_what_is_recorded_of_the_end_is_no_multiple_of_it():
    """PES counts the end for every truncation of the unroll; the record says what it is."""
    pes, term = engine.estimators.get("pes", pairs=2, sigma=1e-9), engine.terms.get("parameter_norm", weight=2.0)
    one = trainer(pes, objective={"loss": "last"}, terms=[term])
    one.pending = ""
    records = [record for _ in range(4) for record in one.advance()]
    expected = losses(PHI["log_rate"][0], 8)[-1] + 2 * ((1 - 0.1 * CURVATURE) ** 8).norm()
    assert records[-1]["meta_objective"] == pytest.approx(float(expected), abs=1e-6)


class SplitBowl(Bowl):
    """Training batches have their minima at numbers that are drawn, held-out ones all at -2."""

    def batches(self, seeds, split):
        if split == "validation":
            return itertools.repeat(torch.full((len(seeds), 3), 2.0, dtype=F64))
        return engine.SampledStream(lambda generator: torch.randn(3, generator=generator).to(F64), seeds)


def test_the_last_loss_on_many_batches_and_on_held_out_ones():
    """With steps of no length theta stays (1, 1, 1): the mean over training batches is 6 + 3, on held-out ones 27."""
    still = {"log_rate": torch.tensor([-100.0], dtype=F64)}

    def recorded(**objective):
        es = engine.estimators.get("es", pairs=1, sigma=1e-9)
        one = trainer(es, SplitBowl(), init_phi=still, objective=objective, settings={"divergence_cap": 1e9})
        one.pending = ""
        return one.advance()[0]["meta_objective"]

    assert recorded(loss="validation", batches=4) == recorded(loss="validation") == pytest.approx(27.0)
    assert recorded(loss="validation", log=True) == pytest.approx(math.log(27.0))
    assert recorded(loss="last_many", batches=10_000) == pytest.approx(6.0, rel=0.1)
    few, last = recorded(loss="last_many", batches=2), recorded(loss="last")
    assert len({few, last, recorded(loss="last_many"), recorded(loss="last_many", batches=3)}) == 4
    assert recorded(loss="last_many") == recorded(loss="last_many", batches=10)
    # as it was written formerly
    assert recorded(loss="last", batches=2) == recorded(loss="last", batches=2, split="train") == few
    assert recorded(loss="last", batches=4, split="validation") == pytest.approx(27.0)
    assert recorded(loss="last", batches=0, split="validation") == last


def test_truncated_es_is_biased_where_pes_is_not():
    slope = exact(OBJECTIVES["mean"][1], 8)
    truncated = torch.stack(meta_gradients(trainer(TruncatedES(pairs=5000, sigma=1e-3, fitness="raw")))).mean()
    assert abs(float(truncated) - slope) > 0.3 * abs(slope)


def test_a_term_of_the_end_is_part_of_the_objective_and_logged():
    """J = log of the last loss + 2 log |theta|: both are closed forms."""
    term = engine.terms.get("parameter_norm", weight=2.0, log=True)
    es = engine.estimators.get("es", pairs=20_000, sigma=1e-3, fitness="raw")
    one = trainer(es, objective={"loss": "last", "log": True}, terms=[term])
    one.pending = ""
    (record,) = one.advance()

    def objective(log_rate: Tensor) -> Tensor:
        theta = (1 - log_rate.exp() * CURVATURE) ** 8
        return (0.5 * (CURVATURE * theta**2).sum()).log() + 2 * theta.norm().log()

    log_rate = PHI["log_rate"][0].clone().requires_grad_()
    value = objective(log_rate)
    (slope,) = torch.autograd.grad(value, log_rate)
    assert float(one.phi["log_rate"].grad) == pytest.approx(float(slope), rel=4 * math.sqrt(2 / 20_000))
    assert record["meta_objective"] == pytest.approx(float(value.detach()), abs=1e-4)
    assert record["objective_parameter_norm"] == pytest.approx(
        float(((1 - 0.1 * CURVATURE) ** 8).norm().log()), abs=1e-4
    )


def test_sharpness_terms_on_a_diagonal_quadratic():
    """Along one axis the ascent is exact: the gap of 1/2 a x^2 at x in a ball of radius r is a (|x| r + r^2 / 2); in
    the adaptive ball the half-axis is |x| r."""
    task, x, r = as_task(Bowl()), 2.0, 0.5
    theta = torch.tensor([[0.0, 0.0, x], [0.0, -x, 0.0]], dtype=F64)
    sharp = engine.terms.get("sharpness", radius=r).measure(task, theta)
    torch.testing.assert_close(sharp, torch.tensor([3.0, 2.0], dtype=F64) * (x * r + r**2 / 2))
    adaptive = engine.terms.get("adaptive_sharpness", radius=r).measure(task, theta)
    torch.testing.assert_close(adaptive, torch.tensor([3.0, 2.0], dtype=F64) * x**2 * (r + r**2 / 2))
    # at a generic point: the quadratic with curvatures a theta^2 about ones, maximised on the sphere by bisection
    theta = torch.tensor([[1.5, -0.7, 0.4]], dtype=F64)
    bent = CURVATURE * theta[0] ** 2
    low, high = float(bent.max()), 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float((bent / (middle - bent)).norm()) > r else (low, middle)
    offset = bent / (low - bent)
    expected = float((bent * offset + 0.5 * bent * offset**2).sum())
    found = float(engine.terms.get("adaptive_sharpness", radius=r, ascent_steps=60).measure(task, theta))
    assert found == pytest.approx(expected, rel=1e-6)
    top = engine.terms.get("top_eigenvalue").measure(task, theta)
    assert float(top) == pytest.approx(3.0)


def test_a_term_at_matched_loss_is_measured_where_the_loss_is_reached():
    """Of optimizees that reach a loss sooner or later, all are measured there and not at the end."""
    at = engine.terms.get("parameter_norm", at=1.0)
    one = trainer(engine.estimators.get("es", pairs=4, sigma=1e-6), terms={"norm": at}, settings={"inner_steps": 40})
    one.pending = ""
    (record,) = one.advance()
    values, smooth = losses(PHI["log_rate"][0], 40), 0.0
    for step, value in enumerate(values.tolist(), 1):
        smooth = 0.9 * smooth + 0.1 * value
        if smooth / (1 - 0.9**step) <= 1.0:
            break
    assert 1 < step < 40
    assert record["objective_norm"] == pytest.approx(float(((1 - 0.1 * CURVATURE) ** step).norm()), abs=1e-4)


@pytest.mark.parametrize("fitness", ["ranks", "sign", "raw"])
def test_every_fitness_points_down_the_objective(fitness):
    es = engine.estimators.get("es", pairs=16, sigma=0.1, fitness=fitness)
    one = trainer(es, settings={"epochs": 30, "learning_rate": 0.02, "optimizer": "adam"})
    meta_gradients(one)
    assert float(one.phi["log_rate"].detach().exp()) > 0.15  # 2 / 3 is the edge of divergence, and the best is between


def test_pairs_see_the_same_optimizees_and_batches():
    """With no perturbation to speak of all particles are one, on a task of chance as well."""
    one = trainer(engine.estimators.get("es", pairs=3, sigma=1e-9), NoisyBowl(), settings={"meta_batch": 2})
    seen = []
    loss = one.tasks.sample(0).loss

    class Watching(NoisyBowl):
        def loss(self, theta, batch):
            return loss(theta, batch)

    from engine.meta_training import particles

    one.pending = ""
    inner = particles.ParticleTruncation.carry_on

    def watched(self):
        seen.append(self.theta)
        return inner(self)

    particles.ParticleTruncation.carry_on = watched
    try:
        one.advance()
    finally:
        particles.ParticleTruncation.carry_on = inner
    (theta,) = seen
    assert theta.shape == (6, 2, 3)
    torch.testing.assert_close(theta, theta[:1].expand_as(theta), rtol=0, atol=1e-6)
    assert not torch.allclose(theta[0, 0], theta[0, 1])


def records_of(one: MetaTrainer, units: int | None = None) -> list[dict]:
    records = []
    while not one.finished and (units is None or len(records) < units):
        records += one.advance()
    timed = ("inner_steps_per_s", "coordinate_steps_per_s", "memory_bytes")
    return [{name: value for name, value in record.items() if name not in timed} for record in records]


CASES = {
    "es": ("es", {"optimizer": engine.learned_optimizers.get("rnnprop", hidden=4)}),
    "pes": ("pes", {"optimizer": engine.learned_optimizers.get("simple", hidden=4)}),
    "pes, staggered": ("pes", {"settings": {"staggered": 3, "epochs": 5}}),
    "pes, a loss to reach": ("pes", {"terms": [engine.terms.get("parameter_norm", at=2.0)]}),
    "es, averaged": ("es", {"settings": {"average": 0.7}}),
    "tbptt, staggered": ("tbptt", {"settings": {"staggered": 2, "epochs": 4}}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_is_gone_on_with_bit_for_bit(name):
    estimator, more = CASES[name]

    def make():
        changes = {key: dict(value) if isinstance(value, dict) else value for key, value in more.items()}
        changes["settings"] = {"epochs": 3, "learning_rate": 0.01, "meta_batch": 2, **changes.get("settings", {})}
        phi = None if "optimizer" in changes else PHI
        own = {} if estimator == "tbptt" else {"pairs": 2}
        return trainer(engine.estimators.get(estimator, **own), NoisyBowl(), init_phi=phi, **changes)

    whole = records_of(make())
    for units in (2, 4):
        first = make()
        head = records_of(first, units)
        tensors, values = first.state_dict()
        second = make()
        second.load_state_dict({key: tensor.clone() for key, tensor in tensors.items()}, json.loads(json.dumps(values)))
        assert head + records_of(second) == whole


def test_staggered_meta_epochs_are_spread_over_the_unroll():
    one = trainer(None, settings={"staggered": 4, "epochs": 9})
    one.pending = ""
    seen = []
    while not one.finished:
        one.advance()
        one.pending = ""
        seen.append(sorted(epoch.inner_step for epoch in one.epochs))
    assert seen[3] == [2, 4, 6] and seen[4] == [2, 4, 6]  # and the one that has just ended
    assert one.meta_epoch == 9 and len(seen) == 9 + 3


def test_the_mean_of_the_last_iterates_is_the_result():
    es = engine.estimators.get("es", pairs=4)
    plain, averaged = (trainer(es, settings={"epochs": 8, "learning_rate": 0.1, "average": part}) for part in (0, 0.5))
    iterates = []
    while not plain.finished:
        if any("meta_loss" in record for record in plain.advance()):
            iterates.append(plain.phi["log_rate"].detach().clone())
    records_of(averaged)
    assert len({float(phi) for phi in iterates}) == 8
    torch.testing.assert_close(averaged.parameters.best["log_rate"], torch.stack(iterates[4:]).mean(0))


def test_a_term_counts_from_its_meta_epoch_on():
    late = engine.terms.get("parameter_norm", weight=5.0, start=2)
    es, settings = engine.estimators.get("es", pairs=2), {"epochs": 4}
    with_it = records_of(trainer(es, terms=[late], settings=settings))
    without = records_of(trainer(es, settings=settings))
    steps = [[record for record in records if "meta_loss" in record] for records in (with_it, without)]
    assert steps[0][:2] == steps[1][:2]
    assert ["objective_parameter_norm" in record for record in steps[0]] == [False, False, True, True]
    assert steps[0][2]["meta_objective"] > steps[1][2]["meta_objective"]


def test_an_unroll_that_diverges_costs_and_is_counted():
    """From a rate near the edge some particles diverge: the objective is finite, and points away from the edge."""
    edge = {"log_rate": torch.tensor([math.log(0.8)], dtype=F64)}
    es = engine.estimators.get("es", pairs=20, sigma=0.3, fitness="ranks")
    one = trainer(es, init_phi=edge, settings={"inner_steps": 60, "truncation": 2}, objective={"loss": "last"})
    one.pending = ""
    (record,) = one.advance()
    assert 0 < record["diverged"] < 40
    assert math.isfinite(record["meta_objective"]) and float(one.phi["log_rate"].grad) > 0


def test_a_geometric_penalty_counts_without_its_gradient():
    """The penalty's value alone, along the unroll: the exact gradient, which the first order does not have."""

    class Norm(engine.penalties.GeometricPenalty):
        def at(self, loss, theta, value, gradient):
            return 0.5 * (theta**2).sum(), torch.full_like(theta, torch.nan)

    es = engine.estimators.get("es", pairs=20_000, sigma=1e-3, fitness="raw")
    one = trainer(es, penalties=[Norm(weight=3.0)])
    one.pending = ""
    (record,) = one.advance()
    log_rate = PHI["log_rate"][0].clone().requires_grad_()
    theta = (1 - log_rate.exp() * CURVATURE) ** torch.arange(1, 9)[:, None]
    value = (0.5 * (CURVATURE * theta**2).sum(1) + 3 * 0.5 * (theta**2).sum(1)).mean()
    (slope,) = torch.autograd.grad(value, log_rate)
    assert float(one.phi["log_rate"].grad) == pytest.approx(float(slope), rel=4 * math.sqrt(2 / 20_000))
    assert record["norm_penalty"] == pytest.approx(float(0.5 * (theta**2).sum(1).mean()), abs=1e-3)


class Quartic(NoisyBowl):
    """Its Hessian is another one at every point, and not diagonal."""

    def loss(self, theta, batch):
        return super().loss(theta, batch) + 0.1 * (theta.sum() ** 4)


@pytest.mark.parametrize(
    "penalty",
    [
        engine.penalties.get("sam", rho=0.1),
        engine.penalties.get("hessian_trace", samples=2, relative=True),
        engine.penalties.get("top_eigenvalue", iterations=3, start=2),
        engine.penalties.get("smooth"),
    ],
    ids=lambda penalty: penalty.name,
)
@pytest.mark.parametrize("step_scale", ["none", "mup", "rms"])
def test_es_values_a_penalty_as_back_propagation_does(penalty, step_scale):
    """With next to no noise the value is the one that truncated back-propagation records for the same seed."""
    records = []
    for estimator in (None, engine.estimators.get("es", pairs=2, sigma=1e-9)):
        optimizer = engine.learned_optimizers.get("rnnprop", hidden=3, step_scale=step_scale, base_width=6)
        settings = {"truncation": 8, "meta_batch": 2}
        fresh = {name: tensor.double() for name, tensor in optimizer.init_phi(torch.Generator()).items()}
        more = {"optimizer": optimizer, "settings": settings, "penalties": [penalty], "init_phi": fresh}
        one = trainer(estimator, Quartic(), **more)
        one.pending = ""
        records += one.advance()
    plain, es = (record[f"{penalty.name}_penalty"] for record in records)
    assert plain > 0 and es == pytest.approx(plain, rel=1e-5)


def test_particles_of_a_scaled_unroll_are_its_back_propagation():
    """Random scaling: without perturbation the losses are those of tbptt, for an optimizer that remembers theta."""
    losses = []
    for name in ("tbptt", "es"):
        estimator = engine.estimators.get(name, **({"pairs": 1, "sigma": 1e-9} if name == "es" else {}))
        settings = {"random_scaling": 2.0, "truncation": 8, "meta_batch": 2}
        optimizer = engine.learned_optimizers.get("lin", output_scale=0.3)
        phi = {"schedule": torch.zeros(4), "head.weight": torch.full((18,), -0.2)}
        one = trainer(estimator, NoisyBowl(), optimizer=optimizer, init_phi=phi, settings=settings)
        one.pending = ""
        (record,) = one.advance()
        losses.append(record["meta_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


@pytest.mark.parametrize("kind", ["dm", "rnnprop", "simple", "lin", "mlp", "adafac"])
@pytest.mark.parametrize("way", ["auto", "plain"])
def test_particles_step_as_the_learned_optimizer_does(kind, way, monkeypatch):
    """Every particle is what a frozen unroll with its own meta-parameters would be, with kernels and without."""
    from engine.meta_training import particles
    from engine.meta_training.inner_steps import Inputs
    from engine.meta_training.objective import Objective

    monkeypatch.setenv("LREG_KERNELS", way)
    task, optimizer = as_task(NoisyBowl()), engine.learned_optimizers.get(kind, hidden=4)
    phis = [optimizer.init_phi(torch.Generator().manual_seed(seed)) for seed in range(4)]
    phis = [{name: tensor.double() for name, tensor in phi.items()} for phi in phis]
    theta = torch.stack([task.init_theta(seed) for seed in (1, 2)])
    batches = task.batches([3, 4], "train").draw(7)
    objective = Objective(task.loss, optimizer, layout=task.layout, task=task, loss_batch="same")
    carry = particles.begin(objective, 4, theta, None, horizon=9)
    stacked = {name: torch.stack([phi[name] for phi in phis]) for name in phis[0]}
    _, carry = particles.run_truncation(objective, stacked, carry, Inputs(batches, [1.0] * 7))
    for m, phi in enumerate(phis):
        point, state = theta.clone(), optimizer.init(theta, task.layout)
        for t, batch in enumerate(batches):
            grad = torch.stack([torch.func.grad(task.loss)(point[b], batch[b]) for b in range(2)])
            update, state = optimizer.update(phi, point, grad, state, task.layout, StepInfo(None, t, 9))
            point = point + update
        torch.testing.assert_close(carry.theta[m], point, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("objective", "terms", "message"),
    [
        ({"log": True}, (), r'objective\.log: found true.*"es" or "pes"'),
        ({"loss": "minimum"}, (), r"objective\.loss"),
        ({"loss": "many"}, (), r"objective\.loss: .*last_many, validation"),
        ({"batches": 0, "loss": "last_many"}, (), r"objective\.batches: found 0; allowed: an integer >= 1"),
        ({}, [engine.terms.get("sharpness")], r"objective\.terms\.sharpness"),
        ({}, [7], r"terms\[0\] must be a term"),
    ],
)
def test_what_needs_another_estimator_is_one_line(objective, terms, message):
    with pytest.raises(engine.LregError, match=message):
        trainer(None, objective=objective, terms=terms)


def test_last_loss_by_back_propagation_is_its_exact_gradient():
    """loss = last with the second order through the whole unroll: the closed form."""
    second = engine.estimators.get("second_order")
    (gradient,) = meta_gradients(trainer(second, objective={"loss": "last"}, settings={"truncation": 8}))
    assert float(gradient) == pytest.approx(exact(lambda values: values[-1], 8), rel=1e-10)


class Scheming(engine.LearnedOptimizer):
    """Uses all there is: theta, the gradient, a momentum that phi moves, the loss and the time."""

    gradient_features = 1

    def init_phi(self, generator):
        return {"weights": torch.tensor([-0.1, -0.05, 0.02, -0.03]), "decay": torch.tensor([0.5])}

    def init(self, theta):
        return {"momentum": torch.zeros_like(theta)}

    def observe(self, theta, grad, state, info):
        loss = info.loss[..., None] * torch.ones_like(theta)
        return torch.stack([grad, theta, (1 + info.step) * grad * loss], -1), state

    def step(self, phi, features, state):
        momentum = phi["decay"].tanh() * state["momentum"] + features[..., 0]
        update = features @ phi["weights"][:3] + phi["weights"][3] * momentum
        return update, {"momentum": momentum}


@pytest.mark.parametrize("most_kept", [2**30, 20_000, 0])
@pytest.mark.parametrize("loss_batch", ["next", "same", "validation"])
def test_second_order_equals_autograd_through_everything(most_kept, loss_batch, monkeypatch):
    """A sigmoid network under an optimizer that uses all there is, to 1e-10, with all graphs kept, some, or none."""
    from engine.meta_training import second_order, unroll
    from engine.meta_training.objective import Objective

    monkeypatch.setattr(second_order, "MOST_KEPT", most_kept)
    optimizer, steps = Scheming(), 9
    phi = {name: tensor.double().requires_grad_() for name, tensor in optimizer.init_phi(torch.Generator()).items()}
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2 * steps + 1, 2, 8, 3, generator=generator).double() for _ in range(2))

    def loss(theta, batch):
        return ((torch.sigmoid(batch[0] @ theta[:9].view(3, 3)) @ theta[9:].view(3, 3) - batch[1]) ** 2).mean()

    batches = list(zip(x, y, strict=True))
    theta = 0.7 * torch.randn(2, 18, generator=generator).double()
    factors = [1.0, 0.0, 2.0] * 3
    first, scoring = batches[-1] if loss_batch == "next" else None, batches[steps : 2 * steps]
    objective = Objective(loss, optimizer, loss_batch=loss_batch, second_order=True, divergence_cap=1e9)
    carry = unroll.begin(objective, theta, first, horizon=steps)
    meta, _ = truncation(
        objective, phi, carry, batches[:steps], factors, (), scoring=scoring if loss_batch == "validation" else None
    )

    total, slope = torch.zeros((), dtype=F64), torch.func.grad_and_value(loss)
    for b in range(2):
        point, state = theta[b], optimizer.init(theta[b])
        for t in range(steps):
            fed = batches[t] if loss_batch != "next" else (batches[t - 1] if t else first)
            grad, value = slope(point, (fed[0][b], fed[1][b]))
            info = StepInfo(value.detach() if not t and loss_batch == "next" else value, t)
            features, state = optimizer.observe(point, grad, state, None, info)
            update, state = optimizer.step(phi, features, state)
            point = point + update
            scored = scoring[t] if loss_batch == "validation" else batches[t]
            total = total + factors[t] / 2 * loss(point, (scored[0][b], scored[1][b]))
    expected = torch.autograd.grad(total, list(phi.values()))
    for name, gradient in zip(phi, expected, strict=True):
        torch.testing.assert_close(meta.gradient[name], gradient, rtol=1e-10, atol=1e-12)


LAYERS = {
    "bias": lambda theta, x: linear(x, theta[:5].view(1, 5), theta[5:6]),
    "no bias": lambda theta, x: linear(x, theta[:5].view(1, 5)),
    "two layers": lambda theta, x: linear(linear(x, theta[:5].view(1, 5)).tanh(), theta[5:].view(1, 1), theta[:1]),
    "weights of one number": lambda theta, x: linear(x, theta[:5])[:, None],
    "the same weights for all": lambda theta, x: linear(x, torch.ones(1, 5, dtype=x.dtype), theta[:1]),
    "the same bias for all": lambda theta, x: linear(x, theta[:5].view(1, 5), torch.ones(1, dtype=x.dtype)),
    "rows of rows": lambda theta, x: linear(x[None], theta[:5].view(1, 5), theta[5:])[0],
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_particles_together_are_each_alone(layer):
    """Linear layers of all particles are one product; losses and gradients are those of a loop."""
    theta, x, y = (torch.randn(shape, dtype=torch.float64) for shape in ((4, 2, 6), (2, 8, 5), (2, 8)))

    def loss(theta, batch):
        outputs = layer(theta, batch[0])
        return mse_loss(outputs, batch[1].view_as(outputs))

    gradients, losses = gradients_and_losses(loss, theta, (x, y))
    for m, b in itertools.product(range(4), range(2)):
        gradient, value = grad_and_value(loss)(theta[m, b], (x[b], y[b]))
        torch.testing.assert_close((gradients[m, b], losses[m, b]), (gradient, value))
