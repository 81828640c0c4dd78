"""Probes against closed forms, and against random search on a network."""

from __future__ import annotations

import pytest
import torch

from engine import probes

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
    monkeypatch.setattr(probes, "AT_ONCE", 50)
    assert float(probes.sharpness(network, theta, 0.3, ascent_steps=5)) == pytest.approx(float(together), rel=1e-12)
