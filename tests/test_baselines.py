"""Hand-designed optimizers against torch.optim, plain autograd and closed forms (float64)."""

from __future__ import annotations

import pytest
import torch

from engine.base import seeds
from engine.base.flat import side_by_side
from engine.evaluation.frozen_unroll import frozen_unroll
from engine.optimizers.baselines import BASELINES, GAMGradients, gsam_gradients, plain_gradients, sam_gradients
from engine.penalties.base import get
from engine.tasks.base import Task
from engine.tasks.table import build_task

F64 = torch.float64
SHARPNESS_AWARE = [name for name, baseline in BASELINES.items() if baseline.passes_per_step > 1]
TORCHS = {
    "sgd": (torch.optim.SGD, {}),
    "sgdm": (torch.optim.SGD, {"momentum": 0.9}),
    "adam": (torch.optim.Adam, {}),
    "amsgrad": (torch.optim.Adam, {"amsgrad": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
}


def tensor(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def columns(**values) -> dict[str, torch.Tensor]:
    """phi: a number is the same for all optimizees, a list has one for each."""
    return {name: torch.tensor(value, dtype=F64).view(-1, 1) for name, value in values.items()}


def quadratic(theta, batch):
    """Case Q of the specification, its curvatures as the batch: A = diag(4, 1)."""
    return 0.5 * (batch * theta**2).sum()


def close(actual, expected, digits=8):
    torch.testing.assert_close(actual, expected, rtol=0, atol=0.6 * 10**-digits)


@pytest.fixture(scope="module")
def task() -> Task:
    return build_task({"dataset": "digits", "optimizee": "mlp", "hidden": [8]}, device=torch.device("cpu"), dtype=F64)


def trained(task, name, phi, seed_list, steps) -> torch.Tensor:
    """theta, [B, P], after some inner steps of a baseline."""
    baseline = BASELINES[name]
    return list(frozen_unroll(task, baseline, phi, seed_list, steps))[-1][1]


def by_hand(task, optimizer_class, direction, seed, steps, **settings) -> torch.Tensor:
    """The same by torch.optim, one optimizee, with a direction from a function of (loss, theta)."""
    theta = task.init_theta(seeds.derive(seed, "theta")).requires_grad_()
    optimizer = optimizer_class([theta], **settings)
    window = task.batches([seeds.derive(seed, "batches")]).draw(steps)
    for step in range(steps):
        batch = window[step].of(0)

        def slope(point, batch=batch):
            point = point.detach().requires_grad_()
            return torch.autograd.grad(task.loss(point, batch), point)[0]

        theta.grad = direction(slope, theta.detach())
        optimizer.step()
    return theta.detach()


@pytest.mark.parametrize("name", TORCHS)
def test_plain_baselines_are_torchs(task, name):
    """Twelve steps of ours and of torch.optim's from the same parameters on the same batches."""
    optimizer_class, settings = TORCHS[name]
    rate = 0.2 if optimizer_class is torch.optim.SGD else 0.02
    ours = trained(task, name, columns(learning_rate=rate), [3], 12)
    theirs = by_hand(task, optimizer_class, lambda slope, theta: slope(theta), 3, 12, lr=rate, **settings)
    torch.testing.assert_close(ours[0], theirs, rtol=1e-10, atol=1e-10)
    assert (ours[0] - task.init_theta(seeds.derive(3, "theta"))).norm() > 0.05


def test_the_largest_second_moment_matters():
    """A large gradient, then small ones: AMSGrad keeps dividing by the large one, Adam forgets it."""
    updates = {}
    for name in ("adam", "amsgrad"):
        rule, theta = BASELINES[name].rule, torch.zeros(1, 1, dtype=F64)
        state = rule.init(theta)
        for size in [100.0] + [1.0] * 3000:
            update, state = rule.update(columns(learning_rate=1.0), theta, tensor([size]), state)
        updates[name] = float(update)
    # the mean is 1; largest = 10 at the first step, corrected by 1 - 0.999^3001
    assert updates["amsgrad"] == pytest.approx(-1 / (10 / (1 - 0.999**3001)) ** 0.5, rel=1e-6)
    assert updates["adam"] < 1.9 * updates["amsgrad"]


def sam(slope, theta, rho):
    gradient = slope(theta)
    return slope(theta + rho * gradient / gradient.norm())


def gsam(slope, theta, rho, alpha):
    gradient, worst = slope(theta), sam(slope, theta, rho)
    return worst - alpha * (gradient - (gradient @ worst) / (worst @ worst) * worst)


def gam(slope, theta, rho):
    g0 = slope(theta)
    g1 = slope(theta + 0.03 * g0 / g0.norm())
    theta2 = theta + rho * (g1 - g0) / (g1 - g0).norm()
    g2 = slope(theta2)
    g3 = slope(theta2 + 0.03 * g2 / g2.norm())
    q, m = 0.1 * g1 + 0.9 * g3, g0 + 0.9 * g2
    return q - 0.05 * (m - (m @ q) / (q @ q) * q)


@pytest.mark.parametrize("base", ["sgdm", "adam"])
@pytest.mark.parametrize(
    ("method", "direction", "settings"),
    [("sam", sam, {"rho": 0.3}), ("gsam", gsam, {"rho": 0.3, "alpha": 0.7}), ("gam", gam, {"rho": 0.3})],
)
def test_sharpness_aware_baselines_are_the_formulas_around_torchs(task, base, method, direction, settings):
    ours = trained(task, f"{method}-{base}", columns(learning_rate=0.02, **settings), [3], 8)
    optimizer_class, of_torch = TORCHS[base]
    theirs = by_hand(task, optimizer_class, lambda s, t: direction(s, t, **settings), 3, 8, lr=0.02, **of_torch)
    torch.testing.assert_close(ours[0], theirs, rtol=1e-10, atol=1e-10)
    plain = trained(task, base, columns(learning_rate=0.02), [3], 8)
    assert (ours - plain).norm() > 1e-3  # the sharpness radius does something


class TestOnTheQuadraticOfTheSpecification:
    """Three optimizees side by side: Case Q at two radii, and one at the minimum, where nothing may become NaN."""

    theta = tensor([1.0, 1.0], [1.0, 1.0], [0.0, 0.0])
    batch = tensor([4.0, 1.0]).repeat(3, 1)

    def direction(self, gradients, **phi):
        direction, loss = gradients(columns(**phi), quadratic, self.theta, self.batch)
        close(loss, tensor(2.5, 2.5, 0.0), 12)  # at theta, not at a perturbed point
        return direction

    def test_sam(self):
        direction = self.direction(sam_gradients, rho=[0.1, 0.01, 0.1])
        close(direction, tensor([4.38805700, 1.02425356], [4.03880570, 1.00242536], [0.0, 0.0]))

    def test_gsam(self):
        direction = self.direction(gsam_gradients, rho=[0.1, 0.01, 0.1], alpha=0.4)
        close(direction, tensor([4.39392973, 0.99909392], [4.03947961, 0.99971016], [0.0, 0.0]))

    def test_gam(self):
        direction = self.direction(GAMGradients(), rho=0.2)
        close(direction, tensor([4.83753384, 1.00982595], [4.83753384, 1.00982595], [0.0, 0.0]))


@pytest.fixture
def somewhere(task):
    """theta, [3, P], after a few steps, and the next batch."""
    seed_list = [1, 2, 3]
    theta = trained(task, "adam", columns(learning_rate=0.01), seed_list, 5)
    return theta, task.batches(seed_list).draw(1)[0]


def test_published_properties_of_the_directions(task, somewhere):
    """g_perp is orthogonal to g_p; |GSAM|² = |g_p|² + alpha² |g_perp|²; alpha 0 is SAM; rho 0 is the gradient."""
    theta, batch = somewhere
    gradient, _ = plain_gradients({}, task.loss, theta, batch)
    worst, _ = sam_gradients(columns(rho=0.5), task.loss, theta, batch)
    direction, _ = gsam_gradients(columns(rho=0.5, alpha=0.7), task.loss, theta, batch)
    orthogonal = (worst - direction) / 0.7
    torch.testing.assert_close((orthogonal * worst).sum(-1), torch.zeros(3, dtype=F64), rtol=0, atol=1e-14)
    squares = worst.norm(dim=-1) ** 2 + 0.49 * orthogonal.norm(dim=-1) ** 2
    torch.testing.assert_close(direction.norm(dim=-1) ** 2, squares, rtol=1e-12, atol=0)
    assert (orthogonal.norm(dim=-1) > 1e-3 * worst.norm(dim=-1)).all()
    without, _ = gsam_gradients(columns(rho=0.5, alpha=0.0), task.loss, theta, batch)
    assert torch.equal(without, worst)
    for gradients in (sam_gradients, gsam_gradients):
        nowhere, _ = gradients(columns(rho=0.0, alpha=0.4), task.loss, theta, batch)
        torch.testing.assert_close(nowhere, gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("name", "gradients"), [("gsam", gsam_gradients), ("gam", GAMGradients())])
def test_a_baseline_descends_what_the_penalty_of_its_name_injects(task, somewhere, name, gradients):
    theta, batch = somewhere
    direction, _ = gradients(columns(rho=0.1, alpha=0.4), task.loss, theta, batch)
    penalty = get(name, form="direction", rho=0.1)
    for b in range(3):
        _, injected = penalty.value_and_grad(lambda point, b=b: task.loss(point, batch.of(b)), theta[b])
        torch.testing.assert_close(direction[b], injected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", SHARPNESS_AWARE)
def test_every_optimizee_has_its_own_settings(task, name):
    """A grid in one batched unroll is the same as one unroll for each of its values."""
    grid = {"learning_rate": [0.01, 0.02, 0.05], "rho": [0.005, 0.1, 0.2], "alpha": [0.1, 0.7, 0.4]}
    phi = columns(**{key: grid[key] for key in BASELINES[name].grid})
    together = trained(task, name, phi, [5, 5, 6], 6)
    for b, seed in enumerate([5, 5, 6]):
        alone = trained(task, name, {key: column[b : b + 1] for key, column in phi.items()}, [seed], 6)
        torch.testing.assert_close(together[b : b + 1], alone, rtol=1e-9, atol=1e-11)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("optimizees", [1, 3])
def test_passes_are_counted(name, optimizees):
    points = []

    def loss(theta, batch):
        points.append(theta)
        return quadratic(theta, batch)

    baseline = BASELINES[name]
    theta = torch.ones(optimizees, 2, dtype=F64)
    baseline.gradients(columns(**baseline.default), loss, theta, tensor([4.0, 1.0]).repeat(optimizees, 1))
    assert len(points) == baseline.passes_per_step


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_nothing_moves_at_a_stationary_point(name, dtype):
    """No gradient, no update and no NaN, also beside an optimizee that moves; the dtype is kept."""
    baseline = BASELINES[name]
    theta = torch.tensor([[0.0, 0.0], [1.0, -1.0]], dtype=dtype)
    batch = torch.tensor([4.0, 1.0], dtype=dtype).repeat(2, 1)
    phi = {key: column.to(dtype) for key, column in columns(**baseline.default).items()}
    state = baseline.rule.init(theta)
    for _ in range(3):
        direction, loss = baseline.gradients(phi, quadratic, theta, batch)
        update, state = baseline.rule.update(phi, theta, direction, state)
        assert update.dtype == loss.dtype == dtype and update.shape == (2, 2) and loss.shape == (2,)
        assert not update[0].any() and (update[1].sign() == -theta[1].sign()).all()


def test_normalised_gradient_descent_has_momentum_and_no_scale():
    """v_1 = n_1, v_2 = 0.9 n_1 + n_2 with n = g / rms(g): a step of the learning rate's size for any gradient."""
    rule, theta = BASELINES["ngdm"].rule, torch.zeros(2, 4, dtype=F64)
    first, second = tensor([1.0, -2.0, 0.5, 3.0]), tensor([0.0, 1.0, -1.0, 2.0])
    state, updates = rule.init(theta), []
    for gradient in (first, second):
        scaled = torch.cat([gradient, 1e-6 * gradient])
        update, state = rule.update(columns(learning_rate=[0.1, 0.2]), theta, scaled, state)
        updates.append(update)
    n1, n2 = (g / (g**2).mean().sqrt() for g in (first, second))
    torch.testing.assert_close(updates[0], -tensor([0.1], [0.2]) * n1, rtol=1e-12, atol=0)
    torch.testing.assert_close(updates[1], -tensor([0.1], [0.2]) * (0.9 * n1 + n2), rtol=1e-12, atol=0)
    assert float((updates[0] ** 2).mean(-1).sqrt()[0]) == pytest.approx(0.1, rel=1e-12)


def test_the_catalogue_of_baselines():
    """What the specification lists, tuned over its grids; every setting of the grid is used and has a default."""
    plain = ["sgd", "sgdm", "adam", "amsgrad", "rmsprop", "ngdm"]
    around = [f"{method}-{base}" for base in ("sgdm", "adam") for method in ("sam", "gsam", "gam")]
    assert list(BASELINES) == plain + around
    for name, baseline in BASELINES.items():
        method = name.partition("-")[0] if "-" in name else ""
        wanted = ["learning_rate", *{"": (), "gsam": ("rho", "alpha")}.get(method, ("rho",))]
        assert name == baseline.name and list(baseline.grid) == list(baseline.default) == wanted
        assert baseline.passes_per_step == {"": 1, "sam": 2, "gsam": 2, "gam": 4}[method]
        rates = baseline.grid["learning_rate"]
        assert rates == pytest.approx([10 ** (-4 + k / 2) for k in range(9)], rel=1e-12)
        for key, value in baseline.default.items():
            assert value in baseline.grid[key]
        assert baseline.grid.get("rho", (0.005, 0.01, 0.05, 0.1, 0.2)) == (0.005, 0.01, 0.05, 0.1, 0.2)
        assert baseline.grid.get("alpha", (0.1, 0.4, 0.7)) == (0.1, 0.4, 0.7)


def test_losses_are_those_at_theta(task, somewhere):
    theta, batch = somewhere
    expected = side_by_side(task.loss)(theta, batch)
    for baseline in BASELINES.values():
        _, loss = baseline.gradients(columns(**baseline.default), task.loss, theta, batch)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
