"""Meta-training with objects of a user's own: no preset, folder or process."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import engine

SHORT = {"epochs": 4, "inner_steps": 20, "truncation": 10, "meta_batch": 2, "learning_rate": 0.05}
MEASURED = {"every": 2, "optimizees": 2, "examples": 20, "restarts": 1, "ascent_steps": 2}


class Quadratic:
    """1/2 a |theta - x|^2 with noisy x: a task that knows nothing of lreg but the contract."""

    name = "quadratic"
    layout = {"x": (2, 2), "y": (1,)}

    def __init__(self, curvature: float = 1.0) -> None:
        self.curvature = curvature

    def init_theta(self, seed):
        return torch.randn(5, generator=torch.Generator().manual_seed(seed))

    def loss(self, theta, batch):
        return 0.5 * self.curvature * ((theta - batch) ** 2).sum()

    def batches(self, seeds, split):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        while True:
            yield torch.stack([0.1 * torch.randn(5, generator=generator) for generator in generators])

    def metrics(self, theta, split):
        return {"loss": self.loss(theta, torch.zeros(5)), "distance": theta.norm()}


class Quadratics:
    def sample(self, seed):
        return Quadratic(0.5 + float(torch.rand((), generator=torch.Generator().manual_seed(seed))))


class GradientDescent(engine.LearnedOptimizer):
    """u = -exp(phi) g: what it should learn is known, log(1 / curvature) or more."""

    gradient_features = 1

    def init_phi(self, generator):
        return {"log_rate": torch.tensor([-4.0])}

    def init(self, theta):
        return {}

    def observe(self, theta, grad, state):
        return grad[..., None], state

    def step(self, phi, features, state):
        return -phi["log_rate"].exp() * features[..., 0], state


def meta_train(tasks, optimizer, penalties=(), settings=None, **more):
    records: list[dict] = []
    settings = {**SHORT, **(settings or {})}
    phi = engine.meta_train(
        tasks, optimizer, penalties, settings=settings, evaluation=MEASURED, on_step=records.append, **more
    )
    return phi, records


def test_a_step_size_is_learned_on_a_quadratic_of_ones_own():
    phi, records = meta_train(Quadratic(), GradientDescent(), settings={"epochs": 30})
    assert -2.5 < float(phi["log_rate"]) < 0.7  # from -4; 2 / curvature would be the edge of divergence
    evaluations = [record for record in records if "validation_loss" in record]
    assert evaluations[-1]["validation_loss"] < 0.1 * evaluations[0]["validation_loss"]
    assert evaluations[-1]["test_distance"] < evaluations[0]["test_distance"]
    assert [record["step"] for record in records if "meta_loss" in record] == list(range(1, 61))


class Doubles(Quadratic):
    """The same numbers in float64."""

    def init_theta(self, seed):
        return super().init_theta(seed).double()


@pytest.mark.parametrize("name", ["simple", "dm", "rnnprop"])
def test_phi_is_trained_in_the_dtype_of_the_task(name):
    optimizer = engine.learned_optimizers.get(name)
    phi, records = meta_train(Doubles(), optimizer, [engine.penalties.get("smooth"), engine.penalties.get("sam")])
    single, others = meta_train(Quadratic(), optimizer, [engine.penalties.get("smooth"), engine.penalties.get("sam")])
    assert {tensor.dtype for tensor in phi.values()} == {torch.float64}
    assert {tensor.dtype for tensor in single.values()} == {torch.float32}
    assert records[1]["meta_loss"] == pytest.approx(others[1]["meta_loss"], rel=1e-4)
    # meta-parameters of a float32 run are gone on from in float64
    again, _ = meta_train(Doubles(), optimizer, init_phi=single, settings={"epochs": 1})
    assert {tensor.dtype for tensor in again.values()} == {torch.float64}


class Still(Quadratic):
    """No noise, and every optimizee starts from ones: all of an unroll is a closed form."""

    def init_theta(self, seed):
        return torch.ones(5)

    def batches(self, seeds, split):
        return itertools.repeat(torch.zeros(len(seeds), 5))


@pytest.mark.parametrize("order", ["tbptt", "second_order"])
def test_the_meta_gradient_is_the_closed_form(order):
    """theta_t = (1 - r a)^t theta_0. By the first order d theta_t / d phi = -r a (theta_0 + ... + theta_{t-1}); by the
    second -r a t (1 - r a)^(t - 1) theta_0. The meta-gradient is the sum over t of <a theta_t, d theta_t / d phi>."""
    a, r, steps = 3.0, math.exp(-4.0), 4
    theta = [(1 - r * a) ** t for t in range(steps + 1)]
    if order == "tbptt":
        slopes = [-r * a * sum(theta[:t]) for t in range(steps + 1)]
    else:
        slopes = [-r * a * t * (1 - r * a) ** (t - 1) for t in range(steps + 1)]
    expected = sum(5 * a * theta[t] * slopes[t] for t in range(1, steps + 1))
    settings = {"epochs": 1, "inner_steps": steps, "truncation": steps, "meta_batch": 2, "clip": "none"}
    _, records = meta_train(Still(a), GradientDescent(), settings=settings, estimator=engine.estimators.get(order))
    (record,) = [record for record in records if "meta_loss" in record]
    assert record["meta_grad_norm"] == pytest.approx(-expected, rel=1e-5)
    assert record["meta_loss"] == pytest.approx(sum(0.5 * a * 5 * x**2 for x in theta[1:]) / steps, rel=1e-5)


def test_tasks_may_be_drawn_from_a_distribution_and_the_same_seed_gives_the_same():
    one, records = meta_train(Quadratics(), engine.learned_optimizers.get("rnnprop"), [engine.penalties.get("smooth")])
    other, _ = meta_train(Quadratics(), engine.learned_optimizers.get("rnnprop"), [engine.penalties.get("smooth")])
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any("smooth_penalty" in record for record in records)
    third, _ = meta_train(Quadratics(), engine.learned_optimizers.get("rnnprop"), seed=1)
    assert not all(torch.equal(one[name], third[name]) for name in one)


def test_a_learned_optimizer_may_use_the_layout_the_loss_and_the_step():
    told = []

    class Told(GradientDescent):
        def init(self, theta, layout):
            assert layout.size == theta.shape[-1] == 5
            return {"by_name": torch.cat([torch.full((size,), float(i)) for i, size in enumerate(layout.sizes)])}

        def observe(self, theta, grad, state, layout, info):
            told.append((theta.clone(), grad.clone(), info.loss.clone(), info.step, info.horizon, dict(layout.shapes)))
            return grad[..., None], state

    meta_train(Quadratic(2.0), Told(), settings={"epochs": 1})
    steps = [step for *_, step, _, _ in told]
    assert steps == [*range(20)] * (len(steps) // 20)
    for theta, grad, loss, _, horizon, shapes in told:
        assert horizon == 20 and shapes == {"x": (2, 2), "y": (1,)}
        # of a quadratic the loss follows from its gradient: g = a (theta - x), L = |g|^2 / (2 a)
        torch.testing.assert_close(loss, (grad**2).sum(-1) / 4.0)
        assert theta.shape == (2, 5)


class Reviews(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm, self.out = nn.Embedding(11, 6), nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.norm(self.embedding(x).mean(1)))


def examples(count: int = 60):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 11, (count, 7), generator=generator)
    return x, x.sum(1) % 3


def test_a_module_of_ones_own_with_a_norm_and_an_embedding():
    accuracy = engine.Metric("accuracy", unit="share", better="higher")
    task = engine.SupervisedTask(
        "reviews",
        Reviews(),
        {"train": examples(), "test": examples(20)},
        F.cross_entropy,
        metrics={accuracy: lambda outputs, y: (outputs.argmax(-1) == y).float().mean()},
        batch_size=16,
    )
    names = dict(Reviews().named_parameters())
    assert list(task.layout.shapes) == list(names)
    theta = task.layout.split(task.init_theta(3))
    assert theta["norm.weight"].eq(1).all() and theta["norm.bias"].eq(0).all() and theta["embedding.weight"].std() > 0.5
    phi, records = meta_train(task, engine.learned_optimizers.get("simple"), [engine.penalties.get("gam")])
    assert all(0 <= record["test_accuracy"] <= 1 for record in records if "validation_loss" in record)
    module = Reviews().double()
    nn.utils.vector_to_parameters(task.init_theta(3).double(), module.parameters())
    x, y = task.examples["test"].x, task.examples["test"].y
    expected = F.cross_entropy(module(x), y)
    torch.testing.assert_close(task.metrics(task.init_theta(3).double(), "test")["loss"], expected.detach())
    assert len(phi) > 0


def test_layers_of_ones_own_module_share_a_parameter():
    """One place in theta for both, and a gradient that is the sum of theirs."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.out = nn.Embedding(7, 5), nn.Linear(5, 7, bias=False)
            self.out.weight = self.embedding.weight

        def forward(self, x):
            return self.out(self.embedding(x).mean(1))

    x = torch.randint(0, 7, (30, 4), generator=torch.Generator().manual_seed(0))
    splits = {"train": (x, x[:, 0]), "test": (x, x[:, 0])}
    module = Tied()
    task = engine.SupervisedTask("tied", module, splits, F.cross_entropy, batch_size=8)
    assert dict(task.layout.shapes) == {"embedding.weight": (7, 5)}
    theta = module.embedding.weight.detach().flatten()
    slope = torch.func.grad(task.loss)(theta, task.fixed_batch(30, dtype=torch.float32))
    F.cross_entropy(module(task.fixed_batch(30).x), task.fixed_batch(30).y).backward()
    torch.testing.assert_close(slope, module.embedding.weight.grad.flatten())
    meta_train(task, GradientDescent())


