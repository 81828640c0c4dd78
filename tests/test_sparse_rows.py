"""Rows of embeddings that get no gradient are left alone: in every way that a learned optimizer takes steps."""

from __future__ import annotations

import pytest
import torch
from members import GRADIENT_KINDS
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from unrolling import truncation

from engine.base import seeds
from engine.base.flat import gradients_and_losses
from engine.evaluation.frozen_unroll import frozen_unroll
from engine.export.torch_optim import LoadedOptimizer
from engine.meta_training import particles
from engine.meta_training.inner_steps import Inputs
from engine.meta_training.objective import Objective
from engine.meta_training.unroll import begin
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS, StepInfo
from engine.penalties.base import InnerStep, get
from engine.presets.preset import from_mapping
from engine.tasks.base import Layout
from engine.tasks.supervised import SupervisedTask

F64 = torch.float64
WORDS, WIDTH, CLASSES = 7, 3, 2
LAYOUT = Layout({"bias": (CLASSES,), "embedding": (WORDS, WIDTH), "head": (CLASSES, WIDTH)})
EMBEDDING = LAYOUT.slices["embedding"]


def make(kind: str, **settings):
    optimizer = LEARNED_OPTIMIZERS.create(kind, hidden=5, **settings)
    phi = optimizer.init_phi(Generator().manual_seed(3))
    return optimizer, {name: tensor.to(F64).requires_grad_() for name, tensor in phi.items()}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=Generator().manual_seed(seed))


def loss(theta: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    parts = LAYOUT.split(theta)
    return F.cross_entropy(F.embedding(x, parts["embedding"]).mean(1) @ parts["head"].T + parts["bias"], y)


def batches(count: int, optimizees: int) -> list[tuple[Tensor, Tensor]]:
    """Three sentences of two words for each: some words are in none of them."""
    generator = Generator().manual_seed(2)
    shape = optimizees, 3
    draw = [(torch.randint(WORDS - 1, (*shape, 2), generator=generator), shape) for _ in range(count)]
    return [(x, torch.randint(CLASSES, of, generator=generator)) for x, of in draw]


def absent(batch: tuple[Tensor, Tensor]) -> Tensor:
    """Which words are in no example of each optimizee, [B, WORDS]."""
    return torch.stack([~torch.isin(torch.arange(WORDS), x) for x in batch[0]])


def factor(batch: tuple[Tensor, Tensor]) -> Tensor:
    """By the words themselves: 0 on the rows of those that are absent, [B, P]."""
    mask = torch.ones(len(batch[0]), LAYOUT.size, dtype=F64)
    mask[:, EMBEDDING] = (~absent(batch)).to(F64).repeat_interleave(WIDTH, 1)
    return mask


def written_out(optimizer, phi, theta, drawn, penalty):
    """The meta-objective by hand, and its gradient by autograd through the learned optimizer."""
    first, *rest = drawn
    state, total, feed = optimizer.init(theta, LAYOUT), torch.zeros((), dtype=F64), first
    generator = Generator().manual_seed(7)
    for step, batch in enumerate(rest):
        grad, value = gradients_and_losses(loss, theta, feed)
        features, before = optimizer.observe(theta.detach(), grad, state, LAYOUT, StepInfo(value, step))
        update, state = optimizer.step(phi, features, before)
        mask = factor(feed)
        if penalty is not None:
            worst = penalty.worst_features(optimizer, phi, InnerStep(features.detach(), before, update), generator)
            other, _ = optimizer.step(phi, worst, before)
            total = total + penalty.weight * ((mask * (update - other)) ** 2).mean()
        theta = theta + mask * update
        total = total + sum(loss(theta[b], tuple(p[b] for p in batch)) for b in range(len(theta))) / len(theta)
        feed = batch
    return theta, dict(zip(phi, torch.autograd.grad(total, list(phi.values())), strict=True))


@pytest.mark.parametrize(
    ("kind", "smooth", "way"),
    [
        (kind, smooth, ("auto", "recompute", "plain")[(k + smooth) % 3])
        for k, kind in enumerate(GRADIENT_KINDS)
        for smooth in (False, True)
    ],
)
def test_meta_gradients_are_those_of_the_steps_that_are_taken(kind, smooth, way, monkeypatch):
    monkeypatch.setenv("LREG_KERNELS", way)
    optimizer, phi = make(kind)
    theta, drawn = random(2, LAYOUT.size), batches(4, 2)
    assert absent(drawn[0]).any(1).all()
    penalty = get("smooth", epsilon=0.3, ascent_steps=3, weight=1e3) if smooth else None
    update = {} if penalty is None else {"smooth": penalty}
    objective = Objective(loss, optimizer, update=update, layout=LAYOUT)
    carry = begin(objective, theta, drawn[0])
    meta, after = truncation(objective, phi, carry, drawn[1:], [1.0] * 3, Generator().manual_seed(7))
    reached, expected = written_out(optimizer, phi, theta, drawn, penalty)
    torch.testing.assert_close(after.theta, reached.detach(), rtol=1e-10, atol=1e-12)
    for name, slope in expected.items():
        torch.testing.assert_close(meta.gradient[name], slope, rtol=1e-8, atol=1e-12 + 1e-9 * slope.norm())
    never = torch.stack([absent(batch) for batch in drawn[:-1]]).all(0)  # the last batch moves nothing
    rows = lambda point: point[:, EMBEDDING].unflatten(-1, (WORDS, WIDTH))  # noqa: E731
    assert never[:, -1].all() and torch.equal(rows(after.theta)[never], rows(theta)[never])


@pytest.mark.parametrize("kind", GRADIENT_KINDS)
def test_particles_leave_the_same_rows_alone(kind):
    optimizer, phi = make(kind)
    phis = {name: torch.stack([tensor, 1.1 * tensor]).detach() for name, tensor in phi.items()}
    theta, drawn = random(2, LAYOUT.size), batches(4, 2)
    objective = Objective(loss, optimizer, layout=LAYOUT)
    carry = particles.begin(objective, 2, theta, drawn[0])
    inputs = Inputs(drawn[1:], [1.0] * 3, Generator().manual_seed(7))
    _, after = particles.run_truncation(objective, phis, carry, inputs)
    for place in range(2):
        one = {name: tensor[place].requires_grad_() for name, tensor in phis.items()}
        reached, _ = written_out(optimizer, one, theta, drawn, None)
        torch.testing.assert_close(after.theta[place], reached.detach(), rtol=1e-9, atol=1e-11)


class Sentences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embedding(x).mean(1))


