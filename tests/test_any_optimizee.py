"""A user's own networks as optimizees: norms, embeddings, attention, shared parameters; or one line that says no."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.func import grad_and_value, vmap
from torch.nn import functional as F

import engine
from engine import penalties
from engine.base.errors import PresetError
from engine.base.flat import grad_and_hvp, gradients_and_losses, plain_attention
from engine.tasks.optimizees.base import INITS, OPTIMIZEES, Optimizee
from engine.tasks.table import build_task

CPU, F64 = torch.device("cpu"), torch.float64
META = torch.device("meta")


def start(module, init="uniform", seed=0):
    """Every parameter's start by name, shared ones under the first."""
    theta = Optimizee(init=init).init_theta(module, torch.Generator().manual_seed(seed))
    parameters = dict(module.named_parameters())
    pieces = theta.split([parameter.numel() for parameter in parameters.values()])
    return {name: piece.view(like.shape) for (name, like), piece in zip(parameters.items(), pieces, strict=True)}


class ScaleNorm(nn.Module):
    """A norm of the user's own."""

    def __init__(self):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.empty(4)), nn.Parameter(torch.empty(4))


NORMS = [
    lambda: nn.LayerNorm((2, 3)),
    lambda: nn.RMSNorm(4),
    lambda: nn.GroupNorm(2, 4),
    lambda: nn.InstanceNorm2d(4, affine=True),
    lambda: nn.BatchNorm1d(4, track_running_stats=False),
    ScaleNorm,
]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("init", INITS)
def test_norms_of_every_kind_start_at_one_and_zero(norm, init):
    values = start(nn.Sequential(nn.Linear(4, 4), norm()), init)
    own = {name: value for name, value in values.items() if name.startswith("1.")}
    assert own and all((value == float(name[2:] not in ("bias", "beta"))).all() for name, value in own.items())


def test_other_layers_start_as_in_torch():
    """Embedding: N(0, 1), the padding 0; in_proj of attention: Glorot's uniform; Bilinear: U(-1, 1) / sqrt(inputs)."""
    with META:
        module = nn.ModuleDict(
            {
                "embedding": nn.Embedding(200, 50, padding_idx=3),
                "attention": nn.MultiheadAttention(64, 4),
                "bilinear": nn.Bilinear(25, 20, 10),
                "slope": nn.PReLU(),
            }
        )
    torch.manual_seed(1)
    before = torch.get_rng_state()
    values = start(module)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, other) for value, other in zip(values.values(), start(module).values(), strict=True))
    assert not torch.equal(values["embedding.weight"], start(module, seed=1)["embedding.weight"])
    assert abs(values["embedding.weight"].std() - 1) < 0.03 and not values["embedding.weight"][3].any()
    bound = math.sqrt(6 / (4 * 64))
    assert 0.99 * bound < values["attention.in_proj_weight"].abs().max() <= bound
    assert not values["attention.in_proj_bias"].any()
    assert 0.19 < values["bilinear.weight"].abs().max() <= 0.2 and values["slope.weight"].tolist() == [0.25]


