"""Every registered penalty, and the closed forms of each (float64)."""

from __future__ import annotations

import math

import pytest
import torch
from members import GRADIENT_KINDS
from torch import nn
from torch.func import vmap
from torch.nn import functional as F

import engine
from engine.base.errors import LregError, SettingsError
from engine.base.flat import grad_and_hvp
from engine.optimizers.box_ascent import BoxAscent, ascend
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS, LearnedOptimizer
from engine.penalties.base import (
    PENALTIES,
    GeometricPenalty,
    HessianPenalty,
    InnerStep,
    ParameterPenalty,
    UpdatePenalty,
    get,
)

F64 = torch.float64
GEOMETRIC = [name for name in PENALTIES.names() if issubclass(PENALTIES[name], GeometricPenalty)]
FORMS = [(name, form) for name in GEOMETRIC for form in ("scalar", "direction")[: 1 + hasattr(PENALTIES[name], "form")]]
HESSIAN = [name for name in GEOMETRIC if issubclass(PENALTIES[name], HessianPenalty)]


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def quadratic(theta):
    """Case Q: A = diag(4, 1)."""
    return 0.5 * (tensor(4.0, 1.0) * theta**2).sum()


def make(name: str, form: str = "scalar", **settings):
    if name in HESSIAN:
        settings.pop("rho", None)
    return get(name, **settings, **({"form": form} if hasattr(PENALTIES[name], "form") else {}))


def close(actual, expected, digits=8):
    torch.testing.assert_close(actual, expected, rtol=0, atol=0.6 * 10**-digits)


Q = {
    0.1: {
        "sam": (2.9314282096, (4.38805700, 1.02425356)),
        "gap": (0.4314282096, (4.38805700 - 4, 1.02425356 - 1)),
        "gam": (0.1 * 4.5128328410, (0.389929890, 0.022297255)),
        "gsam": (4.39392973, 0.99909392),
    },
    0.01: {
        "sam": (2.5414222327, (4.03880570, 1.00242536)),
        "gap": (0.0414222327, (0.03880570, 0.00242536)),
        "gam": (0.01 * 4.1619969431, (0.0388267667, 0.0024041915)),
        "gsam": (4.03947961, 0.99971016),
    },
}


@pytest.mark.parametrize("rho", Q)
class TestOnTheQuadraticOfTheSpecification:
    theta = tensor(1.0, 1.0)

    def test_sam(self, rho):
        value, gradient = get("sam", rho=rho).value_and_grad(quadratic, self.theta)
        close(value, tensor(Q[rho]["sam"][0])[0], 10)
        close(gradient, tensor(*Q[rho]["sam"][1]))

    def test_gap(self, rho):
        value, gradient = get("gsam", rho=rho).value_and_grad(quadratic, self.theta)
        close(value, tensor(Q[rho]["gap"][0])[0], 10)
        close(gradient, tensor(*Q[rho]["gap"][1]))

    def test_gam(self, rho):
        value, gradient = get("gam", rho=rho).value_and_grad(quadratic, self.theta)
        close(value, tensor(Q[rho]["gam"][0])[0], 10)
        close(gradient, tensor(*Q[rho]["gam"][1]))

    def test_gsam_direction(self, rho):
        value, direction = get("gsam", rho=rho, form="direction", alpha=0.4).value_and_grad(quadratic, self.theta)
        close(value, tensor(Q[rho]["gap"][0])[0], 10)
        close(direction, tensor(*Q[rho]["gsam"]))


def test_gam_direction_on_the_quadratic_of_the_specification():
    settings = {"rho": 0.2, "gradient_rho": 0.03, "beta0": 0.1, "beta1": 0.1, "gamma": 0.05}
    _, direction = get("gam", form="direction", **settings).value_and_grad(quadratic, tensor(1.0, 1.0))
    close(direction, tensor(4.83753384, 1.00982595))


