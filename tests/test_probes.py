"""Probes against closed forms, and against random search on a network."""

from __future__ import annotations

import math

import pytest
import torch

import engine
from engine import probes
from engine.probes.summary import adaptive_sharpness_each

F64 = torch.float64


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def quadratic(theta):
    return 0.5 * (tensor(4.0, 1.0) * theta**2).sum()


GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(30, 4, dtype=F64, generator=GENERATOR), torch.randint(0, 3, (30,), generator=GENERATOR)


def network(theta):
    hidden = torch.sigmoid(X @ theta[:20].view(4, 5))
    return torch.nn.functional.cross_entropy(hidden @ theta[20:].view(5, 3), Y)


@pytest.mark.parametrize(
    ("rho", "gap", "max_grad", "one_step"),
    [(0.1, 0.4314849704, 4.5128383559, 0.4314282096), (0.01, 0.0414222928, 4.1619969496, 0.0414222327)],
)
def test_on_the_quadratic_of_the_specification(rho, gap, max_grad, one_step):
    theta = tensor(1.0, 1.0)
    assert float(probes.sharpness(quadratic, theta, radius=rho)) == pytest.approx(gap, abs=2e-10)
    assert float(probes.max_grad_norm(quadratic, theta, radius=rho)) == pytest.approx(max_grad, abs=2e-10)
    assert float(probes.surrogate_gap(quadratic, theta, radius=rho)) == pytest.approx(one_step, abs=2e-10)
    assert float(probes.top_eigenvalue(quadratic, theta)) == pytest.approx(4.0, rel=1e-12)


def test_l_infinity_ball():
    assert float(probes.sharpness(quadratic, tensor(1.0, 1.0), 0.1, norm="linf")) == pytest.approx(0.525, rel=1e-12)
    assert float(probes.sharpness(quadratic, tensor(0.0, 0.0), 0.1, norm="linf")) == pytest.approx(0.025, rel=1e-12)