@pytest.mark.parametrize("step_scale", ["none", "rms"])
@pytest.mark.parametrize("kind", GRADIENT_KINDS)
def test_evaluation_and_torch_step_as_meta_training_does(kind, step_scale):
    """With two steps behind it a momentum moves a word that is in no example any more: it does not."""
    optimizer, phi = make(kind, step_scale=step_scale)
    phi = {name: tensor.detach() for name, tensor in phi.items()}
    x, y = batches(1, 14)[0]
    x, y = x.flatten(0, 1), y.flatten()
    module = Sentences().double()
    task = SupervisedTask(
        "sentences", module, {"train": (x, y), "test": (x, y)}, F.cross_entropy, batch_size=2, dtype=F64
    )
    assert task.layout.embeddings == {"embedding.weight"}
    steps = list(frozen_unroll(task, optimizer, phi, [11], 6))
    nn.utils.vector_to_parameters(steps[0].theta[0].clone(), module.parameters())
    loaded = LoadedOptimizer(module.named_parameters(), optimizer, phi, horizon=6)
    theta, state = steps[0].theta, optimizer.init(steps[0].theta, task.layout)
    drawn = task.batches([seeds.derive(11, "batches")]).draw(6)
    rested = 0
    for step, after in enumerate(steps[1:]):
        before = module.embedding.weight.detach().clone()
        loaded.zero_grad()
        F.cross_entropy(module(drawn[step].x[0]), drawn[step].y[0]).backward()
        loaded.step()
        grad, value = gradients_and_losses(task.loss, theta, drawn[step])
        update, state = optimizer.update(phi, theta, grad, state, task.layout, StepInfo(value, step, 6))
        theta = theta + update
        torch.testing.assert_close(after.theta, theta, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(nn.utils.parameters_to_vector(module.parameters()), theta[0], rtol=1e-9, atol=1e-11)
        unread = ~torch.isin(torch.arange(WORDS), drawn[step].x[0])
        rested += int(unread.sum())
        assert torch.equal(module.embedding.weight[unread], before[unread])
        assert (module.embedding.weight[~unread] != before[~unread]).any()
    assert rested > 10


def test_a_loaded_optimizer_knows_an_embedding_by_its_name_in_any_order_of_memory():
    optimizer, phi = make("dm")
    grad = torch.zeros(6, 4)
    grad[2] = 1.0
    values = torch.randn(6, 4, generator=Generator().manual_seed(0))
    for name, rests in (("wte.weight", True), ("linear.weight", False)):
        for start in (values, values.view(4, 6).T, values.bfloat16()):
            parameter = nn.Parameter(start.clone(memory_format=torch.preserve_format))
            parameter.grad = grad.to(parameter.dtype)
            LoadedOptimizer([(name, parameter)], optimizer, phi, scale=1e4).step()
            unmoved = (parameter == start).all(1)
            assert unmoved.tolist() == [rests and row != 2 for row in range(6)]


def test_it_is_a_setting_and_tasks_without_embeddings_never_pay():
    optimizer, phi = make("dm", sparse_rows=False)
    theta, batch = random(2, LAYOUT.size), batches(1, 2)[0]
    grad, _ = gradients_and_losses(loss, theta, batch)
    update, _ = optimizer.update(phi, theta, grad, optimizer.init(theta), LAYOUT)
    assert (update != 0).all()  # dm has biases
    plain = Layout({"w": (3, 4), "b": (4,), "position_embedding": (5,)})
    assert not plain.embeddings and make("dm")[0].update_factor(theta, plain, grad) is None
    assert Layout({"out.embedding": (3, 4)}, {"out.embedding": 4}).embeddings == frozenset()  # it is tied: a matrix
    decisive = from_mapping({"name": "small"}).decisive()["optimizer"]
    assert "sparse_rows" not in decisive
    changed = from_mapping({"name": "small", "optimizer": {"sparse_rows": False}}).decisive()["optimizer"]
    assert changed["sparse_rows"] is False