@pytest.mark.parametrize("rho", [0.0, 0.05, 1.0])
def test_sam_equals_its_closed_form_on_any_quadratic(rho):
    h, theta = tensor(1.0, 4.0, 9.0), tensor(1.0, -2.0, 0.5)
    g = h * theta
    value, gradient = get("sam", rho=rho).value_and_grad(lambda point: 0.5 * (h * point**2).sum(), theta)
    expected = 0.5 * (h * theta**2).sum() + rho * g.norm() + 0.5 * rho**2 * (h * g**2).sum() / g.norm() ** 2
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, h * (theta + rho * g / g.norm()), rtol=1e-12, atol=1e-12)


def test_penalties_of_a_linear_loss_see_no_curvature():
    """c·θ: the gap is ρ‖c‖, its gradient 0; GAM is ρ‖c‖ too, and its gradient 0 though H g = 0 gives no direction."""
    c = tensor(3.0, -4.0)
    for name, offset in (("gsam", 0.0), ("gam", 0.0), ("sam", -1.0)):
        value, gradient = get(name, rho=0.2).value_and_grad(lambda point: c @ point, tensor(1.0, 1.0))
        assert float(value) == pytest.approx(0.2 * 5 + offset, rel=1e-12)
        close(gradient, c if name == "sam" else tensor(0.0, 0.0), 12)


def test_exponential_loss():
    x = tensor(0.3)
    for name, expected in (
        ("sam", math.exp(0.4)),
        ("gsam", math.exp(0.4) - math.exp(0.3)),
        ("gam", 0.1 * math.exp(0.4)),
    ):
        value, gradient = get(name, rho=0.1).value_and_grad(lambda point: point.exp().sum(), x)
        assert (float(value), float(gradient)) == pytest.approx((expected, expected), rel=1e-12)


KINKS = {
    "norm": lambda theta: theta.norm(),
    "norm and slope": lambda theta: theta.norm() + theta.sum(),
    "group lasso": lambda theta: theta[:2].norm() + ((theta - 1) ** 2).sum(),
    "power 1.5": lambda theta: theta.abs().pow(1.5).sum() + theta[0],
    "abs": lambda theta: theta.abs().sum(),
    "relu": lambda theta: theta.relu().sum(),
    "max": lambda theta: theta.max(),
    "deviation": lambda theta: theta.std(),
    "flat": lambda theta: (0 * theta).sum() + 1,
}


