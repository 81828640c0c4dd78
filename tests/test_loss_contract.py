"""What a user's own loss, theta and arguments may be: the right numbers, or one line that says what to do."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

import engine
from engine import penalties, probes
from engine.base.errors import LregError

F64 = torch.float64
THETA = torch.tensor([1.0, 2.0, 3.0], dtype=F64)
SMALL = {"restarts": 4, "ascent_steps": 4}
GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(8, 4, dtype=F64, generator=GENERATOR), torch.randint(0, 2, (8,), generator=GENERATOR)

EVERY = {
    "sharpness": lambda loss, theta: probes.sharpness(loss, theta, 0.1, **SMALL),
    "surrogate_gap": lambda loss, theta: probes.surrogate_gap(loss, theta, 0.1),
    "top_eigenvalue": probes.top_eigenvalue,
    "trace": probes.trace,
    "profile": lambda loss, theta: probes.profile(loss, theta, [0.1], **SMALL),
    "sam": lambda loss, theta: penalties.get("sam").value_and_grad(loss, theta),
    "gam": lambda loss, theta: penalties.get("gam").value_and_grad(loss, theta),
}
every = pytest.mark.parametrize("measure", EVERY.values(), ids=EVERY)


def squares(theta):
    return (theta**2).sum()


def of_model(model, inputs=X, targets=Y, criterion=F.cross_entropy):
    """A model's loss as a function of its flat parameters, in float64, and these."""
    parameters = dict(model.to(F64).named_parameters())
    sizes = [tensor.numel() for tensor in parameters.values()]

    def loss(theta):
        parts = (part.view_as(like) for part, like in zip(theta.split(sizes), parameters.values(), strict=True))
        return criterion(functional_call(model, dict(zip(parameters, parts, strict=True)), (inputs,)), targets)

    return loss, nn.utils.parameters_to_vector(parameters.values()).detach()


def refused(match, call, *arguments, **named):
    """The call ends in one line that holds `match`, under this package's name for errors and Python's."""
    with pytest.raises(ValueError, match=match) as caught:
        call(*arguments, **named)
    assert isinstance(caught.value, LregError) and "\n" not in str(caught.value)


# -- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "norm": ["Linf", "L1", "", 2, math.inf, None],
        "radius": [-1e-9, math.nan, math.inf, True, "0.1", None, 1j, [0.1], torch.ones(1)],
        "restarts": [-1, 0, 2.5, True, "3", None, math.nan],
        "ascent_steps": [0, -1, 1.5, False],
        "seed": [-1, 1.0, 2**64, None],
        "tick": [None, 3],
    }.items(),
)
@pytest.mark.parametrize("probe", [probes.sharpness, probes.max_loss, probes.max_grad_norm, probes.r1])
def test_every_argument_of_a_search_is_checked(probe, name, values):
    for value in values:
        refused(f"^{name} must be", probe, squares, THETA, **{"radius": 0.1, name: value})


def test_arguments_of_the_other_probes_are_checked():
    refused("^norm must be.*did you mean linf", probes.surrogate_gap, squares, THETA, 0.1, norm="Linf")
    refused("^samples must be", probes.trace, squares, THETA, samples=0)
    refused("^iterations must be", probes.top_eigenvalue, squares, THETA, iterations=0)
    refused("^iterations must be", probes.top_eigenpair, squares, THETA, iterations=-3)
    for radii in (0.1, "0.1", None, [0.1, -1.0], [True], [[0.1]], {0.1: 1}):
        refused("^radii", probes.profile, squares, THETA, radii)
    for name, value in (("trace_samples", -1), ("linf", 1), ("linf", "no"), ("iterations", 0), ("restarts", -1)):
        refused(f"^{name} must be", probes.profile, squares, THETA, [0.1], **{name: value})
    refused("did you mean restarts", probes.profile, squares, THETA, [0.1], restart=3)
    refused("did you mean norm", probes.sharpness, squares, THETA, 0.1, nrom="l2")