def test_a_penalty_of_ones_own_is_pulled_back_and_logged():
    class Decay(engine.penalties.GeometricPenalty):
        def at(self, loss, theta, value, gradient):
            return 0.5 * (theta**2).sum(), theta

    x = torch.linspace(-1, 1, 40)[:, None]
    task = engine.SupervisedTask(
        "line", nn.Linear(1, 1), {"train": (x, 2 * x), "test": (x, 2 * x)}, F.mse_loss, batch_size=8
    )
    _, records = meta_train(task, GradientDescent(), [Decay(weight=0.5), Decay(weight=0.0)])
    record = next(record for record in records if "meta_loss" in record)
    assert record["decay_penalty"] == pytest.approx(record["decay-2_penalty"])
    assert record["decay_penalty_share"] > 0 == record["decay-2_penalty_share"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, GradientDescent()), "tasks must be a task"),
        ((object(), GradientDescent()), "without layout, init_theta, loss, batches"),
        ((Quadratic(), 5), "optimizer must be a learned optimizer"),
        ((Quadratic(), GradientDescent(), [7]), r"penalties\[0\] must be a penalty"),
        (
            (Quadratic(), GradientDescent(), {"sam": {"rho": 0.1}}),
            r"penalties\['sam'\] must be a penalty.* a dict",
        ),
        ((Quadratic(), GradientDescent(), engine.penalties.get("sam")), "penalties must be a list of penalties"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments, message):
    with pytest.raises(engine.LregError, match=message) as caught:
        meta_train(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_theta": lambda self, seed: torch.zeros(4)}, r"init_theta of quadratic must be floats of shape \[5\]"),
        ({"batches": lambda self, seeds, split: iter([torch.zeros(1, 5)])}, r"a leading \[2\] for two seeds, found"),
        ({"batches": lambda self, seeds, split: 7}, "batches must be a stream"),
        ({"loss": lambda self, theta, batch: theta * batch}, "loss of quadratic must be a scalar, found a tensor"),
        ({"loss": lambda self, theta, batch: theta.sum() * float(theta[0])}, "that torch.func.vmap can take"),
        ({"loss": lambda self, theta, batch: theta.detach().sum()}, "loss of quadratic must be differentiable"),
        ({"metrics": lambda self, theta, split: {"distance": theta.norm()}}, "metrics of quadratic must be .* loss"),
        ({"metrics": lambda self, theta, split: theta.norm()}, "metrics of quadratic must be .* a tensor"),
        ({"layout": 5}, "layout must be shapes by name"),
        ({"layout": {"w": "ab"}}, "layout must be shapes by name"),
    ],
)
def test_a_task_that_does_not_hang_together_is_one_line(changes, message):
    with pytest.raises(engine.LregError, match=message) as caught:
        meta_train(type("Wrong", (Quadratic,), changes)(), GradientDescent())
    assert "\n" not in str(caught.value)


