"""Steps that know the size of a tensor: the factors, and that every way a learned optimizer steps applies them."""

from __future__ import annotations

import math

import pytest
import torch
from members import GRADIENT_KINDS
from ranks import Ranks
from test_torch_optim import small_model, train
from torch import Tensor, nn
from unrolling import truncation

from engine.base import seeds
from engine.base.errors import LregError
from engine.base.flat import gradients_and_losses
from engine.evaluation.frozen_unroll import UpdateChange, frozen_unroll
from engine.export.optimizer import export_optimizer
from engine.export.torch_optim import LoadedOptimizer, load_optimizer
from engine.meta_training.objective import Objective
from engine.meta_training.unroll import begin
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS, LearnedOptimizer, Phi, StepInfo
from engine.optimizers.learned.features import NAMES
from engine.optimizers.learned.step_scale import mup_factors
from engine.penalties.base import InnerStep, get
from engine.presets.preset import from_mapping
from engine.runs import checkpoint as checkpoints
from engine.runs.reader import RunReader
from engine.runs.writer import Run
from engine.tasks.base import Layout
from engine.tasks.supervised import SupervisedTask
from engine.tasks.table import build_task

F64 = torch.float64
CPU = torch.device("cpu")


def make(kind: str, **settings) -> tuple[LearnedOptimizer, Phi]:
    optimizer = LEARNED_OPTIMIZERS.create(kind, **settings)
    generator = torch.Generator().manual_seed(3)
    return optimizer, {name: tensor.to(F64) for name, tensor in optimizer.init_phi(generator).items()}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def test_mups_factors_go_by_the_fan_in():
    layout = Layout(
        {
            "first.weight": (20, 784),
            "first.bias": (20,),
            "conv.weight": (8, 3, 5, 5),
            "norm.weight": (8,),
            "token_embedding.weight": (1000, 64),
            "wpe.weight": (32, 64),
            "head.weight": (10, 20),
            "gain": (),
            "by_rows": (784, 20),
        },
        {"by_rows": 784},
    )
    assert mup_factors(layout, 49) == (49 / 784, 1, 49 / 75, 1, 1, 1, 49 / 20, 1, 49 / 784)
    assert mup_factors(layout, 49, capped=True) == (49 / 784, 1, 49 / 75, 1, 1, 1, 1, 1, 49 / 784)


def test_a_module_says_what_is_looked_up_and_what_is_transposed():
    with torch.device("meta"):
        layers = {"words": nn.Embedding(50, 8), "up": nn.ConvTranspose2d(6, 4, 3), "tied": nn.Embedding(50, 8)}
        module = nn.ModuleDict({**layers, "out": nn.Linear(8, 50, bias=False)})
    module["tied"].weight = module["out"].weight  # what also multiplies is a matrix
    x, y = torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64)
    task = SupervisedTask("words", module, {"train": (x, y), "test": (x, y)}, nn.functional.cross_entropy)
    assert {name: task.layout.fan_in(name) for name in task.layout.shapes} == {
        "words.weight": None,
        "up.weight": 6 * 9,
        "up.bias": None,
        "tied.weight": 8,
    }


def test_rms_is_that_of_each_tensor_of_each_optimizee_and_not_below_a_thousandth():
    optimizer, layout = LEARNED_OPTIMIZERS.create("lin", step_scale="rms"), Layout({"w": (2, 2), "b": (2,)})
    theta = torch.tensor([[3.0, -4.0, 0.0, 0.0, 1e-5, 1e-5], [1.0, 1.0, 1.0, -1.0, 0.0, 2.0]], dtype=F64)
    expected = [[2.5] * 4 + [1e-3] * 2, [1.0] * 4 + [math.sqrt(2)] * 2]
    factor = optimizer.update_factor(theta.requires_grad_(), layout, torch.ones_like(theta))
    assert not factor.requires_grad
    torch.testing.assert_close(factor, torch.tensor(expected, dtype=F64))


def test_without_a_layout_there_is_nothing_to_go_by():
    for kind in ("mup", "rms"):
        optimizer, phi = make("dm", step_scale=kind)
        theta = random(4)
        with pytest.raises(LregError, match=f"step_scale = {kind}.*layout"):
            optimizer.update(phi, theta, theta, optimizer.init(theta))


# -- meta-training against plain autograd ------------------------------------------------------------------------------

INPUTS, UNITS, CLASSES = 5, 4, 3
LAYOUT = Layout({"first": (UNITS, INPUTS), "bias": (UNITS,), "head": (CLASSES, UNITS)})