def test_numbers_of_numpy_and_tensors_without_dimensions_are_numbers():
    plain = probes.sharpness(squares, THETA, 0.5, restarts=2)
    for radius, restarts in ((np.float32(0.5), np.int64(2)), (torch.tensor(0.5), torch.tensor(2))):
        assert probes.sharpness(squares, THETA, radius, restarts=restarts) == plain
        assert penalties.get("sam", rho=radius).rho == 0.5
    for radii in (np.array([0.25, 0.5]), torch.tensor([0.25, 0.5]), (radius for radius in (0.25, 0.5))):
        assert list(probes.profile(squares, THETA, radii, **SMALL).sharpness) == [0.25, 0.5]


def test_arguments_of_load_preset_and_train_are_checked(tmp_path):
    refused('overrides.*write \\["meta.epochs=2"\\]', engine.load_preset, "quickstart", "meta.epochs=2")
    refused("overrides\\[0\\]", engine.load_preset, "quickstart", [("meta.epochs", 2)])
    refused("name_or_path", engine.load_preset, 3)
    refused("did you mean overrides", engine.load_preset, "quickstart", override=[])
    refused("preset", engine.train, {"name": "x"}, tmp_path)
    refused("device", engine.train, "quickstart", tmp_path, device=0)
    refused("runs_dir", engine.train, "quickstart", runs_dir=3)
    refused("data_dir", engine.train, "quickstart", tmp_path, data_dir="a\0b")
    refused("did you mean runs_dir", engine.train, "quickstart", run_dir=tmp_path)
    assert not list(tmp_path.iterdir())


# -- theta ------------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize(
    ("theta", "advice"),
    [
        (torch.tensor(1.0), "reshape"),
        (torch.ones(2, 2, 2), "flatten"),
        (torch.ones(0), "empty"),
        (torch.ones(2, 0), "empty"),
        (torch.ones(3).half(), "float16.*theta.float"),
        (torch.ones(3).bfloat16(), "bfloat16.*theta.float"),
        (torch.ones(3).int(), "int32.*theta.float"),
        (torch.ones(3, dtype=torch.complex64), "complex64"),
        ([1.0, 2.0], "a list"),
        (np.ones(3), "ndarray"),
        (torch.ones(3, device="meta"), "meta"),
    ],
    ids=str,
)
def test_a_theta_that_is_none_is_refused(measure, theta, advice):
    refused(f"^theta must be.*{advice}", measure, squares, theta)


def test_theta_may_be_a_parameter_or_come_from_inference_mode():
    with torch.inference_mode():
        inferred = THETA.clone()
        inside = probes.sharpness(squares, THETA, 0.1), *penalties.get("gam").value_and_grad(squares, inferred)
    parameter = nn.Parameter(THETA.clone())
    expected = probes.sharpness(squares, THETA, 0.1), *penalties.get("gam").value_and_grad(squares, THETA)
    for theta in (parameter, inferred):
        found = probes.sharpness(squares, theta, 0.1), *penalties.get("gam").value_and_grad(squares, theta)
        for figures in (found, inside):
            assert all(map(torch.equal, figures, expected)) and not any(part.requires_grad for part in figures)
    assert parameter.grad is None


# -- the loss ---------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize(
    ("loss", "advice"),
    [
        (lambda theta: squares(theta).view(1), r"shape \[1\].*squeeze"),
        (lambda theta: theta**2, r"shape \[3\].*mean"),
        (lambda theta: squares(theta).item(), "float"),
        (lambda theta: (squares(theta), 1), "tuple.*alone"),
        (lambda theta: None, "None"),
        (lambda theta: (theta > 0).sum(), "int64"),
        (lambda theta: squares(theta) * 1j, "complex"),
        (lambda theta: squares(theta.half()), "float16"),
        (lambda theta: squares(theta.detach()), "detached"),
        (lambda theta: torch.tensor(1.0), "detached"),
        (lambda theta: torch.tensor(squares(theta).item()), "detached"),
        (lambda theta: theta.mul_(2).sum(), "in place"),
        (lambda theta: squares(theta.data.mul_(2)) + theta.sum(), "in place"),
    ],
    ids=itertools.count(),
)
def test_a_loss_that_breaks_its_contract_is_refused(measure, loss, advice):
    before = THETA.clone()
    refused(f"loss.*{advice}", measure, loss, THETA)
    assert torch.equal(THETA, before)
    refused("^loss must be a function", measure, THETA, THETA)