def line(**arguments):
    x = torch.linspace(-1, 1, 40)[:, None]
    usual = {"module": nn.Linear(1, 1), "splits": {"train": (x, 2 * x), "test": (x, x)}, "loss": F.mse_loss}
    return engine.SupervisedTask("line", **{**usual, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"module": torch.sin}, "module must be a torch.nn.Module"),
        ({"splits": {"train": 3, "test": 3}}, r"splits\['train'\] must be x and y"),
        ({"splits": [1]}, "splits must be .* found a list"),
        ({"loss": "mse"}, "loss must be a function of outputs and targets"),
        ({"metrics": {"error": F.l1_loss}}, r"metrics must be .* by engine\.Metric"),
        ({"metrics": {engine.Metric("loss", better="higher"): F.l1_loss}}, "metrics must be of other names than loss"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, found 0"),
        ({"micro_batch": -1}, "micro_batch must be an integer >= 0"),
        ({"validation": 2.0}, "validation must be a number > 0"),
    ],
)
def test_what_a_task_of_examples_is_made_of_is_checked(arguments, message):
    with pytest.raises(engine.LregError, match=message):
        line(**arguments)


class Gain(nn.Module):
    """A layer of the user's own that cannot draw its parameters."""

    def __init__(self):
        super().__init__()
        self.gain, self.line = nn.Parameter(torch.tensor([3.0])), nn.Linear(1, 1)

    def forward(self, x):
        return self.gain * self.line(x)