@pytest.mark.parametrize(("name", "form"), FORMS)
class TestEveryGeometricPenalty:
    def test_is_zero_not_nan_at_a_stationary_point(self, name, form):
        value, gradient = make(name, form, rho=0.05).value_and_grad(quadratic, tensor(0.0, 0.0))
        assert not gradient.any()
        assert value == pytest.approx({"hessian_trace": 5.0, "top_eigenvalue": 4.0}.get(name, 0.0))

    def test_keeps_the_dtype(self, name, form):
        for dtype in (torch.float32, F64):
            value, gradient = make(name, form).value_and_grad(
                lambda point: (point**4).sum(), torch.ones(3, dtype=dtype)
            )
            assert value.dtype == gradient.dtype == dtype and value.shape == () and gradient.shape == (3,)

    def test_vmap_equals_a_loop(self, name, form):
        theta = torch.randn(5, 4, dtype=F64, generator=torch.Generator().manual_seed(0))

        def of(point):
            return make(name, form, rho=0.1).value_and_grad(lambda at: (at.sin() * at).sum(), point)

        values, gradients = vmap(of)(theta)
        for b in range(5):
            value, gradient = of(theta[b])
            torch.testing.assert_close(values[b], value, rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(gradients[b], gradient, rtol=1e-12, atol=1e-14)

    def test_knows_a_gradient_that_is_given(self, name, form):
        theta, penalty = tensor(1.0, -2.0), make(name, form, rho=0.1)
        given = penalty.at(quadratic, theta, quadratic(theta), tensor(4.0, -2.0))
        for ours, theirs in zip(given, penalty.value_and_grad(quadratic, theta), strict=True):
            assert torch.equal(ours, theirs)

    def test_many_points_get_what_each_gets_alone(self, name, form):
        theta = torch.randn(3, 4, dtype=F64, generator=torch.Generator().manual_seed(0))

        def loss(point):
            return (point.sin() * point).sum()

        values, slopes = make(name, form, rho=0.1).value_and_grad(loss, theta)
        assert values.shape == (3,) and slopes.shape == (3, 4)
        for value, slope, point in zip(values, slopes, theta, strict=True):
            torch.testing.assert_close((value, slope), make(name, form, rho=0.1).value_and_grad(loss, point))

    def test_weight_and_relative_count(self, name, form):
        """Of 1/2 (4 + 1) = 2.5, the loss at (1, 1)."""
        value, slope = make(name, form).value_and_grad(quadratic, tensor(1.0, 1.0))
        weighted = make(name, form, weight=3.0, relative=True).value_and_grad(quadratic, tensor(1.0, 1.0))
        torch.testing.assert_close(weighted, (3 / 2.5 * value, 3 / 2.5 * slope))
        nothing = make(name, form, weight=0.0).value_and_grad(quadratic, tensor(1.0, 1.0))
        assert nothing[0] == 0 and not nothing[1].any()
        assert make(name, form, relative=True).value_and_grad(quadratic, tensor(0.0, 0.0))[0].isnan()

    def test_refuses_to_count_inner_steps_where_there_are_none(self, name, form):
        with pytest.raises(LregError, match="start"):
            make(name, form, start=3).value_and_grad(quadratic, tensor(1.0, 1.0))

    def test_is_finite_where_the_loss_is_not_smooth(self, name, form):
        for kind, kink in KINKS.items():
            value, slope = make(name, form, rho=0.1).value_and_grad(kink, tensor(0.0, 0.0, 0.0))
            assert value.isfinite() and slope.isfinite().all(), kind


@pytest.mark.parametrize("rho", [0.0, 0.1])
def test_gam_of_a_norm(rho):
    """At 0 torch's gradient is 0: no direction to go, so R = 0. Elsewhere the gradient has norm 1: R = rho, flat."""
    norm = KINKS["norm"]
    value, slope = get("gam", rho=rho).value_and_grad(norm, tensor(0.0, 0.0))
    assert value == 0 and not slope.any()
    value, slope = get("gam", rho=rho).value_and_grad(norm, tensor(3.0, 4.0))
    assert float(value) == pytest.approx(rho) and slope.norm() < 1e-12


def test_gsam_direction_properties():
    def loss(point):
        return (point.sin() * point * tensor(1.0, 2.0, 3.0)).sum()

    theta = tensor(0.3, -1.0, 2.0)
    _, sam = get("sam", rho=0.2).value_and_grad(loss, theta)
    _, plain = get("gsam", rho=0.2, form="direction", alpha=0.0).value_and_grad(loss, theta)
    _, direction = get("gsam", rho=0.2, form="direction", alpha=0.7).value_and_grad(loss, theta)
    assert torch.equal(plain, sam)
    orthogonal = (sam - direction) / 0.7
    assert float(orthogonal @ sam) == pytest.approx(0.0, abs=1e-12)
    assert float(direction @ direction) == pytest.approx(float(sam @ sam + 0.49 * orthogonal @ orthogonal), rel=1e-12)


# -- adaptive sharpness ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.0, 0.1, 0.5, 2.0])
def test_asam_equals_its_closed_form_on_a_diagonal_quadratic(rho):
    """L = ½ Σ a θ²: with z = θ g / ‖θ g‖ and ε = ρ θ z, R = Σ a θ ε + ½ Σ a ε² and ∇R = a θ (2 ρ z + ρ² z²)."""
    a, theta = tensor(1.0, 4.0, 9.0, 2.0), tensor(1.0, -2.0, 0.5, 0.0)
    z = a * theta**2 / (a * theta**2).norm()
    e = rho * theta * z
    value, slope = get("asam", rho=rho).value_and_grad(lambda point: 0.5 * (a * point**2).sum(), theta)
    torch.testing.assert_close(value, (a * theta * e).sum() + 0.5 * (a * e**2).sum(), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(slope, a * theta * (2 * rho * z + rho**2 * z**2), rtol=1e-13, atol=1e-13)


def network(generator_seed=0, activation=torch.sigmoid):
    """Cross-entropy of a network of 45 parameters as a function of them, and a point."""
    generator = torch.Generator().manual_seed(generator_seed)
    x = torch.randn(20, 6, dtype=F64, generator=generator)
    y = torch.randint(0, 3, (20,), generator=generator)

    def loss(theta):
        hidden = activation(x @ theta[:30].view(6, 5))
        return torch.nn.functional.cross_entropy(hidden @ theta[30:].view(5, 3), y)

    return loss, torch.randn(45, dtype=F64, generator=generator)


def test_asam_differentiates_the_size_of_the_ball_and_not_its_direction():
    """Against plain autograd, |θ| in the graph: the gradient with |θ| constant is another one, which lets θ grow."""
    (loss, start), rho = network(), 0.5
    theta = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(theta), theta)
    weighted = start.abs() * gradient
    direction = weighted / weighted.norm()

    def gap(size):
        (slope,) = torch.autograd.grad(loss(theta + rho * size * direction) - loss(theta), theta)
        return slope

    value, slope = get("asam", rho=rho).value_and_grad(loss, start)
    torch.testing.assert_close(slope, gap(theta.abs()), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(value, loss(start + rho * start.abs() * direction) - loss(start), rtol=1e-12, atol=0)
    trap = gap(start.abs())
    assert (slope - trap).norm() > 0.1 * slope.norm()

    def shrinks(of):
        """Change of ‖θ‖² / 2 by a step down the penalty."""
        return -float(of @ start)

    assert shrinks(slope) < shrinks(trap)


def test_asam_does_not_see_a_rescaling_of_a_relu_network():
    """w1 c, w2 / c is the same network: R is the same, and its gradient the same in relative terms."""
    loss, theta = network(activation=torch.relu)
    c = torch.tensor([0.1, 3.0, 1.0, 20.0, 0.5], dtype=F64)
    factor = torch.cat([c.expand(6, 5).flatten(), (1 / c)[:, None].expand(5, 3).flatten()])
    penalty, plain = get("asam", rho=0.5), get("gsam", rho=0.5)
    here, there = penalty.value_and_grad(loss, theta), penalty.value_and_grad(loss, factor * theta)
    torch.testing.assert_close(there[0], here[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(factor * there[1], here[1], rtol=1e-10, atol=1e-14)
    assert abs(plain.value_and_grad(loss, factor * theta)[0] / plain.value_and_grad(loss, theta)[0] - 1) > 0.5


# -- penalties on the Hessian ------------------------------------------------------------------------------------------


def test_hessian_penalties_on_separable_losses():
    """Σ c θ⁴ / 12: H = diag(c θ²); trace Σ c θ² with gradient 2 c θ, top eigenvalue max c θ²."""
    c, theta = tensor(1.0, 4.0, 9.0), tensor(1.0, -2.0, 0.5)

    def loss(point):
        return (c * point**4).sum() / 12

    value, slope = get("hessian_trace").value_and_grad(loss, theta)
    torch.testing.assert_close((value, slope), ((c * theta**2).sum(), 2 * c * theta), rtol=1e-13, atol=0)
    value, slope = get("top_eigenvalue", iterations=40).value_and_grad(loss, theta)
    torch.testing.assert_close((value, slope), (tensor(16.0)[0], tensor(0.0, -16.0, 0.0)), rtol=1e-12, atol=1e-12)


def test_the_trace_of_a_network_against_its_whole_hessian():
    """The estimate and its gradient, against v'Hv by plain autograd; many vectors come near the trace itself."""
    loss, theta = network()
    penalty = get("hessian_trace", samples=3)
    signs = penalty.signs(theta)
    point = theta.clone().requires_grad_()
    hessian = torch.autograd.functional.hessian(loss, point, create_graph=True)
    expected = torch.einsum("kp,pq,kq->", signs, hessian, signs) / 3
    (slope,) = torch.autograd.grad(expected, point)
    torch.testing.assert_close(penalty.value_and_grad(loss, theta), (expected.detach(), slope), rtol=1e-10, atol=1e-13)
    trace = torch.autograd.functional.hessian(loss, theta).trace()
    samples = 1000
    spread = (2 * (hessian.detach() - hessian.detach().diag().diag()).square().sum() / samples).sqrt()
    estimate = get("hessian_trace", samples=samples).value_and_grad(loss, theta)[0]
    assert abs(estimate - trace) < 4 * spread


@pytest.mark.parametrize(
    "norm",
    [
        lambda x, weight: F.layer_norm(x, (4,), weight, weight),
        lambda x, weight: nn.LayerNorm(4, dtype=F64)(x) * weight,
        lambda x, weight: F.batch_norm(x, None, None, weight, training=True),
        lambda x, weight: F.batch_norm(x, tensor(*range(4)), tensor(*range(1, 5)), bias=weight).sin(),
        lambda x, weight: F.instance_norm(x.view(-1, 2, 4), weight=weight[:2]),
        lambda x, weight: F.group_norm(x, 2, weight),
    ],
    ids=["layer", "module", "batch", "running", "instance", "group"],
)
@pytest.mark.parametrize("points", [1, 2])
def test_third_derivatives_of_norms_against_finite_differences(norm, points):
    """torch's kernels of the first three give wrong ones, in silence."""
    generator = torch.Generator().manual_seed(3)
    x, target, *theta = (torch.randn(6, 4, dtype=F64, generator=generator) for _ in range(2 + points))
    points = torch.stack([point[:5].flatten() for point in theta])

    def loss(point):
        return ((norm(x @ point[:16].view(4, 4), point[16:]).view(6, 4) - target) ** 2).mean()

    penalty, step = get("hessian_trace"), 1e-5
    slopes = penalty.value_and_grad(loss, points)[1]
    direction = torch.randn(20, dtype=F64, generator=generator)
    ahead, back = (penalty.value_and_grad(loss, points + side * direction)[0] for side in (step, -step))
    torch.testing.assert_close(slopes @ direction, (ahead - back) / (2 * step), rtol=1e-6, atol=1e-7)


def test_the_top_eigenvalue_of_a_network_against_its_whole_hessian():
    loss, theta = network()

    def top(point):
        return torch.linalg.eigvalsh(torch.func.hessian(loss)(point))[-1]

    value, slope = get("top_eigenvalue", iterations=300).value_and_grad(loss, theta)
    torch.testing.assert_close(value, top(theta), rtol=1e-10, atol=0)
    torch.testing.assert_close(slope, torch.func.grad(top)(theta), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "spectrum", [(4.0, 1.0), (1.0, -4.0), (-1.0, -3.0), (-2.0,), (-2.0, -2.0), (0.0, 0.0), (5.0, -4.0, 0.0)]
)
def test_the_top_eigenvalue_is_the_largest_and_not_the_largest_in_size(spectrum):
    h = tensor(*spectrum)
    value, _ = get("top_eigenvalue", iterations=200).value_and_grad(
        lambda p: 0.5 * (h * p**2).sum(), torch.ones_like(h)
    )
    assert float(value) == pytest.approx(max(spectrum), rel=1e-9, abs=1e-12)


def test_random_signs_are_fair_and_new_at_every_inner_step():
    theta = torch.zeros(5, 4000)
    penalty = get("hessian_trace", samples=2)
    steps = torch.cat([penalty.signs(theta, step) for step in range(6)])
    assert steps.shape == (12, 4000) and bool((steps.abs() == 1).all())
    assert torch.equal(steps[4:6], penalty.signs(theta[0], 2))
    likeness = steps @ steps.T / 4000 - torch.eye(12)
    assert likeness.abs().max() < 5 / 4000**0.5 and steps.mean(1).abs().max() < 5 / 4000**0.5


def test_hessian_vector_product_against_central_differences():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 6, dtype=F64, generator=generator)
    y = torch.randint(0, 3, (20,), generator=generator)

    def loss(theta):
        hidden = torch.sigmoid(x @ theta[:30].view(6, 5))
        return torch.nn.functional.cross_entropy(hidden @ theta[30:].view(5, 3), y)

    theta, vector = (torch.randn(45, dtype=F64, generator=generator) for _ in range(2))
    _, product = grad_and_hvp(loss, theta, vector)
    step = 1e-5
    ahead, behind = (torch.func.grad(loss)(theta + sign * step * vector) for sign in (1, -1))
    assert (product - (ahead - behind) / (2 * step)).norm() / product.norm() < 1e-6


# -- update penalties -------------------------------------------------------------------------------------------------


class Linear(LearnedOptimizer):
    """u = w · s over F features, or b tanh(a s + c) for one."""

    gradient_features = 1

    def step(self, phi, features, state):
        if "w" in phi:
            return features @ phi["w"], state
        return phi["b"] * torch.tanh(phi["a"] * features[..., 0] + phi["c"]), state


def inner_step(optimizer, phi, features):
    return InnerStep(features, {}, optimizer.step(phi, features, {})[0])


def smooth(phi, features, **settings):
    optimizer = Linear()
    penalty = get("smooth", **settings)
    generator = torch.Generator().manual_seed(0)
    return penalty.value(optimizer, phi, inner_step(optimizer, phi, features), generator)


def test_smooth_of_a_linear_optimizer_equals_its_closed_form():
    """R = eps² ‖w‖₁² for each coordinate: mean and sum over 4 coordinates, for each of 3 optimizees."""
    phi, features = {"w": tensor(0.5, -2.0, 0.25)}, torch.zeros(3, 4, 3, dtype=F64)
    expected = 0.3**2 * 2.75**2
    torch.testing.assert_close(smooth(phi, features, epsilon=0.3), torch.full((3,), expected, dtype=F64))
    summed = smooth(phi, features, epsilon=0.3, distance="sum")
    torch.testing.assert_close(summed, torch.full((3,), 4 * expected, dtype=F64))


def test_smooth_can_perturb_the_gradients_features_only():
    phi, features = {"w": tensor(0.5, -2.0, 0.25)}, torch.zeros(1, 4, 3, dtype=F64)
    value = smooth(phi, features, epsilon=0.3, perturb="gradient")
    torch.testing.assert_close(value, tensor(0.3**2 * 0.5**2))


@pytest.mark.parametrize("kind", GRADIENT_KINDS)
@pytest.mark.parametrize("part", ["gradient", "features"])
def test_the_update_as_a_function_of_some_features_is_that_of_the_step(kind, part):
    """Searches move features by it: a member that computes once what does not depend on them must hold the others."""
    optimizer, generator = LEARNED_OPTIMIZERS.create(kind), torch.Generator().manual_seed(0)
    phi = {name: t.to(F64) for name, t in optimizer.init_phi(generator).items()}
    theta, grad = torch.randn(2, 2, 5, dtype=F64, generator=generator)
    _, state = optimizer.update(phi, theta, grad, optimizer.init(theta))
    features, state = optimizer.observe(theta, -grad, state)
    free = optimizer.gradient_features if part == "gradient" else None
    update_of = optimizer.update_of(phi, features, state, free)
    for shift in (0.0, 0.5, -2.0):
        moved = features.clone()
        moved[..., :free] += shift
        torch.testing.assert_close(update_of(moved[..., :free]), optimizer.step(phi, moved, state)[0])


def test_smooth_of_meta_lstm_by_its_bare_gradient_is_its_input_gate_squared():
    """u(g + d) - u(g) = -σ(i) d, largest at d = ±ε, whatever is found out by steps: R = mean of (σ(i) ε)²."""
    optimizer, generator = LEARNED_OPTIMIZERS.create("meta-lstm"), torch.Generator().manual_seed(0)
    phi = {name: t.to(F64) for name, t in optimizer.init_phi(generator).items()}
    theta, grad = torch.randn(2, 3, 7, dtype=F64, generator=generator)
    features, state = optimizer.observe(theta, grad, optimizer.init(theta))
    update, after = optimizer.step(phi, features, state)
    penalty = get("smooth", epsilon=0.3, perturb="gradient", noise=0.01)
    value = penalty.value(optimizer, phi, InnerStep(features, state, update), generator)
    expected = (after["gates"][..., 1].sigmoid() * 0.3).square().mean(-1)
    torch.testing.assert_close(value, expected)


class Product(Linear):
    """u = s0 s1 over two features."""

    def step(self, phi, features, state):
        return features.prod(-1), state


def test_a_search_holds_the_features_that_it_does_not_move_where_its_start_has_them():
    """At s1 = 0 the update does not depend on s0; with s1 held at 0.5 it grows with s0, to the end of the box."""
    center, start = tensor(1.0, 0.0).reshape(1, 1, 2), tensor(0.0, 0.5).reshape(1, 1, 2)
    worst = ascend(Product(), {}, center, {}, tensor(0.0).reshape(1, 1), start, BoxAscent(1.0, 0.4, 5, free=1))
    torch.testing.assert_close(worst, tensor(2.0, 0.5).reshape(1, 1, 2))


def test_smooth_of_a_tanh_optimizer_ends_at_an_end_of_the_interval():
    phi = {"a": tensor(1.5)[0], "b": tensor(2.0)[0], "c": tensor(0.4)[0]}
    features = torch.zeros(1, 1, 1, dtype=F64)
    ends = [4 * (math.tanh(1.5 * side * 0.5 + 0.4) - math.tanh(0.4)) ** 2 for side in (-1, 1)]
    value = float(smooth(phi, features, epsilon=0.5))
    assert min(abs(value - end) for end in ends) < 1e-12 and value <= max(ends) + 1e-12


def test_smooth_gradient_goes_through_both_updates():
    """R = eps² ‖w‖₁²: dR/dw = 2 eps² ‖w‖₁ sign(w), which half a gradient would miss."""
    w = tensor(0.5, -2.0, 0.25).requires_grad_()
    optimizer, features = Linear(), torch.full((1, 4, 3), 0.7, dtype=F64)
    step = inner_step(optimizer, {"w": w}, features)
    value = get("smooth", epsilon=0.3).value(optimizer, {"w": w}, step, torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(value.sum(), w)
    torch.testing.assert_close(gradient, 2 * 0.09 * 2.75 * w.detach().sign())


@pytest.mark.parametrize("kind", GRADIENT_KINDS)  # a zero head of meta-lstm's lets half of the gradient in
def test_smooth_is_zero_and_finite_for_a_zero_head_and_for_a_zero_box(kind):
    optimizer = LEARNED_OPTIMIZERS.create(kind)
    phi = {name: t.to(F64) for name, t in optimizer.init_phi(torch.Generator().manual_seed(0)).items()}
    theta = torch.randn(2, 5, dtype=F64, generator=torch.Generator().manual_seed(1))
    for epsilon, head in ((1.0, 0.0), (0.0, 1.0)):
        own = {name: (head * t if name.startswith("head") else t).requires_grad_() for name, t in phi.items()}
        features, state = optimizer.observe(theta, theta, optimizer.init(theta))
        step = InnerStep(features, state, optimizer.step(own, features, state)[0])
        value = get("smooth", epsilon=epsilon).value(optimizer, own, step, torch.Generator())
        gradients = torch.autograd.grad(value.sum(), list(own.values()), allow_unused=True, materialize_grads=True)
        assert not value.any() and all(gradient.isfinite().all() for gradient in gradients)


def test_smooth_stays_in_the_box_when_the_noise_is_larger():
    optimizer = LEARNED_OPTIMIZERS.create("simple")
    phi = optimizer.init_phi(torch.Generator().manual_seed(0))
    theta = torch.randn(2, 50, generator=torch.Generator().manual_seed(1))
    features, state = optimizer.observe(theta, theta, optimizer.init(theta))
    step = InnerStep(features, state, optimizer.step(phi, features, state)[0])
    penalty = get("smooth", epsilon=0.01, noise=0.05)
    worst = penalty.worst_features(optimizer, phi, step, torch.Generator().manual_seed(0))
    assert (worst - features).abs().max() <= 0.01 + 1e-7


# -- penalties on the meta-parameters ---------------------------------------------------------------------------------


def test_l2_is_the_squared_norm_of_all_meta_parameters():
    phi = {"one": tensor(3.0, 4.0), "two": tensor(12.0).reshape(1, 1)}
    assert float(get("l2").value(phi)) == 169.0


def test_orthogonal_vanishes_on_orthogonal_matrices_and_sees_recurrent_ones_only():
    angle = 0.7
    rotation = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=F64)
    maps = {"in": torch.full((1, 2), 5.0, dtype=F64), "head": torch.full((2, 1), 5.0, dtype=F64)}
    assert float(get("orthogonal").value({"hidden": rotation, **maps})) == pytest.approx(0.0, abs=1e-24)
    # (2I)ᵀ(2I) - I = 3I: squared norm 9 · 2
    assert float(get("orthogonal").value({"hidden": 2 * rotation, **maps})) == pytest.approx(18.0)


def test_orthogonal_takes_the_gates_of_an_lstm_one_by_one():
    gates = torch.cat([torch.eye(3, dtype=F64)] * 3 + [2 * torch.eye(3, dtype=F64)], dim=1)
    assert float(get("orthogonal").value({"lstm0.hidden": gates})) == pytest.approx(27.0)


def test_spectral_divides_by_the_top_singular_value():
    generator = torch.Generator().manual_seed(0)
    phi = {"hidden": torch.randn(6, 9, dtype=F64, generator=generator), "head": torch.ones(6, 1, dtype=F64)}
    penalty = get("spectral")
    memory = penalty.init(phi)
    used, memory, figure = penalty.apply(phi, memory)
    top = torch.linalg.matrix_norm(phi["hidden"], 2)
    assert float(figure) == pytest.approx(float(top), rel=1e-10)
    torch.testing.assert_close(used["hidden"], phi["hidden"] / top, rtol=1e-10, atol=0)
    assert used["head"] is phi["head"]
    for _ in range(30):  # the vectors follow a matrix that moves
        phi["hidden"] = phi["hidden"] + 0.01 * torch.randn(6, 9, dtype=F64, generator=generator)
        used, memory, figure = penalty.apply(phi, memory)
    assert float(torch.linalg.matrix_norm(used["hidden"], 2)) == pytest.approx(1.0, rel=2e-2)


def test_spectral_of_weight_zero_changes_nothing_bit_for_bit():
    phi = {"hidden": torch.randn(6, 6, generator=torch.Generator().manual_seed(0))}
    penalty = get("spectral", weight=0.0)
    used, _, _ = penalty.apply(phi, penalty.init(phi))
    assert torch.equal(used["hidden"], phi["hidden"])


# -- the public door --------------------------------------------------------------------------------------------------


def test_every_penalty_declares_weight_start_and_relative():
    for name in PENALTIES.names():
        penalty = get(name)
        assert (penalty.weight, penalty.start, penalty.relative, penalty.name) == (1.0, 0, False, name)
    kinds = {name: PENALTIES[name] for name in PENALTIES.names()}
    assert issubclass(kinds["smooth"], UpdatePenalty) and issubclass(kinds["l2"], ParameterPenalty)


def test_get_names_every_bad_setting():
    with pytest.raises(SettingsError) as caught:
        engine.penalties.get("sam", rho=-1.0, wieght=2.0)
    text = str(caught.value)
    assert "sam.rho" in text and ">= 0" in text and "did you mean weight?" in text
    with pytest.raises(SettingsError, match="did you mean gsam"):
        engine.penalties.get("gsamm")