@every
def test_a_loss_under_no_grad_is_refused(measure):
    refused("detached", measure, torch.no_grad()(squares), THETA)


@every
def test_a_loss_that_writes_theta_into_a_model_is_refused_and_leaves_the_model_usable(measure):
    model = nn.Linear(4, 2).to(F64)

    def loss(theta):
        nn.utils.vector_to_parameters(theta, model.parameters())
        return F.cross_entropy(model(X), Y)

    theta = nn.utils.parameters_to_vector(model.parameters()).detach()
    refused("detached.*functional_call", measure, loss, theta)
    assert torch.equal(nn.utils.parameters_to_vector(model.parameters()), theta)


ITERATOR = itertools.cycle([1.0, 2.0])


@every
@pytest.mark.parametrize(
    "loss",
    [
        lambda theta: (X[torch.randint(8, (64,)), :3] @ theta).square().mean(),
        lambda theta: (X[torch.randint(8, (64,), generator=GENERATOR), :3] @ theta).square().mean(),
        lambda theta: squares(F.dropout(theta)),
        lambda theta: squares(theta * torch.bernoulli(theta.sigmoid())),
        lambda theta: squares(theta) + 0.01 * torch.randn((), dtype=F64),
        lambda theta: squares(theta) * np.random.default_rng().random(),
        lambda theta: squares(theta) * next(ITERATOR),
    ],
    ids=itertools.count(),
)
def test_a_loss_that_differs_from_call_to_call_is_refused(measure, loss):
    refused("same function at every call", measure, loss, THETA)


@pytest.mark.parametrize("period", range(2, 8))
@every
def test_a_cycle_of_batches_is_noticed_also_for_many_points(measure, period):
    batches = itertools.cycle(range(period))
    both = torch.stack([THETA, -THETA])
    refused("same function at every call", measure, lambda theta: squares(theta) * (1 + next(batches)), both)


@pytest.mark.parametrize("name", ["sam", "gsam"])
def test_a_penalty_of_many_points_costs_three_gradients_of_one_more(name):
    """That they agree with one point alone, which has been evaluated twice, is seen in nothing else."""
    calls = []
    points = torch.stack([THETA] * 8)
    penalties.get(name).value_and_grad(lambda theta: (calls.append(theta), squares(theta))[1], points)
    assert len(calls) <= 5


def test_a_random_loss_is_refused_also_where_its_value_does_not_show_it():
    """At 0 neither the value nor the gradient of a masked quadratic tell the mask."""
    refused("same function at every call", probes.trace, lambda theta: squares(F.dropout(theta)), torch.zeros(3))


@pytest.mark.parametrize(
    "loss",
    [
        lambda theta: squares(theta) * (1 + 1e-7 * torch.randn((), dtype=F64)),  # as a sum on a GPU
        lambda theta: squares(theta[torch.randperm(3)]),
        lambda theta: (torch.manual_seed(0), squares(theta + 0 * torch.randn(3, dtype=F64)))[1],
    ],
    ids=["rounding", "order", "seeded"],
)
def test_rounding_order_and_seeded_numbers_are_no_randomness(loss):
    both = torch.stack([THETA, -THETA])
    torch.testing.assert_close(probes.trace(loss, both), torch.tensor([6.0, 6.0], dtype=F64), rtol=1e-5, atol=0)
    value = penalties.get("sam", rho=0.1).value_and_grad(loss, both)[0]
    torch.testing.assert_close(value, ((both.norm(dim=1) + 0.1) ** 2), rtol=1e-5, atol=0)


