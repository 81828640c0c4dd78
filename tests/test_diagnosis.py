"""The diagnosis of meta-gradients: on quadratics under gradient descent both derivatives are closed forms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

import engine
from engine.base.flat import grad_and_hvp, unit
from engine.meta_training.diagnosis import DIFFERENCE, THE_LOSS, Derivatives, Diagnosis
from engine.meta_training.objective import Objective
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS
from engine.penalties.base import GeometricPenalty, Penalty
from engine.presets.tables import MetaSettings, ObjectiveSettings
from engine.tasks.outside import as_distribution
from engine.tasks.table import build_task

CPU, F64 = torch.device("cpu"), torch.float64
RATE = 0.1


class Quadratic:
    """L = 1/2 sum a x^2 from x = start, without noise."""

    def __init__(self, curvature, start) -> None:
        self.curvature, self.start = torch.tensor(curvature, dtype=F64), torch.tensor(start, dtype=F64)
        self.name, self.layout = "quadratic", engine.Layout({"x": (len(curvature),)})

    def init_theta(self, seed):
        return self.start

    def loss(self, theta, batch):
        return 0.5 * (self.curvature.to(theta) * (theta + batch) ** 2).sum()

    def batches(self, seeds, split):
        return itertools.repeat(torch.zeros(len(seeds), len(self.start), dtype=F64))


class PlainDescent(engine.LearnedOptimizer):
    """u = -rate g."""

    gradient_features = 1

    def init_phi(self, generator):
        return {"rate": torch.tensor([RATE])}

    def init(self, theta):
        return {}

    def observe(self, theta, grad, state):
        return grad[..., None], state

    def step(self, phi, features, state):
        return -phi["rate"] * features[..., 0], state


class SlopeNorm(GeometricPenalty):
    """|g|, whose gradient is H g / |g|."""

    def at(self, loss, theta, value, gradient):
        _, slope = grad_and_hvp(loss, theta, unit(gradient))
        return gradient.norm(), slope


def diagnosed(
    task: Quadratic,
    steps: int,
    estimator: str | None = "tbptt",
    penalties: dict[str, Penalty] | None = None,
    objective: ObjectiveSettings | None = None,
    windows: bool = False,
    **settings,
) -> dict[tuple, Derivatives]:
    """The derivatives by part and window."""
    objective_of_all = Objective(
        loss=task.loss,
        optimizer=PlainDescent(),
        geometric=penalties or {},
        layout=task.layout,
        settings=objective or ObjectiveSettings(),
        divergence_cap=1e6,
    )
    diagnosis = Diagnosis(
        optimizer=PlainDescent(),
        phi={"rate": torch.tensor([RATE], dtype=F64)},
        objective_on=lambda _: objective_of_all,
        settings=MetaSettings(inner_steps=steps, **{"truncation": steps, **settings}),
        estimator=None if estimator is None else engine.estimators.get(estimator),
        horizon=steps,
        seed=0,
        windows=windows,
    )
    return {(one.part, one.window): one for one in diagnosis.derivatives(as_distribution(task), 2)}


def path(task: Quadratic, log_scale: float, steps: int) -> Tensor:
    """theta after inner steps 0 to `steps`, [steps + 1, P]."""
    shrink = 1 - RATE * math.exp(log_scale) * task.curvature
    return task.start * shrink ** torch.arange(steps + 1, dtype=F64)[:, None]


def loss_at(task: Quadratic, theta: Tensor) -> Tensor:
    return 0.5 * (task.curvature * theta**2).sum(-1)


def slope_norm_at(task: Quadratic, theta: Tensor) -> Tensor:
    return (task.curvature * theta).norm(dim=-1)


def difference(task: Quadratic, value, steps: int, first: int = 0, last: int | None = None) -> float:
    """The central difference of the mean of a value over the inner steps after `first`."""
    plus, minus = (value(task, path(task, side, steps)[1 + first : last and last + 1]).mean() for side in (
        DIFFERENCE,
        -DIFFERENCE,
    ))  # fmt: skip
    return float(plus - minus) / (2 * DIFFERENCE)


def first_order(task: Quadratic, value, steps: int, truncation: int) -> float:
    """With gradients held constant: theta_t moves with the log scale as the updates since its truncation's begin."""
    theta = path(task, 0.0, steps)
    total = 0.0
    for t in range(1, steps + 1):
        began = (t - 1) // truncation * truncation
        point = theta[t].clone().requires_grad_()
        (slope,) = torch.autograd.grad(value(task, point), point)
        total += float(slope @ (theta[t] - theta[began]))  # d theta_t / da is the sum of those updates
    return total / steps


TASK = Quadratic([1.0, 2.0, 3.0], [1.0, -0.5, 2.0])
LOSS_ALL, NORM = (THE_LOSS, (0, 8)), (("penalty", "slope"), (0, 8))