@pytest.mark.parametrize("radius", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("probe", [probes.sharpness, probes.max_grad_norm, probes.surrogate_gap])
def test_a_radius_that_is_none_is_refused(probe, radius):
    with pytest.raises(ValueError, match="radius must be"):
        probe(quadratic, tensor(1.0, 1.0), radius)


def test_hard_case_that_one_step_and_a_single_start_miss():
    theta = tensor(0.0, 1.0)
    one_step = float(probes.surrogate_gap(quadratic, theta, 0.5)) + 0.5
    single = float(probes.sharpness(quadratic, theta, 0.5, restarts=1)) + 0.5
    found = float(probes.sharpness(quadratic, theta, 0.5)) + 0.5
    assert (one_step, single) == pytest.approx((1.125, 1.125), abs=1e-9)
    assert found == pytest.approx(1.1666667, abs=1e-7)
    assert float(probes.sharpness(quadratic, theta, 0.1)) + 0.5 == pytest.approx(0.605, abs=1e-9)


def test_at_a_minimum_the_gap_is_there_and_the_one_step_gap_is_not():
    zero = tensor(0.0, 0.0)
    assert float(probes.sharpness(quadratic, zero, 0.1)) == pytest.approx(0.02, rel=1e-9)
    assert float(probes.max_grad_norm(quadratic, zero, 0.1)) == pytest.approx(0.4, rel=1e-9)
    assert float(probes.surrogate_gap(quadratic, zero, 0.1)) == 0.0


@pytest.mark.parametrize(
    ("loss", "theta", "gap", "max_grad"),
    [
        (lambda t: tensor(3.0, -4.0) @ t, tensor(1.0, 1.0), 0.5, 5.0),
        (
            lambda t: t.exp().sum(),
            tensor(0.2),
            torch.tensor(0.3).exp() - torch.tensor(0.2).exp(),
            torch.tensor(0.3).exp(),
        ),
        (lambda t: (t**4).sum(), tensor(-0.5), 0.6**4 - 0.5**4, 4 * 0.6**3),
        (lambda t: 1.5 * (t**2).sum(), tensor(0.6, 0.8), 1.5 * (1.1**2 - 1), 3 * 1.1),
    ],
    ids=["linear", "exponential", "quartic", "isotropic"],
)
def test_other_closed_forms(loss, theta, gap, max_grad):
    assert float(probes.sharpness(loss, theta, 0.1)) == pytest.approx(float(gap), rel=1e-6)
    assert float(probes.max_grad_norm(loss, theta, 0.1)) == pytest.approx(float(max_grad), rel=1e-6)


@pytest.mark.parametrize("radius", [0.1, 1.0])
def test_largest_loss_of_a_random_quadratic(radius):
    """The trust-region problem: (mu I - A) e = A theta, |e| = radius, mu above the top eigenvalue; by bisection."""
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(20, 20, dtype=F64, generator=generator)
    matrix, theta = root @ root.T / 20, 0.1 * torch.randn(20, dtype=F64, generator=generator)
    values, vectors = torch.linalg.eigh(matrix)
    slope = vectors.T @ (matrix @ theta)
    low, high = values[-1], values[-1] + slope.norm() / radius
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (slope / (middle - values)).norm() > radius else (low, middle)
    worst = theta + vectors @ (slope / (high - values))
    expected = 0.5 * worst @ matrix @ worst - 0.5 * theta @ matrix @ theta
    found = probes.sharpness(lambda t: 0.5 * t @ matrix @ t, theta, radius)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_sharpness_beats_random_search_on_a_network():
    theta = torch.randn(35, dtype=F64, generator=torch.Generator().manual_seed(2))
    directions = torch.randn(1000, 35, dtype=F64, generator=torch.Generator().manual_seed(3))
    best = max(float(network(theta + 0.3 * d / d.norm())) for d in directions)
    assert float(probes.sharpness(network, theta, 0.3) + network(theta)) > best


def test_top_eigenvalue_is_the_largest_not_the_largest_in_size():
    matrix = torch.diag(tensor(-9.0, 2.0, 1.0, -0.5))
    assert float(probes.top_eigenvalue(lambda t: 0.5 * t @ matrix @ t, torch.zeros(4, dtype=F64))) == pytest.approx(2.0)


def test_top_eigenvalue_of_a_network_equals_the_dense_hessians():
    theta = torch.randn(35, dtype=F64, generator=torch.Generator().manual_seed(2))
    dense = torch.linalg.eigvalsh(torch.func.hessian(network)(theta))[-1]
    assert float(probes.top_eigenvalue(network, theta)) == pytest.approx(float(dense), rel=1e-8)


def test_profile_keeps_the_rules_that_hold_in_exact_arithmetic():
    theta = torch.randn(35, dtype=F64, generator=torch.Generator().manual_seed(2))
    radii = (0.5, 0.001, 0.05)
    found = probes.profile(network, theta, radii, restarts=4, ascent_steps=10)
    slope = float(torch.func.grad(network)(theta).norm())
    ordered = sorted(radii)
    for figures in (found.sharpness, found.max_grad_norm):
        assert [figures[r] for r in ordered] == sorted(figures.values())
    for r in ordered:
        assert found.sharpness[r] >= max(0.0, found.surrogate_gap[r])
        assert found.max_grad_norm[r] >= slope
        assert found.sharpness[r] <= r * found.max_grad_norm[r] * (1 + 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_sharpness_is_never_below_the_one_step_gap_whatever_the_rounding(dtype):
    """On a linear loss both are the same number."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        slope, theta = (torch.randn(5, dtype=dtype, generator=generator) for _ in range(2))

        def loss(point, slope=slope):
            return slope @ point

        gap = probes.sharpness(loss, theta, 0.05, ascent_steps=2)
        assert gap >= probes.surrogate_gap(loss, theta, 0.05) and gap >= 0


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_top_eigenvalue_does_not_depend_on_the_scale(dtype, scale):
    diagonal = torch.linspace(0.1, 4.0, 30, dtype=dtype) * scale
    found = probes.top_eigenvalue(lambda t: 0.5 * (diagonal * t**2).sum(), torch.ones(30, dtype=dtype))
    assert float(found) == pytest.approx(4.0 * scale, rel=1e-3)


def test_a_network_too_large_for_one_portion_gives_the_same(monkeypatch):
    theta = torch.randn(35, dtype=F64, generator=torch.Generator().manual_seed(2))
    together = probes.sharpness(network, theta, 0.3, ascent_steps=5)
    monkeypatch.setattr("engine.probes.ascent.AT_ONCE", 50)
    assert float(probes.sharpness(network, theta, 0.3, ascent_steps=5)) == pytest.approx(float(together), rel=1e-12)


def theta_of(seed, scale=1.0):
    return scale * torch.randn(35, dtype=F64, generator=torch.Generator().manual_seed(seed))


NETWORK = torch.stack([theta_of(seed) for seed in (2, 3, 4)])


@pytest.mark.parametrize("probe", [probes.sharpness, probes.max_grad_norm, probes.max_loss, probes.r1])
def test_several_optimizees_get_what_each_gets_alone(probe):
    together = probe(network, NETWORK, 0.1, restarts=4)
    alone = torch.stack([probe(network, theta, 0.1, restarts=4) for theta in NETWORK])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=0)


def test_profiles_of_several_optimizees_are_those_of_each_alone():
    settings = {"restarts": 3, "ascent_steps": 20}
    for found, theta in zip(probes.profile(network, NETWORK, (0.01, 0.1), **settings), NETWORK, strict=True):
        alone = probes.profile(network, theta, (0.01, 0.1), **settings)
        assert (found.top_eigenvalue, found.trace) == pytest.approx((alone.top_eigenvalue, alone.trace), rel=1e-9)
        for name in ("sharpness", "max_grad_norm", "surrogate_gap", "r1"):
            assert getattr(found, name) == pytest.approx(getattr(alone, name), rel=1e-8), name
        for name in ("sharpness_linf", "max_grad_norm_linf"):  # a sign that rounding decides may lead elsewhere
            assert getattr(found, name) == pytest.approx(getattr(alone, name), rel=1e-4), name


def test_an_optimizee_that_is_not_finite_is_nan_and_disturbs_no_other():
    broken = torch.stack([NETWORK[0], torch.full_like(NETWORK[0], torch.nan), NETWORK[1]])
    found = probes.profile(network, broken, (0.1,), restarts=3, ascent_steps=10)
    sound = probes.profile(network, broken[[0, 2]], (0.1,), restarts=3, ascent_steps=10)
    for one, other in zip((found[0], found[2]), sound, strict=True):
        assert one.sharpness[0.1] == pytest.approx(other.sharpness[0.1], rel=1e-9)
        assert one.top_eigenvalue == pytest.approx(other.top_eigenvalue, rel=1e-9)
    figures = [column[0.1] for column in found[1][:6]] + [found[1].top_eigenvalue, found[1].trace]
    assert len(figures) == 8 and all(math.isnan(figure) for figure in figures)


def test_max_loss_and_r1_belong_to_sharpness_and_max_grad_norm():
    """Case Q of the specification."""
    theta = tensor(1.0, 1.0)
    assert float(probes.max_loss(quadratic, theta, 0.1)) == pytest.approx(2.9314849704, abs=2e-10)
    assert float(probes.max_loss(quadratic, theta, 0.01)) == pytest.approx(2.5414222928, abs=2e-10)
    assert float(probes.max_loss(quadratic, theta, 0.01, norm="linf")) == pytest.approx(2.55025, rel=1e-12)
    assert float(probes.r1(quadratic, theta, 0.1)) == pytest.approx(0.4512838356, abs=2e-10)
    assert float(probes.r1(quadratic, theta, 0.01)) == pytest.approx(0.0416199695, abs=2e-10)
    assert float(probes.r1(quadratic, tensor(0.0, 0.0), 0.1)) == pytest.approx(0.04, rel=1e-12)
    found = probes.profile(quadratic, theta, (0.1,))
    assert found.r1[0.1] == pytest.approx(0.4512838356, abs=2e-10)
    assert found.sharpness_linf[0.1] == pytest.approx(0.525, rel=1e-12)
    assert found.max_grad_norm_linf[0.1] == pytest.approx(math.hypot(4.4, 1.1), rel=1e-12)
    assert found.trace == pytest.approx(5.0, rel=1e-12)


def test_trace_is_exact_for_a_diagonal_hessian_and_near_for_a_network():
    diagonal = torch.linspace(-1.0, 3.0, 200, dtype=F64)
    assert float(
        probes.trace(lambda t: 0.5 * (diagonal * t**2).sum(), torch.ones(200, dtype=F64), samples=1)
    ) == pytest.approx(200.0, rel=1e-12)
    hessian = torch.func.hessian(network)(NETWORK[0])
    spread = float((2 * (hessian.square().sum() - hessian.diagonal().square().sum()) / 300).sqrt())
    found = float(probes.trace(network, NETWORK[0], samples=300))
    assert found == pytest.approx(float(hessian.trace()), abs=4 * spread)


@pytest.mark.parametrize("x", [-1.0, 1.0])
@pytest.mark.parametrize("radius", [0.01, 0.2])
def test_two_wells_of_equal_depth(x, radius):
    """min(50 (x + 1)^2, (x - 1)^2 / 2): curvature 100 at -1, 1 at +1."""
    curvature = 100.0 if x < 0 else 1.0

    def wells(theta):
        return torch.minimum(50 * (theta + 1) ** 2, 0.5 * (theta - 1) ** 2).sum()

    assert float(probes.sharpness(wells, tensor(x), radius)) == pytest.approx(curvature * radius**2 / 2, rel=1e-10)
    assert float(probes.max_grad_norm(wells, tensor(x), radius)) == pytest.approx(curvature * radius, rel=1e-10)


def test_maxima_inside_the_ball():
    def hill(theta):
        return -(tensor(1.0, 30.0) * theta**2).sum()

    assert float(probes.sharpness(hill, tensor(0.03, 0.04), 0.1)) == pytest.approx(0.0009 + 30 * 0.0016, rel=1e-9)
    assert float(probes.sharpness(hill, tensor(0.0, 0.0), 0.1)) == 0.0
    assert float(probes.max_grad_norm(hill, tensor(0.0, 0.0), 0.1)) == pytest.approx(6.0, rel=1e-10)
    assert float(probes.sharpness(lambda t: t.sin().sum(), tensor(1.0), 2.0)) == pytest.approx(
        1 - math.sin(1.0), rel=1e-9
    )
    assert float(probes.max_grad_norm(lambda t: t.sin().sum(), tensor(1.0), 4.0)) == pytest.approx(1.0, rel=1e-9)


def test_saddle_point_and_flat_fourth_order_minimum():
    zero = tensor(0.0, 0.0)
    assert float(probes.sharpness(lambda t: t[0] ** 2 - t[1] ** 2, zero, 0.1)) == pytest.approx(0.01, rel=1e-10)
    assert float(probes.max_grad_norm(lambda t: t[0] ** 2 - t[1] ** 2, zero, 0.1)) == pytest.approx(0.2, rel=1e-10)
    assert float(probes.sharpness(lambda t: (t**4).sum(), tensor(0.0), 0.1)) == pytest.approx(1e-4, rel=1e-10)
    assert float(probes.sharpness(lambda t: (0.0 * t).sum() + 1.0, zero, 0.1)) == 0.0


@pytest.mark.parametrize("offset", [1e-9, 1e-4])
def test_near_the_hard_case(offset):
    """The gradient all but lacks the top eigenvector: the maximum is still next to that of the hard case."""
    theta = tensor(offset, 1.0)
    angle = torch.linspace(0, 2 * math.pi, 200_001, dtype=F64)
    circle = 2 * (offset + 0.5 * angle.cos()) ** 2 + 0.5 * (1 + 0.5 * angle.sin()) ** 2
    found = float(probes.sharpness(quadratic, theta, 0.5) + quadratic(theta))
    assert found >= float(circle.max()) and found == pytest.approx(float(circle.max()), rel=1e-8)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_the_rules_of_the_protocol_hold_on_random_networks(seed, scale):
    theta, radii = theta_of(seed, scale), [1.0, 0.001, 0.1, 0.01]
    found = probes.profile(network, theta, radii, restarts=3, ascent_steps=6)
    slope = float(torch.func.grad(network)(theta).norm())
    for name in ("sharpness", "max_grad_norm", "r1", "sharpness_linf", "max_grad_norm_linf"):
        figures = [getattr(found, name)[radius] for radius in sorted(radii)]
        assert figures == sorted(figures), name
    for radius in radii:
        assert 0 <= found.sharpness[radius] <= found.r1[radius]
        assert found.surrogate_gap[radius] <= found.sharpness[radius] <= found.sharpness_linf[radius]
        assert slope <= found.max_grad_norm[radius] * (1 + 1e-15)
        assert found.max_grad_norm[radius] <= found.max_grad_norm_linf[radius]


def test_a_steep_place_on_the_way_up_is_found_where_the_slope_search_misses_it():
    """A narrow step in the loss: flat, with no second derivative to follow, at theta and at the boundary."""

    def step(theta):
        return torch.sigmoid(1000 * (theta - 0.0567)).sum() + 0.01 * theta.sum()

    found = probes.profile(step, tensor(0.0), (0.1,), restarts=1, ascent_steps=3, linf=False)
    assert found.sharpness[0.1] == pytest.approx(1.001, rel=1e-6)
    assert found.max_grad_norm[0.1] >= found.sharpness[0.1] / 0.1
    assert found.r1[0.1] >= found.sharpness[0.1]


def test_a_loss_whose_gradient_is_wrong_is_refused():
    def wrong(theta):
        return theta.sum() + 10 * (theta.detach() - 1.0).sum()

    with pytest.raises(ArithmeticError, match="its gradient is wrong"):
        probes.profile(wrong, tensor(1.0, 1.0), (0.1,))


def test_rounding_of_a_small_loss_in_float32_is_no_wrong_gradient():
    """A network that has learnt its examples by heart: the loss is 1e-3, its rounding that of logits of 10."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 10, generator=generator)
    labels = (inputs @ torch.randn(10, 5, generator=generator)).argmax(1)

    def loss(theta):
        return torch.nn.functional.cross_entropy(
            torch.relu(inputs @ theta[:80].view(10, 8)) @ theta[80:].view(8, 5), labels
        )

    theta = (0.5 * torch.randn(120, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([theta], 0.01)
    for _ in range(1500):
        optimizer.zero_grad()
        loss(theta).backward()
        optimizer.step()
    radii = (0.0005, 0.001, 0.002, 0.01)
    found = probes.profile(loss, theta.detach(), radii, restarts=3, ascent_steps=20)
    assert 0 < float(loss(theta.detach())) < 2e-3
    assert all(found.r1[radius] >= found.sharpness[radius] > 0 for radius in radii)


def test_a_loss_may_decide_by_its_values():
    """Python's `min` and `if`, which vmap refuses."""

    def wells(theta):
        return min(50 * (theta[0] + 1) ** 2, 0.5 * (theta[0] - 1) ** 2)

    for x, curvature in ((-1.0, 100.0), (1.0, 1.0)):
        theta = tensor(x)
        assert float(probes.sharpness(wells, theta, radius=0.1)) == pytest.approx(curvature * 0.1**2 / 2)
        assert float(probes.max_grad_norm(wells, theta, radius=0.1)) == pytest.approx(curvature * 0.1)
        assert float(probes.top_eigenvalue(wells, theta)) == pytest.approx(curvature)


@pytest.mark.parametrize("lowest", [0.0, -10.0])
def test_a_top_eigenvalue_in_a_crowd(lowest):
    """A thousand eigenvalues a thousandth apart, at a stationary point."""
    diagonal = torch.cat([tensor(lowest), torch.linspace(0, 1, 999, dtype=F64)])

    def loss(theta):
        return 0.5 * (diagonal * theta**2).sum()

    theta = torch.zeros(1000, dtype=F64)
    assert float(probes.top_eigenvalue(loss, theta)) == pytest.approx(1.0, rel=1e-8)
    assert float(probes.sharpness(loss, theta, radius=0.1)) == pytest.approx(0.005, rel=1e-8)


def test_profile_without_what_is_switched_off():
    found = probes.profile(quadratic, tensor(1.0, 1.0), (0.1,), linf=False, trace_samples=0)
    assert not found.sharpness_linf and not found.max_grad_norm_linf and math.isnan(found.trace)
    assert found.sharpness[0.1] == pytest.approx(0.4314849704, abs=2e-10)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_figures_have_the_dtype_of_theta(dtype):
    theta = NETWORK[0].to(dtype)

    def loss(point):
        hidden = torch.sigmoid(X.to(dtype) @ point[:20].view(4, 5))
        return torch.nn.functional.cross_entropy(hidden @ point[20:].view(5, 3), Y)

    for probe in (probes.sharpness, probes.max_grad_norm, probes.max_loss, probes.r1):
        found = probe(loss, theta, 0.1)
        assert found.dtype == dtype
        assert float(found) == pytest.approx(float(probe(network, NETWORK[0], 0.1)), rel=1e-4)
    assert probes.top_eigenvalue(loss, theta).dtype == dtype
    exact = float(probes.top_eigenvalue(network, NETWORK[0]))
    assert float(probes.top_eigenvalue(loss, theta)) == pytest.approx(exact, rel=1e-4)


def test_sharpness_and_slope_beat_random_search_in_either_ball():
    theta, radius = NETWORK[1], 0.2
    generator = torch.Generator().manual_seed(9)
    directions = torch.randn(1000, 35, dtype=F64, generator=generator)
    for norm, offsets in (
        ("l2", radius * directions / directions.norm(dim=1, keepdim=True)),
        ("linf", radius * directions.sign()),
    ):
        losses = torch.func.vmap(network)(theta + offsets)
        slopes = torch.func.vmap(torch.func.grad(network))(theta + offsets).norm(dim=1)
        assert float(probes.max_loss(network, theta, radius, norm=norm)) >= float(losses.max())
        assert float(probes.max_grad_norm(network, theta, radius, norm=norm)) >= float(slopes.max())


def test_a_search_stops_when_there_is_no_more_to_gain():
    calls = 0

    def counted():
        nonlocal calls
        calls += 1

    probes.sharpness(quadratic, tensor(1.0, 1.0), 0.01, ascent_steps=1000, tick=counted)
    assert 3 < calls < 60


@pytest.mark.parametrize("after", [0, 3, 20])
def test_a_profile_can_be_interrupted(after):
    count = 0

    def tick():
        nonlocal count
        count += 1
        if count > after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probes.profile(network, NETWORK, (0.1,), tick=tick)


def test_the_radius_may_be_zero():
    found = probes.profile(network, NETWORK[0], (0.0, 0.1), restarts=3, ascent_steps=5)
    assert found.sharpness[0.0] == 0 and found.r1[0.0] == 0
    assert found.max_grad_norm[0.0] == pytest.approx(float(torch.func.grad(network)(NETWORK[0]).norm()), rel=1e-12)


def test_top_eigenpairs_of_several_optimizees():
    values, vectors = probes.top_eigenpair(network, NETWORK)
    for value, vector, theta in zip(values, vectors, NETWORK, strict=True):
        hessian = torch.func.hessian(network)(theta)
        assert float(value) == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-8)
        torch.testing.assert_close(hessian @ vector, value * vector, rtol=0, atol=1e-6)


def test_top_eigenvalue_where_every_curvature_is_negative():
    diagonal = tensor(-9.0, -2.0, -1.0, -0.5)
    found = probes.top_eigenvalue(lambda t: 0.5 * (diagonal * t**2).sum(), tensor(0.0, 0.0, 0.0, 0.0))
    assert float(found) == pytest.approx(-0.5, rel=1e-10)


# -- adaptive sharpness ----------------------------------------------------------------------------------------------


def largest_rise(a, theta, radius):
    """Of L = 1/2 sum a theta^2 where ||e / |theta||| <= radius: with e = |theta| z a quadratic in z of the curvatures
    A = a theta^2, so (mu - A) z = g with mu > max A and |z| = radius, by bisection.
    """
    curvature, slope = a * theta**2, a * theta * theta.abs()
    low, high = curvature.max(), curvature.max() + slope.norm() / radius
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (slope / (middle - curvature)).norm() > radius else (low, middle)
    z = slope / (high - curvature)
    return float(slope @ z + 0.5 * (curvature * z**2).sum())


@pytest.mark.parametrize("radius", [1e-3, 0.05, 0.5, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_adaptive_sharpness_of_a_diagonal_quadratic(seed, radius):
    generator = torch.Generator().manual_seed(seed)
    a, theta = 5 * torch.rand(9, dtype=F64, generator=generator), torch.randn(9, dtype=F64, generator=generator)

    def loss(point):
        return 0.5 * (a * point**2).sum()

    expected = largest_rise(a, theta, radius)
    assert float(probes.adaptive_sharpness(loss, theta, radius)) == pytest.approx(expected, rel=1e-9)
    quick = {"restarts": 3, "ascent_steps": 20, "tick": lambda: None}  # as evaluations measure it
    (rises,) = adaptive_sharpness_each(loss, theta[None], [2 * radius, radius], **quick)
    assert rises[radius] == pytest.approx(expected, rel=1e-6) and rises[2 * radius] > rises[radius]


def test_adaptive_sharpness_does_not_see_the_scale_of_the_coordinates():
    """a theta^2 is all that counts; the l2 ball sees more. With one parameter the rise is a theta^2 (r + r^2 / 2)."""
    theta, a, c = tensor(1.0, -2.0, 0.5), tensor(1.0, 4.0, 9.0), tensor(10.0, 0.1, 3.0)

    def both(probe):
        return [
            float(probe(lambda t, h=h: 0.5 * (h * t**2).sum(), point, 0.5))
            for h, point in ((a, theta), (a / c**2, c * theta))
        ]

    here, there = both(probes.adaptive_sharpness)
    assert there == pytest.approx(here, rel=1e-9)
    here, there = both(probes.sharpness)
    assert abs(there / here - 1) > 0.5
    one = probes.adaptive_sharpness(lambda t: 1.5 * t.square().sum(), tensor(-2.0), 0.5)
    assert float(one) == pytest.approx(12 * 0.625, rel=1e-12)


def test_adaptive_sharpness_does_not_see_a_rescaling_of_a_relu_network():
    """w1 c, w2 / c is the same function. Several points at once get what each gets alone."""
    generator = torch.Generator().manual_seed(3)
    theta = torch.randn(35, dtype=F64, generator=generator)
    c = torch.tensor([0.2, 4.0, 1.0, 10.0, 0.5], dtype=F64)
    rescaled = theta * torch.cat([c.expand(4, 5).flatten(), (1 / c)[:, None].expand(5, 3).flatten()])

    def loss(point):
        hidden = torch.relu(X @ point[:20].view(4, 5))
        return torch.nn.functional.cross_entropy(hidden @ point[20:].view(5, 3), Y)

    here, there = (float(probes.adaptive_sharpness(loss, point, 0.3)) for point in (theta, rescaled))
    assert there == pytest.approx(here, rel=1e-7)
    assert abs(float(probes.sharpness(loss, rescaled, 0.3)) / float(probes.sharpness(loss, theta, 0.3)) - 1) > 0.2
    together = probes.adaptive_sharpness(loss, torch.stack([theta, rescaled]), 0.3)
    assert together.tolist() == pytest.approx([here, there], rel=1e-7)


def test_adaptive_sharpness_beats_random_search_and_the_one_step_gap():
    generator = torch.Generator().manual_seed(1)
    theta = torch.randn(35, dtype=F64, generator=generator)
    gap = float(probes.adaptive_sharpness(network, theta, 0.5))
    directions = torch.nn.functional.normalize(torch.randn(2000, 35, dtype=F64, generator=generator), dim=1)
    rises = torch.func.vmap(network)(theta + 0.5 * theta.abs() * directions) - network(theta)
    one_step = engine.penalties.get("asam", rho=0.5).value_and_grad(network, theta)[0]
    assert gap > float(rises.max()) and gap >= float(one_step)


def test_adaptive_sharpness_of_what_is_zero_or_not_finite():
    assert float(probes.adaptive_sharpness(quadratic, tensor(0.0, 0.0), 0.5)) == 0.0
    assert probes.adaptive_sharpness(quadratic, tensor(math.nan, 1.0), 0.5).isnan()
    assert float(probes.adaptive_sharpness(quadratic, tensor(0.0, 1.0), 0.5)) == pytest.approx(0.625)
