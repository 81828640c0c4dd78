"""`engine.flat_loss`: any module's loss as a function of its flat parameters, the module itself never touched."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

import engine
from engine import penalties, probes
from engine.base.errors import LregError

F64 = torch.float64
GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(8, 4, generator=GENERATOR), torch.randint(0, 3, (8,), generator=GENERATOR)
TOKENS = torch.randint(0, 3, (2, 4), generator=GENERATOR)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(4, 3, num_layers=2, dropout=0.5, batch_first=True)
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.rnn(x[:, None].expand(-1, 2, -1))[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.5)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.attention(x, x, x)[0])


class Language(nn.Module):
    """An embedding that is the output layer too, around a transformer's layer."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(3, 4, sparse=True)
        self.layer = nn.TransformerEncoderLayer(4, 2, 4, batch_first=True)
        self.head = nn.Linear(4, 3, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(self.layer(self.embedding(TOKENS))).flatten(0, 1)


class Branches(nn.Module):
    """Layers reached through a list that is no ModuleList, by methods, with a shared list of intermediate results."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)
        self.branches = [self.first, self.second]

    def encode(self, x, results):
        for branch in self.branches:
            results.append(branch(x))
        return results

    def forward(self, x):
        return sum(self.encode(x, []))


MODELS = {
    "linear": lambda: nn.Linear(4, 3),
    "norms": lambda: nn.Sequential(
        nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.GroupNorm(2, 4), nn.Dropout(0.5), nn.LayerNorm(4)
    ),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 2), nn.Flatten(), nn.Linear(6, 3)),
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "attention": Attention,
    "tied embedding": Language,
    "branches": Branches,
    "weight norm": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3))),
    "spectral norm": lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 3))),
    "pruned": lambda: prune.l1_unstructured(nn.Linear(4, 3), "weight", 0.3),
    "averaged": lambda: torch.optim.swa_utils.AveragedModel(nn.Linear(4, 3)),
}


def made(name):
    torch.manual_seed(0)
    return MODELS[name]()


def targets(outputs):
    return Y if outputs.shape[0] == 8 else TOKENS.flatten()


def entropy(model):
    outputs = model(X)
    return F.cross_entropy(outputs[:, :3], targets(outputs))


def state(model):
    """Everything of a model that somebody else would notice."""
    parts = [*model.named_parameters(), *model.named_buffers()]
    tensors = [(name, id(part), part.tolist(), part._version, part.requires_grad, part.grad) for name, part in parts]
    return tensors, [module.training for module in model.modules()], list(model.state_dict())


def by_hand(name):
    """The same by functional_call, as a user would write it."""
    copy = made(name).to(F64).eval()
    parameters = dict(copy.named_parameters())
    sizes = [tensor.numel() for tensor in parameters.values()]

    def loss(theta):
        parts = [part.view_as(like) for part, like in zip(theta.split(sizes), parameters.values(), strict=True)]
        outputs = functional_call(copy, dict(zip(parameters, parts, strict=True)), (X.double(),))
        return F.cross_entropy(outputs[:, :3], targets(outputs))

    return loss, torch.cat([tensor.detach().flatten() for tensor in parameters.values()])


def refused(match, *arguments, **named):
    with pytest.raises(ValueError, match=match) as caught:
        engine.flat_loss(*arguments, **named)
    assert isinstance(caught.value, LregError) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", MODELS)
def test_it_is_what_functional_call_gives_and_the_model_stays_as_it_is(name):
    model = made(name)
    before = state(model)
    loss, theta = engine.flat_loss(model, entropy, dtype=F64)
    expected, start = by_hand(name)
    exact = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(theta, start, rtol=0, atol=0)
    both = torch.stack([theta, 1.5 * theta])
    for point in both:
        torch.testing.assert_close(loss(point), expected(point), **exact)
        torch.testing.assert_close(grad(loss)(point), grad(expected)(point), **exact)
    penalty = penalties.get("gam", rho=0.1)
    torch.testing.assert_close(penalty.value_and_grad(loss, both), penalty.value_and_grad(expected, both), **exact)
    top = [probes.top_eigenvalue(function, both, iterations=5) for function in (loss, expected)]
    torch.testing.assert_close(*top, rtol=1e-9, atol=1e-9)
    assert state(model) == before


def test_closed_form_with_every_probe_and_penalty():
    """L = 1/2 sum a w^2: gradient a w, Hessian diag a."""
    model, scale = nn.Linear(3, 1, bias=False), torch.tensor([3.0, 2.0, 1.0], dtype=F64)
    nn.init.constant_(model.weight, 2.0)
    loss, theta = engine.flat_loss(model, lambda model: (scale * model.weight**2).sum() / 2, dtype=F64)
    slope = scale * 2
    length, unit = slope.norm(), slope / slope.norm()
    assert theta.dtype == F64 and theta.tolist() == [2.0] * 3 and not theta.requires_grad
    torch.testing.assert_close(grad(loss)(theta), slope)
    torch.testing.assert_close(probes.top_eigenvalue(loss, theta), torch.tensor(3.0, dtype=F64))
    torch.testing.assert_close(probes.trace(loss, theta), torch.tensor(6.0, dtype=F64))
    gap = 0.1 * length + 0.005 * (scale * unit**2).sum()
    torch.testing.assert_close(probes.surrogate_gap(loss, theta, 0.1), gap)
    assert probes.sharpness(loss, theta, 0.1) >= gap and probes.max_grad_norm(loss, theta, 0.1) > length
    for name in ("sam", "gsam", "gam"):
        value, slopes = penalties.get(name, rho=0.1).value_and_grad(loss, torch.stack([theta, -theta]))
        assert value[0] == value[1] and torch.equal(slopes[0], -slopes[1])
    torch.testing.assert_close(vmap(loss)(torch.stack([theta, 2 * theta])), torch.tensor([12.0, 48.0], dtype=F64))


def test_frozen_parameters_are_held_and_shared_ones_count_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    loss, theta = engine.flat_loss(model, entropy)
    assert torch.equal(theta, torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad]))
    assert theta.dtype == torch.float32 and len(theta) == 24
    entropy(model).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
    torch.testing.assert_close(grad(loss)(theta), expected)


def test_what_comes_later_does_not_reach_the_loss():
    """theta, frozen parameters and buffers are those of the call; the user may go on training."""
    model = made("norms")
    loss, theta = engine.flat_loss(model, entropy)
    value = loss(theta)
    for _ in range(3):
        model(10 * X)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(loss(theta), value)


def test_a_layer_that_counts_or_trains_leaves_nothing_behind():
    """Buffers are the same at every call, also where the function itself asks for training mode."""

    class Counting(nn.Linear):
        def __init__(self):
            super().__init__(4, 3)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return super().forward(x) * self.calls

    model = nn.Sequential(Counting(), nn.BatchNorm1d(3))
    before = state(model)
    loss, theta = engine.flat_loss(model, lambda model: entropy(model.train()), dtype=F64)
    values = [loss(theta) for _ in range(3)]
    assert values[0] == values[1] == values[2]
    assert probes.surrogate_gap(loss, theta, 0.1).isfinite() and state(model) == before


def test_the_function_may_call_parts_several_times_with_inputs_of_any_form():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = nn.Linear(4, 4), nn.Bilinear(4, 4, 1)

        def forward(self, batch, *, scale):
            return self.head(batch["left"] * scale, self.encoder(batch["right"]))

    model = Encoder()

    def fn(model, x=X):
        output = model({"left": x, "right": model.encoder(x)}, scale=torch.tensor(2.0))
        return output.square().mean() + sum(parameter.square().sum() for parameter in model.parameters())

    loss, theta = engine.flat_loss(model, fn, dtype=F64)
    torch.testing.assert_close(loss(theta), fn(model.double(), X.double()).detach(), rtol=0, atol=1e-12)
    assert probes.top_eigenvalue(loss, theta) > 2


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lambda m: nn.Sequential(torch.compile(m), nn.Tanh())])
def test_wrappers_are_taken_off(wrap):
    model = wrap(made("linear"))
    loss, theta = engine.flat_loss(model, entropy, dtype=F64)
    value, slope = penalties.get("sam").value_and_grad(loss, torch.stack([theta, 2 * theta]))
    assert value.isfinite().all() and slope.abs().min() > 0 and loss(theta).dtype == F64


def test_a_distributed_model_is_measured_by_one_process_alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        loss, theta = engine.flat_loss(nn.parallel.DistributedDataParallel(made("linear")), entropy, dtype=F64)
    finally:
        dist.destroy_process_group()
    assert torch.equal(probes.top_eigenvalue(loss, theta), probes.top_eigenvalue(*by_hand("linear")))


def test_after_an_exception_model_and_loss_are_as_before():
    model, broken = made("norms"), False
    before = state(model)

    def fn(model):
        model(X)
        return 1 / 0 if broken else entropy(model)

    loss, theta = engine.flat_loss(model, fn)
    value, broken = loss(theta), True
    with pytest.raises(ZeroDivisionError):
        grad(loss)(theta)
    broken = False
    assert torch.equal(loss(theta), value) and state(model) == before
    with pytest.raises(ZeroDivisionError):
        engine.flat_loss(model, lambda model: 1 / 0)
    assert state(model) == before


def test_several_threads_may_use_the_loss_and_another_the_model():
    model = made("linear")
    loss, theta = engine.flat_loss(model, entropy, dtype=F64)
    points = [factor * theta for factor in range(4)]
    expected, output = [grad(loss)(point) for point in points], model(X)
    wrong = []

    def work(point, gradient):
        for _ in range(20):
            if not torch.equal(grad(loss)(point), gradient) or not torch.equal(model(X), output):
                wrong.append(point)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(points, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("model", "line"),
    {
        "no module": (lambda: [1], "model must be a torch.nn.Module"),
        "no parameters": (nn.ReLU, "parameters that are trained, found none"),
        "frozen": (lambda: nn.Linear(4, 3).requires_grad_(False), "only frozen"),
        "lazy": (lambda: nn.LazyLinear(3), "model.weight.*lazy.*call the model once"),
        "meta": (lambda: nn.Linear(4, 3, device="meta"), "model.weight.*meta"),
        "complex": (lambda: nn.Linear(4, 3, dtype=torch.complex64), "model.weight.*real.*complex64"),
        "half": (lambda: nn.Linear(4, 3).half(), "float16.*dtype=torch.float32"),
        "mixed": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3).bfloat16()), "bfloat16, float32"),
        "script": (lambda: torch.jit.trace(nn.Linear(4, 3), X), "TorchScript"),
        "max_norm": (lambda: nn.Sequential(nn.Embedding(3, 4, max_norm=1.0)), "model.0.*max_norm"),
        "lock": (lambda: _with(nn.Linear(4, 3), threading.Lock()), "deepcopy.*lock"),
        "sparse": (lambda: _with(nn.Linear(4, 3), nn.Parameter(torch.eye(2).to_sparse())), "model.extra.*dense"),
    }.values(),
)
@pytest.mark.filterwarnings("ignore")
def test_a_model_that_does_not_fit_is_refused_in_one_line(model, line):
    refused(line, model(), entropy)


def _with(module, extra):
    module.extra = extra
    return module


@pytest.mark.skipif("onednn" not in str(torch.backends.quantized.supported_engines), reason="no quantized kernels here")
@pytest.mark.filterwarnings("ignore")
def test_a_quantized_layer_is_refused():
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    refused("model.0.*quantized", torch.ao.quantization.quantize_dynamic(model, {nn.Linear}), entropy)


@pytest.mark.parametrize(
    ("fn", "line"),
    [
        (3, "fn must be a function"),
        (nn.CrossEntropyLoss(), "fn must be a function"),
        (lambda model: model(X), "scalar"),
        (lambda model: None, "None"),
        (lambda model: entropy(model).item(), "item"),
        (lambda model: entropy(model).detach(), "fn must depend"),
        (lambda model: entropy(ORIGINAL), "original"),
        (lambda model: entropy(model) + ORIGINAL.weight.sum(), "original"),
        (lambda model: F.cross_entropy(X @ model.weight.T, Y), "dtypes.*x.double"),
    ],
)
def test_a_function_that_does_not_fit_is_refused_in_one_line(fn, line):
    refused(line, ORIGINAL, fn, dtype=F64)


ORIGINAL = nn.Linear(4, 3)


def test_dtype_and_theta_are_checked():
    for dtype in ("float64", torch.float16, torch.int64, float):
        refused("^dtype must be", ORIGINAL, entropy, dtype)
    refused("did you mean dtype", ORIGINAL, entropy, dtyp=F64)
    refused("dtypes", ORIGINAL, lambda model: F.cross_entropy(model(X.double()), Y))
    loss, theta = engine.flat_loss(ORIGINAL, entropy, torch.float64)
    for wrong in (theta[:-1], theta[None], theta.float(), theta.tolist()):
        with pytest.raises(LregError, match="^theta must be"):
            loss(wrong)


def test_model_and_data_may_come_from_inference_mode():
    with torch.inference_mode():
        model, x = made("norms"), X.clone()
        inside, theta = engine.flat_loss(model, lambda model: F.cross_entropy(model(x)[:, :3], Y), dtype=F64)
        top = probes.top_eigenvalue(inside, theta)
        sam = penalties.get("sam", rho=0.05).value_and_grad(inside, theta.clone())
    outside, theta = engine.flat_loss(model, lambda model: F.cross_entropy(model(x)[:, :3], Y), dtype=F64)
    torch.testing.assert_close(probes.top_eigenvalue(outside, theta), top)
    torch.testing.assert_close(penalties.get("sam", rho=0.05).value_and_grad(outside, theta), sam)
    assert not theta.is_inference() and outside(theta) == engine.flat_loss(made("norms"), entropy, dtype=F64)[0](theta)


def test_parametrizations_of_the_users_own_stay_on():
    class Positive(nn.Module):
        def forward(self, weight):
            return weight.exp()

    model = nn.Linear(2, 1, bias=False)
    parametrize.register_parametrization(model, "weight", Positive(), unsafe=True)
    loss, theta = engine.flat_loss(model, lambda model: model.weight.sum(), dtype=F64)
    torch.testing.assert_close(grad(loss)(theta), theta.exp(), rtol=0, atol=1e-12)