@pytest.mark.parametrize("truncation", [8, 4, 3])
def test_both_derivatives_are_their_closed_forms(truncation):
    one = diagnosed(TASK, 8, penalties={"slope": SlopeNorm(weight=7.0)}, truncation=truncation)
    for key, value in ((LOSS_ALL, loss_at), (NORM, slope_norm_at)):
        found = one[key]
        assert found.true == pytest.approx([difference(TASK, value, 8)] * 2, rel=1e-9)
        assert found.estimated == pytest.approx([first_order(TASK, value, 8, truncation)] * 2, rel=1e-9)


def test_the_second_order_is_true_within_a_truncation_of_the_whole_unroll():
    one = diagnosed(TASK, 8, "second_order", {"slope": SlopeNorm()})
    for key, value in ((LOSS_ALL, loss_at), (NORM, slope_norm_at)):
        log_scale = torch.zeros((), dtype=F64, requires_grad=True)
        theta = TASK.start * (1 - RATE * log_scale.exp() * TASK.curvature) ** torch.arange(1, 9)[:, None]
        (exact,) = torch.autograd.grad(value(TASK, theta).mean(), log_scale)
        assert one[key].estimated == pytest.approx([float(exact)] * 2, rel=1e-9)
        assert one[key].true == pytest.approx([float(exact)] * 2, rel=0.02)  # the difference's own error, h^2


@pytest.mark.parametrize(
    ("key", "value", "start"), [(LOSS_ALL, loss_at, 0.3), (NORM, slope_norm_at, 0.1)], ids=["loss", "penalty"]
)
def test_where_the_first_order_has_the_wrong_sign_it_shows(key, value, start):
    """One direction that is too slow and one that overshoots: how they weigh is not the same for both derivatives."""
    task = Quadratic([1.0, 15.0], [1.0, start])
    found = diagnosed(task, 8, penalties={"slope": SlopeNorm()})[key]
    assert found.true[0] == pytest.approx(difference(task, value, 8), rel=1e-9)
    assert found.estimated[0] == pytest.approx(first_order(task, value, 8, 8), rel=1e-9)
    assert found.estimated[0] < 0 < found.true[0]  # "step more" where less would be right


def test_windows_are_of_whole_truncations_and_add_up():
    one = diagnosed(TASK, 250, penalties={"slope": SlopeNorm()}, truncation=40, windows=True)
    windows = [window for part, window in one if part == THE_LOSS]
    assert windows == [(0, 250), (0, 80), (80, 160), (160, 240), (240, 250)]
    for first, last in windows[1:]:
        assert one[THE_LOSS, (first, last)].true[0] == pytest.approx(
            difference(TASK, loss_at, 250, first, last), rel=1e-9
        )
    for kind in ("true", "estimated"):
        parts = [(last - first) * getattr(one[THE_LOSS, (first, last)], kind)[0] for first, last in windows[1:]]
        assert sum(parts) / 250 == pytest.approx(getattr(one[THE_LOSS, (0, 250)], kind)[0], rel=1e-9)


def test_what_the_objective_asks_of_the_end_is_measured_there():
    """log of the last loss: a first-order estimator has no derivative of it, the truth is there all the same."""
    last = ObjectiveSettings(loss="last", log=True)
    found = diagnosed(TASK, 8, objective=last)[LOSS_ALL]
    log_of_last = [loss_at(TASK, path(TASK, side, 8)[-1]).log() for side in (DIFFERENCE, -DIFFERENCE)]
    assert found.true[0] == pytest.approx(float(log_of_last[0] - log_of_last[1]) / (2 * DIFFERENCE), rel=1e-9)
    assert found.estimated is None
    assert diagnosed(TASK, 8, None)[LOSS_ALL].estimated is None


def test_synthetic_gradients_are_differentiated_from_the_learned_start():
    """Of `sib` back-propagation knows everything: it gives the true derivative, from where the optimizer starts."""
    task = build_task({"dataset": "digits-episodes", "optimizee": "cosine", "shots": 3}, device=CPU, dtype=F64)
    sib = LEARNED_OPTIMIZERS.create("sib", ways=2, inputs=64, step_size=0.05)
    generator = torch.Generator().manual_seed(1)
    phi = {name: tensor.to(F64) for name, tensor in sib.init_phi(generator).items()}
    phi["linear2.weight"] = torch.randn(phi["linear2.weight"].shape, generator=generator, dtype=F64)
    smooth = engine.penalties.get("smooth", every_step=True)
    objective = Objective(
        loss=task.loss,
        optimizer=sib,
        update={"smooth": smooth},
        layout=task.layout,
        task=task,
        settings=ObjectiveSettings(loss="validation", batches=1),
        divergence_cap=1e9,
    )
    settings = MetaSettings(inner_steps=3, truncation=3)
    diagnosis = Diagnosis(sib, phi, lambda _: objective, settings, engine.estimators.get("tbptt"), 3, 0, 1e-6)
    parts = {one.part: one for one in diagnosis.derivatives(as_distribution(task), 4)}
    loss, penalty = parts[THE_LOSS], parts["penalty", "smooth"]
    assert min(map(abs, loss.true)) > 1e-5
    assert loss.estimated == pytest.approx(loss.true, rel=1e-4)
    assert all(value > 0 for value in (*penalty.value, *penalty.true, *penalty.estimated))