@every
def test_a_losss_own_exception_passes_unchanged(measure):
    error = RuntimeError("my own vmap of a checkpoint")

    def loss(theta):
        raise error

    with pytest.raises(RuntimeError) as caught:
        measure(loss, THETA)
    assert caught.value is error


@pytest.mark.parametrize(
    "loss",
    [
        lambda theta: squares(theta) if theta[0] > 0 else 2 * squares(theta),
        lambda theta: squares(theta) * (1 if float(theta.sum()) > 0 else 2),
        lambda theta: torch.zeros(3, dtype=F64).add_(theta).square().sum() * (1 if theta[0].item() > 0 else 2),
    ],
    ids=["if", "float", "in place"],
)
def test_a_loss_may_decide_by_its_values_for_many_points(loss):
    """L = |theta|^2, twice that where theta is negative: eigenvalues 2 and 4, gaps 2 |theta| r + r^2 and twice that."""
    both, gap = torch.stack([THETA, -THETA]), 2 * 0.1 * math.sqrt(14) + 0.01
    found = probes.profile(loss, both, [0.1], **SMALL)
    assert [shape.top_eigenvalue for shape in found] == pytest.approx([2.0, 4.0])
    assert [shape.sharpness[0.1] for shape in found] == pytest.approx([gap, 2 * gap])
    assert penalties.get("gsam", rho=0.1).value_and_grad(loss, both)[0].tolist() == pytest.approx([gap, 2 * gap])


def test_a_loss_may_take_gradients_itself():
    """L = |grad sum(t^3)|^2 = 9 sum(t^4), as in physics-informed losses."""

    def loss(theta):
        return torch.autograd.grad((theta**3).sum(), theta, create_graph=True)[0].square().sum()

    both = torch.stack([THETA, -THETA])
    for theta in (THETA[None], both):
        shapes = (probes.profile(form, theta, [0.1], **SMALL) for form in (loss, lambda at: 9 * (at**4).sum()))
        for found, expected in zip(*shapes, strict=True):
            assert found.sharpness == pytest.approx(expected.sharpness)
            assert found.surrogate_gap == pytest.approx(expected.surrogate_gap)


@every
def test_batch_norm_in_training_mode_is_refused_and_in_evaluation_mode_measured(measure):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    loss, theta = of_model(model)
    refused("BatchNorm.*model.eval", measure, loss, theta)
    model.eval()
    measure(*of_model(model))


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(4, track_running_stats=False), nn.LayerNorm(4)], ids=["batch norm", "layer norm"]
)
def test_normalisation_by_statistics_is_measured_for_many_points_as_for_one(layer):
    """Under torch.func.vmap its second derivatives are wrong, and nobody says so."""
    loss, theta = of_model(nn.Sequential(nn.Linear(4, 4), layer, nn.Linear(4, 2)))
    points = torch.stack([theta, 1.3 * theta])
    hessians = [torch.autograd.functional.hessian(loss, point) for point in points]
    tops = torch.stack([torch.linalg.eigvalsh(hessian)[-1] for hessian in hessians])
    torch.testing.assert_close(probes.top_eigenvalue(loss, points), tops)
    together = penalties.get("gam").value_and_grad(loss, points)
    for value, slope, point in zip(*together, points, strict=True):
        torch.testing.assert_close((value, slope), penalties.get("gam").value_and_grad(loss, point))
        assert not value.requires_grad


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(4, 4)

    def forward(self, x):
        heads = self.project(x)[:, None]
        return F.scaled_dot_product_attention(heads, heads, heads)[:, 0]