def test_parameters_that_a_layer_cannot_draw_start_as_they_are_in_the_module():
    module = Gain()
    task = line(module=module)
    starts = [task.layout.split(task.init_theta(seed)) for seed in (0, 0, 1)]
    assert [start["gain"].tolist() for start in starts] == [[3.0]] * 3
    weights = [float(start["line.weight"]) for start in starts]
    assert weights[0] == weights[1] != weights[2]
    torch.testing.assert_close(module.gain.data, torch.tensor([3.0]))


def test_examples_may_be_arrays():
    x = torch.linspace(-1, 1, 40)[:, None]
    arrays = {"train": (x.numpy(), (2 * x).tolist()), "test": (x.double().numpy(), x.numpy())}
    theta = torch.tensor([2.0, 0.0])
    assert line(splits=arrays).metrics(theta, "test") == line().metrics(theta, "test")


@pytest.mark.parametrize(
    ("method", "wrong", "message"),
    [
        ("init_phi", lambda self, generator: {"log_rate": 0.1}, "init_phi of wrong must be floating-point tensors"),
        ("observe", lambda self, theta, grad, state: grad, "what wrong observes must be features"),
        ("step", lambda self, phi, features, state: features[..., 0], "the step of wrong must be an update"),
        ("step", lambda self, phi, features, state: (features, state), "the step of wrong must be an update"),
    ],
)
def test_a_learned_optimizer_that_does_not_fit_is_one_line(method, wrong, message):
    with pytest.raises(engine.LregError, match=message):
        meta_train(Quadratic(), type("Wrong", (GradientDescent,), {method: wrong})())


@pytest.mark.parametrize("result", [None, (1.0, torch.ones(5)), (torch.ones(5), torch.ones(5))])
def test_a_penalty_that_gives_no_value_and_gradient_is_one_line(result):
    penalty = type("Wrong", (engine.penalties.GeometricPenalty,), {"at": lambda *arguments: result})()
    with pytest.raises(engine.LregError, match=r"what wrong gives must be a value \[\] and its gradient \[5\]"):
        meta_train(Quadratic(), GradientDescent(), [penalty])


def test_a_term_that_gives_no_number_for_each_point_is_one_line():
    term = type("Wrong", (engine.terms.Term,), {"measure": lambda self, task, theta: theta})()
    with pytest.raises(engine.LregError, match="what wrong measures must be a number for each point"):
        meta_train(Quadratic(), GradientDescent(), estimator=engine.estimators.get("es", pairs=1), terms=[term])


def test_settings_are_checked():
    for settings, message in ((5, "settings must be a table"), ({"init_from": "last"}, "init_from: .* init_phi")):
        with pytest.raises(engine.LregError, match=message):
            engine.meta_train(Quadratic(), GradientDescent(), settings=settings)
    with pytest.raises(engine.LregError, match=r"settings\.epochs: found -1"):
        meta_train(Quadratic(), GradientDescent(), settings={"epochs": -1})
    with pytest.raises(engine.LregError, match="estimator: found 'tbtt'|did you mean"):
        engine.estimators.get("tbtt")
    with pytest.raises(engine.LregError, match=r"estimator must be an estimator, .* found a str"):
        meta_train(Quadratic(), GradientDescent(), estimator="es")


@pytest.mark.parametrize(
    ("settings", "more", "message"),
    [
        ({"inner_steps": (20, 10)}, {}, r"meta\.inner_steps: found \[20, 10\]; allowed: a growing list"),
        ({"inner_steps": (10, 20), "average": 0.5}, {}, r"meta\.average: found 0\.5"),
        ({"second_order": True}, {"estimator": engine.estimators.get("es")}, r"meta\.second_order: found true"),
        ({"inner_steps": 10}, {"penalties": [engine.penalties.get("sam", start=10)]}, r"penalty\.sam\.start: found 10"),
        (
            {"epochs": 3},
            {"estimator": engine.estimators.get("es"), "terms": [engine.terms.get("parameter_norm", start=3)]},
            r"terms\.parameter_norm\.start: found 3; allowed: below 3",
        ),
    ],
)
def test_what_would_be_left_unheeded_is_refused_as_in_a_preset(settings, more, message):
    with pytest.raises(engine.LregError, match=message):
        meta_train(Quadratic(), GradientDescent(), settings=settings, **more)


def test_batches_that_end_are_an_error():
    class Ending(Quadratic):
        def batches(self, seeds, split):
            return itertools.islice(super().batches(seeds, split), 15)

    with pytest.raises(engine.LregError, match="batches must not end"):
        meta_train(Ending(), GradientDescent())