def network_loss(theta: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    parts = LAYOUT.split(theta)
    hidden = torch.sigmoid(x @ parts["first"].T + parts["bias"])
    return nn.functional.cross_entropy(hidden @ parts["head"].T, y)


def batches(count: int, optimizees: int):
    generator = torch.Generator().manual_seed(2)
    return [
        (
            torch.randn(optimizees, 6, INPUTS, dtype=F64, generator=generator),
            torch.randint(0, CLASSES, (optimizees, 6), generator=generator),
        )
        for _ in range(count)
    ]


def written_out(optimizer, phi, theta, drawn, penalty, scaling, second_order=False):
    """The meta-objective written down, with the factors of `step_scale` computed here, and its gradient by autograd."""
    first, *rest = drawn
    state = optimizer.init(theta if scaling is None else theta / scaling, LAYOUT)
    feed, total = first, torch.zeros((), dtype=F64)
    generator = torch.Generator().manual_seed(7)
    for step, batch in enumerate(rest):
        seen = theta if second_order else theta.detach()
        losses = [network_loss(seen[b], tuple(part[b] for part in feed)) for b in range(len(theta))]
        if second_order and not seen.requires_grad:
            seen = seen.requires_grad_()
            losses = [network_loss(seen[b], tuple(part[b] for part in feed)) for b in range(len(theta))]
        grad, _ = gradients_and_losses(network_loss, seen.detach(), feed)
        if second_order:
            (grad,) = torch.autograd.grad(sum(losses), seen, create_graph=True)
        if scaling is not None:
            seen, grad = seen / scaling, grad * scaling
        parts = []
        for name, part in LAYOUT.split(seen.detach()).items():
            flat = part.reshape(len(theta), -1)
            if optimizer.step_scale == "mup":
                parts.append(
                    torch.full_like(flat, 1.0 if name == "bias" else 7 / (INPUTS if name == "first" else UNITS))
                )
            else:
                parts.append((flat**2).mean(1, keepdim=True).sqrt().clamp_min(1e-3).expand_as(flat))
        factor = torch.cat(parts, 1)
        features, before = optimizer.observe(seen, grad, state, LAYOUT, StepInfo(None, step))
        update, state = optimizer.step(phi, features, before)
        if penalty is not None:
            inner = InnerStep(features.detach(), before, update)
            worst = penalty.worst_features(optimizer, phi, inner, generator)
            other, _ = optimizer.step(phi, worst, before)
            total = total + penalty.weight * ((factor * update - factor * other) ** 2).mean()
        theta = theta + factor * update * (1.0 if scaling is None else scaling)
        total = total + sum(network_loss(theta[b], tuple(p[b] for p in batch)) for b in range(len(theta))) / len(theta)
        feed = batch
    return theta, dict(zip(phi, torch.autograd.grad(total, list(phi.values())), strict=True))


WAYS, SCALES = ("auto", "recompute", "plain"), ("mup", "rms")
CASES = [  # every kind in every case, kernels and scales in turn
    (kind, SCALES[(k + c) % 2], case, WAYS[(k + c) % 3])
    for k, kind in enumerate(GRADIENT_KINDS)
    for c, case in enumerate(("", "smooth", "scaled", "second order"))
]


@pytest.mark.parametrize(("kind", "step_scale", "case", "way"), CASES)
def test_meta_gradients_are_those_of_the_steps_that_are_taken(kind, step_scale, case, way, monkeypatch):
    monkeypatch.setenv("LREG_KERNELS", way)
    optimizer, phi = make(kind, hidden=5, step_scale=step_scale, base_width=7)
    phi = {name: tensor.requires_grad_() for name, tensor in phi.items()}
    theta, drawn = 0.5 * random(2, LAYOUT.size), batches(4, 2)
    scaling = random(2, LAYOUT.size, seed=5).exp() if case == "scaled" else None
    penalty = get("smooth", epsilon=0.3, ascent_steps=3, weight=1e3) if case == "smooth" else None
    update = {} if penalty is None else {"smooth": penalty}
    second_order = case == "second order"
    objective = Objective(network_loss, optimizer, update=update, layout=LAYOUT, second_order=second_order)
    carry = begin(objective, theta, drawn[0], scaling=scaling)
    meta, after = truncation(objective, phi, carry, drawn[1:], [1.0] * 3, torch.Generator().manual_seed(7))
    reached, expected = written_out(optimizer, phi, theta, drawn, penalty, scaling, second_order)
    torch.testing.assert_close(after.theta, reached.detach(), rtol=1e-10, atol=1e-12)
    for name in phi:
        torch.testing.assert_close(
            meta.gradient[name], expected[name], rtol=1e-8, atol=1e-12 + 1e-9 * expected[name].norm()
        )


# -- every way of taking steps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "step_scale", "features"),
    [
        (kind, step_scale, NAMES if (k + s) % 2 else ())
        for k, kind in enumerate(GRADIENT_KINDS)
        for s, step_scale in enumerate(("none", "mup", "mup_capped", "rms"))
    ],
)
def test_evaluation_and_torch_step_as_meta_training_does(kind, step_scale, features):
    optimizer, phi = make(kind, step_scale=step_scale, base_width=5, features=features)
    task = build_task({"dataset": "digits", "optimizee": "mlp", "init": "uniform"}, device=CPU, dtype=F64)
    steps = list(frozen_unroll(task, optimizer, phi, [11], 6, changes=[UpdateChange(0.5)]))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Sigmoid(), nn.Linear(20, 10)).double()
    nn.utils.vector_to_parameters(steps[0].theta[0].clone(), model.parameters())
    loaded = LoadedOptimizer(model.named_parameters(), optimizer, phi, scale=0.5, horizon=6)
    theta, state = steps[0].theta, optimizer.init(steps[0].theta, task.layout)
    drawn = task.batches([seeds.derive(11, "batches")]).draw(6)
    for step, after in enumerate(steps[1:]):
        loaded.zero_grad()
        nn.functional.cross_entropy(model(drawn[step].x[0]), drawn[step].y[0]).backward()
        loaded.step()
        grad, _ = gradients_and_losses(task.loss, theta, drawn[step])
        update, state = optimizer.update(phi, theta, grad, state, task.layout, StepInfo(None, step, 6))
        theta = theta + 0.5 * update
        torch.testing.assert_close(after.theta, theta, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(nn.utils.parameters_to_vector(model.parameters()), theta[0], rtol=1e-9, atol=1e-11)


def test_none_is_the_step_itself_and_mup_that_step_times_a_constant():
    theta, grad = random(2, LAYOUT.size), random(2, LAYOUT.size, seed=1)
    plain, phi = make("simple")
    update, _ = plain.update(phi, theta, grad, plain.init(theta), LAYOUT)
    features, state = plain.observe(theta, grad, plain.init(theta))
    assert torch.equal(update, plain.step(phi, features, state)[0])
    scaled, _ = make("simple", step_scale="mup", base_width=20)
    expected = torch.cat([torch.full((UNITS * INPUTS,), 4.0), torch.ones(UNITS), torch.full((CLASSES * UNITS,), 5.0)])
    torch.testing.assert_close(
        scaled.update(phi, theta, grad, scaled.init(theta), LAYOUT)[0], expected.to(F64) * update
    )


@pytest.mark.parametrize("step_scale", ["mup", "rms"])
def test_torchs_groups_precisions_and_shards_keep_their_factors(step_scale):
    """Parameters in half precision, in other memory orders, and DTensors: the factor is the whole tensor's."""
    optimizer, phi = make("rnnprop", step_scale=step_scale, base_width=6)
    plain, _ = make("rnnprop")
    weight = random(4, 6, 2, 2).float()
    for tensor in (weight, weight.to(memory_format=torch.channels_last), weight.bfloat16(), random(5).float()):
        moved = []
        for one in (plain, optimizer):
            parameter = nn.Parameter(tensor.clone(memory_format=torch.preserve_format))
            parameter.grad = torch.ones_like(parameter)
            LoadedOptimizer([("w", parameter)], one, phi).step()
            moved.append(parameter.detach().double() - tensor.double())
        fan_in = 6 / 24 if tensor.dim() > 1 else 1.0
        factor = fan_in if step_scale == "mup" else float(tensor.double().square().mean().sqrt())
        tolerance = 1e-2 if tensor.dtype == torch.bfloat16 else 1e-6
        torch.testing.assert_close(moved[1], factor * moved[0], rtol=1e-3, atol=tolerance)


def test_what_is_exported_knows_its_step_scale(tmp_path):
    table = {"kind": "lin", "step_scale": "mup", "base_width": 6, "features": ["momenta"]}
    run = Run.create(tmp_path / "runs", from_mapping({"name": "small", "optimizer": table}))
    optimizer, phi = make(**table)
    checkpoints.save(run.path / "checkpoint", "best", {f"frozen/{name}": t.float() for name, t in phi.items()}, {})
    export_optimizer(RunReader(run.path), tmp_path / "o.safetensors")
    moved = []
    for source in (run.path, tmp_path / "o.safetensors"):
        parameter = nn.Parameter(torch.linspace(-1, 1, 24).view(2, 12))
        parameter.grad = torch.ones_like(parameter)
        load_optimizer(source, [("w", parameter)]).step()
        moved.append(parameter.detach())
    assert torch.equal(*moved)
    theta = torch.linspace(-1, 1, 24)
    update, _ = optimizer.update(phi, theta, torch.ones(24), optimizer.init(theta), Layout({"w": (2, 12)}))
    torch.testing.assert_close(moved[0].flatten(), (theta + update).float(), rtol=1e-5, atol=1e-6)


def test_shards_go_by_the_whole_tensor_and_what_needs_it_whole_refuses_them(tmp_path, zygote):
    ranks, cases = Ranks(2, zygote), [("rnnprop", "mup"), ("simple", "rms"), ("dm", "rms")]
    try:
        for answer in ranks.call(_sharded, tmp_path / "meeting", 2, cases):
            for case, losses in answer.items():
                model = small_model()
                optimizer = LoadedOptimizer(model.named_parameters(), *trained(*case))
                torch.testing.assert_close(losses, train(model, optimizer, 4), rtol=1e-4, atol=1e-5)
    finally:
        ranks.end()


def trained(kind: str, step_scale: str) -> tuple[LearnedOptimizer, Phi]:
    optimizer = LEARNED_OPTIMIZERS.create(kind, step_scale=step_scale, base_width=9)
    return optimizer, optimizer.init_phi(torch.Generator().manual_seed(0))


def _sharded(team, cases):
    """In one of two processes: the losses of four steps for each case."""
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    if not dist.is_initialized():
        dist.init_process_group("gloo", store=team.store, rank=team.rank, world_size=team.size)
    answers = {}
    for case in cases:
        model = small_model()
        fully_shard(model)
        answers[case] = train(model, LoadedOptimizer(model.named_parameters(), *trained(*case)), 4)
    for kind in ("lin", "mlp", "adafac"):
        with pytest.raises(ValueError, match=r"sharded DTensor.*keep parameters whole"):
            LoadedOptimizer(model.named_parameters(), *trained(kind, "none"))
    return answers


# -- what it is for ----------------------------------------------------------------------------------------------------


def loss_after(fan_in: int, constant: float, step_scale: str) -> float:
    """The loss of fan_in-20-10 after 60 steps of a fresh `lin` times a constant, on 49 numbers, each several times."""
    optimizer = LEARNED_OPTIMIZERS.create("lin", step_scale=step_scale, base_width=49, output_scale=0.02)
    generator = torch.Generator().manual_seed(0)
    phi = optimizer.init_phi(torch.Generator().manual_seed(0))
    labels = torch.randint(0, 10, (512,), generator=generator)
    x = 0.3 * torch.rand(10, 49, generator=generator)[labels] + 0.7 * torch.rand(512, 49, generator=generator)
    x = x.repeat_interleave(fan_in // 49, 1)
    model = nn.Sequential(nn.Linear(fan_in, 20), nn.ReLU(), nn.Linear(20, 10))
    for layer in (model[0], model[2]):
        bound = layer.in_features**-0.5
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        nn.init.zeros_(layer.bias)
    loaded = LoadedOptimizer(model.named_parameters(), optimizer, phi, scale=constant)
    for _ in range(60):
        batch = torch.randint(0, 512, (64,), generator=generator)
        loaded.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), labels[batch]).backward()
        loaded.step()
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(x), labels))


def test_the_constant_of_49_inputs_fails_at_784_unless_steps_know_the_fan_in():
    constants = [2.0**k for k in range(-4, 3, 2)]
    losses = {
        case: {constant: loss_after(case[0], constant, case[1]) for constant in constants}
        for case in ((49, "none"), (784, "none"), (784, "mup"))
    }
    small, plain, scaled = losses.values()
    best = min(small, key=small.get)
    assert plain[best] > 1.5 * small[best] and min(plain, key=plain.get) < best
    assert scaled[best] < 1.2 * small[best] and min(scaled, key=scaled.get) == best