def test_attention_is_measured_by_its_differentiable_form_and_the_users_choice_stays():
    inputs = torch.randn(2, 3, 4, dtype=F64, generator=torch.Generator().manual_seed(1))
    loss, theta = of_model(Attention(), inputs, inputs, F.mse_loss)

    def plain(point):
        heads = inputs @ point[:16].view(4, 4).T + point[16:]
        return F.mse_loss((heads @ heads.transpose(1, 2) / 2).softmax(-1) @ heads, inputs)

    before = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()
    both = torch.stack([theta, 1.5 * theta])
    torch.testing.assert_close(probes.top_eigenvalue(loss, both), probes.top_eigenvalue(plain, both))
    torch.testing.assert_close(probes.max_grad_norm(loss, theta, 0.1), probes.max_grad_norm(plain, theta, 0.1))
    for name in ("sam", "gsam", "gam"):
        penalty = penalties.get(name, rho=0.1)
        expected = penalty.value_and_grad(plain, both)
        torch.testing.assert_close(penalty.value_and_grad(loss, both), expected)
        torch.testing.assert_close(vmap(lambda at, p=penalty: p.value_and_grad(loss, at))(both), expected)
    assert before == (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled())


def test_a_recurrent_network_is_measured_for_many_points():
    """vmap has no rule for its value alone."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(4, 2, batch_first=True)

        def forward(self, x):
            return self.rnn(x[:, None])[0][:, 0]

    loss, theta = of_model(Last())
    together = probes.surrogate_gap(loss, torch.stack([theta, 2 * theta]), 0.1)
    alone = [probes.surrogate_gap(loss, at, 0.1) for at in (theta, 2 * theta)]
    torch.testing.assert_close(together, torch.stack(alone))


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient * ctx.saved_tensors[0]


@pytest.mark.parametrize(
    ("loss", "advice"),
    [
        (lambda theta: Square.apply(theta).sum(), "setup_context"),
        (lambda theta: torch.utils.checkpoint.checkpoint(squares, theta, use_reentrant=False), "checkpointing"),
        (lambda theta: squares(theta) * float(theta.detach().numpy()[0]), "tensor operations"),
        (lambda theta: (theta.sum().backward(), squares(theta))[1], "backward"),
        (lambda theta: (loss := squares(theta), loss.backward())[0], "backward"),
    ],
    ids=["function", "checkpoint", "numpy", "backward", "backward of itself"],
)
def test_what_torch_func_cannot_differentiate_is_told_in_a_line(loss, advice):
    for measure in EVERY.values():
        refused(advice, measure, loss, THETA)


# -- what is not finite -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [
        lambda theta: -0.5 * squares(theta) + math.nan,
        lambda theta: squares(theta) * math.nan,
        lambda theta: squares(theta) + math.inf,
        lambda theta: -squares(theta) - math.inf,
        lambda theta: (-theta).sqrt().sum(),
        lambda theta: (0 * theta).square().sum().sqrt(),  # only the gradient
        lambda theta: 1e200 * squares(theta),  # only the norm of the gradient: it has no direction either
    ],
    ids=itertools.count(),
)
def test_a_loss_that_is_not_finite_gives_nan_everywhere(loss):
    pair = probes.top_eigenpair(loss, THETA)
    figures = [pair[0], *pair[1], probes.trace(loss, THETA), probes.surrogate_gap(loss, THETA, 0.1)]
    for probe in (probes.sharpness, probes.max_loss, probes.max_grad_norm, probes.r1):
        figures += [probe(loss, THETA, 0.1, norm=norm, **SMALL) for norm in ("l2", "linf")]
    for name in ("sam", "gsam", "gam"):
        value, gradient = penalties.get(name).value_and_grad(loss, THETA)
        figures += [value, *gradient]
    shape = probes.profile(loss, THETA, [0.0, 0.1], **SMALL)
    figures += [*shape[6:], *(figure for column in shape[:6] for figure in column.values())]
    assert all(math.isnan(figure) for figure in figures)


def test_a_point_that_is_not_finite_disturbs_no_other():
    points = torch.stack([THETA * math.nan, THETA, THETA * math.inf])
    for measure in (probes.top_eigenvalue, probes.trace, EVERY["surrogate_gap"], lambda *of: EVERY["gam"](*of)[0]):
        found = measure(squares, points)
        assert found.isnan().tolist() == [True, False, True]
        torch.testing.assert_close(found[1], measure(squares, THETA))