class Language(nn.Module):
    """Grey levels as tokens; the embedding is used again at the output, and one norm serves twice."""

    def __init__(self, classes, fused):
        super().__init__()
        self.embedding, self.attention = nn.Embedding(classes, 4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.first = self.second = nn.LayerNorm(4)
        self.output = nn.Linear(4, classes, bias=False)
        self.output.weight = self.embedding.weight
        self.fused = fused

    def forward(self, x, noise=None):
        hidden = self.first(self.embedding((x.flatten(1)[:, 20:26] * 3).long().clamp(0, 9)))
        hidden = hidden + self.attention(hidden, hidden, hidden, need_weights=not self.fused)[0]
        return self.output(self.second(hidden).mean(1))


def task_of(monkeypatch, build):
    monkeypatch.setattr(OPTIMIZEES["mlp"], "build", lambda self, input_shape, classes: build(classes))
    return build_task({"optimizee": "mlp", "init": "uniform", "batch_size": 6}, device=CPU, dtype=F64)


@pytest.mark.parametrize("fused", [False, True])
def test_embeddings_attention_and_shared_parameters_are_meta_trained_on(monkeypatch, fused):
    task = task_of(monkeypatch, lambda classes: Language(classes, fused))
    assert task.parameters == 10 * 4 + 12 * 4 + 12 + 4 * 4 + 4 + 8
    theta = torch.stack([task.init_theta(seed) for seed in range(2)])
    batch = task.batches([0, 1]).draw(1)[0]
    gradients, losses = gradients_and_losses(task.loss, theta, batch)

    for place in range(2):  # the same by plain autograd in a module that really shares
        module = Language(10, fused).to(F64)
        nn.utils.vector_to_parameters(theta[place], module.parameters())
        loss = F.cross_entropy(module(batch.of(place).x), batch.of(place).y)
        loss.backward()
        expected = torch.cat([parameter.grad.flatten() for parameter in module.parameters()])
        torch.testing.assert_close(losses[place], loss.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradients[place], expected, rtol=1e-10, atol=1e-12)

    for name in ("sam", "gsam", "gam"):
        penalty = penalties.get(name, rho=0.1)

        def at(theta, batch, penalty=penalty):
            gradient, value = grad_and_value(task.loss)(theta, batch)
            return penalty.at(lambda point: task.loss(point, batch), theta, value, gradient)

        with plain_attention():
            together = vmap(at)(theta, batch)
            both = [at(theta[place], batch.of(place)) for place in range(2)]
        for place, alone in enumerate(both):
            torch.testing.assert_close([part[place] for part in together], list(alone), rtol=1e-9, atol=1e-12)
    assert task.metrics_of_each(theta, "test")["loss"].isfinite().all()


@pytest.mark.filterwarnings("error:There is a performance drop")  # vmap, one optimizee after another
@pytest.mark.parametrize("estimator", ["tbptt", "second_order"])
def test_fused_attention_is_meta_trained_and_its_curvature_measured(monkeypatch, estimator):
    records: list[dict] = []
    engine.meta_train(
        task_of(monkeypatch, lambda classes: Language(classes, fused=True)),
        engine.learned_optimizers.get("simple"),
        [engine.penalties.get("gam")],
        estimator=engine.estimators.get(estimator),
        settings={"epochs": 1, "inner_steps": 2, "meta_batch": 2},
        evaluation={"optimizees": 1, "examples": 10, "restarts": 1, "ascent_steps": 1},
        on_step=records.append,
    )
    assert all(math.isfinite(record.get("gam_penalty", record.get("top_eigenvalue"))) for record in records)


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(3, track_running_stats=False), (2, 3)),
        (nn.BatchNorm2d(3, track_running_stats=False), (2, 3, 2, 2)),
        (nn.InstanceNorm1d(3, affine=True), (2, 3, 4)),
        (nn.InstanceNorm2d(3), (2, 3, 2, 2)),
    ],
)
def test_norms_by_the_batch_have_second_derivatives_side_by_side(monkeypatch, norm, shape):
    """torch's own kernel is refused by vmap, or wrong there and silent; the formula is neither."""

    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Linear(64, math.prod(shape[1:])), norm

        def forward(self, x, noise=None):
            return self.norm(self.first(x.flatten(1)).unflatten(1, shape[1:])).flatten(1).sin()

    theirs = Normed().to(F64)  # before the task writes the norm's formula out
    theta = nn.utils.parameters_to_vector(theirs.parameters()).detach()
    x = torch.randn(5, 64, dtype=F64, generator=torch.Generator().manual_seed(0))
    expected = theirs(x).detach()
    task = task_of(monkeypatch, lambda classes: Normed())
    torch.testing.assert_close(task.outputs(theta, x), expected, rtol=1e-10, atol=1e-12)
    vector = torch.linspace(-1, 1, len(theta), dtype=F64)

    def product(point):
        return grad_and_hvp(lambda at: (task.outputs(at, x) ** 3).sum(), point, vector)[1]

    points = torch.stack([theta, 1.5 * theta])
    torch.testing.assert_close(vmap(product)(points), torch.stack([product(point) for point in points]))


class Alone(nn.Sequential):
    def forward(self, x, noise=None):
        return super().forward(x)


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.empty(3))

    def forward(self, x):
        return x.flatten(1)[:, :3] * self.factor


@pytest.mark.parametrize(
    ("module", "line"),
    [
        (lambda: nn.BatchNorm1d(64), "BatchNorm1d.*running_mean.*track_running_stats=False"),
        (lambda: nn.LazyLinear(10), "LazyLinear.*lazy"),
        (lambda: nn.Embedding(10, 10, max_norm=1.0), "max_norm"),
        (lambda: nn.Dropout(0.5), "Dropout.*dropout 0.5.*noise"),
        (lambda: nn.TransformerEncoderLayer(4, 2), "dropout 0.1.*noise"),
        (lambda: nn.LSTM(4, 4), "LSTM.*nn.Linear"),
        (nn.ReLU, "without parameters"),
        (Bare, "Bare.*reset_parameters"),
    ],
)
def test_a_module_that_cannot_be_an_optimizee_is_refused_in_one_line(monkeypatch, module, line):
    with pytest.raises(PresetError, match=f"task.optimizee: found.*{line}") as caught:
        task_of(monkeypatch, lambda classes: Alone(module())).init_theta(0)
    assert "\n" not in str(caught.value)
