"""The inputs of mlp, adafac and lin, and those that any member can be given, against numbers written out one by one."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from members import KINDS
from torch.func import vmap

from engine.export.torch_optim import LoadedOptimizer
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS, StepInfo
from engine.optimizers.learned.features import NAMES
from engine.optimizers.learned.lin import schedule
from engine.tasks.base import Layout

F64 = torch.float64
SHAPES = {"matrix": (2, 3), "vector": (3,), "kernel": (2, 2, 3), "square": (2, 2), "scalar": ()}
LAYOUT = Layout(SHAPES)
DECAYS = (0.9, 0.99, 0.999)
TAUS = (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)


def numbers(seed: int, size: int = LAYOUT.size) -> torch.Tensor:
    return torch.randn(size, dtype=F64, generator=torch.Generator().manual_seed(seed))


def walked(optimizer, steps: int, layout=LAYOUT):
    """The features of each step, [P, F], at random parameters and gradients, given as lists of numbers."""
    state, seen = optimizer.init(numbers(0, layout.size), layout), []
    for step in range(steps):
        theta, grad = numbers(10 + step, layout.size), numbers(100 + step, layout.size)
        features, state = optimizer.observe(theta, grad, state, layout, StepInfo(None, step, 50))
        seen.append((theta.tolist(), grad.tolist(), features))
    return seen


def normalised(column: list[float]) -> list[float]:
    root = math.sqrt(1e-5 + sum(value**2 for value in column) / len(column))
    return [value / root for value in column]


def assert_rows(features: torch.Tensor, columns: list[list[float]], step: int) -> None:
    """Columns of one tensor, each normalised, and then the time features."""
    expected = [normalised(column) for column in columns]
    expected += [[math.tanh(step / tau - 1)] * len(columns[0]) for tau in TAUS]
    assert features.shape[-1] == len(expected)
    torch.testing.assert_close(features, torch.tensor(expected, dtype=F64).T, rtol=1e-10, atol=1e-12)


def test_mlp_is_shown_gradient_parameter_six_momenta_and_the_time():
    optimizer = LEARNED_OPTIMIZERS.create("mlp")
    momenta = {decay: [0.0] * LAYOUT.size for decay in (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)}
    for step, (theta, grad, features) in enumerate(walked(optimizer, 4)):
        for decay, mean in momenta.items():
            momenta[decay] = [decay * m + (1 - decay) * g for m, g in zip(mean, grad, strict=True)]
        for part in LAYOUT.slices.values():
            assert_rows(features[part], [grad[part], theta[part], *(mean[part] for mean in momenta.values())], step)


def test_mlps_first_features_of_one_weight_are_these_numbers():
    """g = 0.002, theta = 0.5: g / sqrt(1e-5 + g²) = 0.002 / sqrt(1.4e-5); m = (1 - b) g."""
    optimizer = LEARNED_OPTIMIZERS.create("mlp")
    theta, layout = torch.tensor([0.5], dtype=F64), Layout({"w": (1,)})
    grad = torch.tensor([0.002], dtype=F64)
    features, _ = optimizer.observe(theta, grad, optimizer.init(theta, layout), layout, StepInfo(None, 0, 9))
    expected = [
        0.534522483825,
        0.999980000600,
        0.494684738936,
        0.301511344578,
        0.0631194403,
        0.00632442899,
        0.00063245541,
    ]
    assert features[0, :7].tolist() == pytest.approx(expected, rel=1e-6)
    assert features[0, 8:].tolist() == pytest.approx([math.tanh(-1)] * 11, rel=1e-12)


class Factored:
    """Adafactor's means of one tensor, with Python's numbers: row, col and their factors at every index."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.indices = list(itertools.product(*map(range, shape)))
        sizes = sorted(range(len(shape)), key=lambda dim: shape[dim])
        self.largest, self.second = (sizes[-1], sizes[-2]) if len(shape) > 1 else (None, None)
        self.row = {decay: dict.fromkeys(self.indices, 0.0) for decay in DECAYS}
        self.col = {decay: dict.fromkeys(self.indices, 0.0) for decay in DECAYS}

    def over(self, values: dict, dim: int, index: tuple[int, ...]) -> float:
        """The mean over a dimension through an index."""
        line = [values[(*index[:dim], place, *index[dim + 1 :])] for place in range(self.shape[dim])]
        return sum(line) / len(line)

    def step(self, grad: list[float]) -> None:
        squares = {index: g * g + 1e-30 for index, g in zip(self.indices, grad, strict=True)}
        for decay in DECAYS:
            for index in self.indices:
                vector = self.largest is None
                across = squares[index] if vector else self.over(squares, self.largest, index)
                along = squares[index] if vector else self.over(squares, self.second, index)
                self.row[decay][index] = decay * self.row[decay][index] + (1 - decay) * across
                self.col[decay][index] = decay * self.col[decay][index] + (1 - decay) * along

    def factors(self, decay: float) -> tuple[list[float], list[float]]:
        """What g and m are multiplied by."""
        row, col = self.row[decay], self.col[decay]
        if self.largest is None:
            values = [row[index] for index in self.indices]
            return [max(v + 1e-9, 1e-9) ** -0.5 for v in values], [(v + 1e-6) ** -0.5 for v in values]
        both = []
        for index in self.indices:
            r = max(row[index] / (self.over(row, self.second, index) + 1e-9), 1e-9) ** -0.5
            both.append(r * max(col[index], 1e-9) ** -0.5)
        return both, both


def test_adafac_is_shown_adafactors_quantities():
    optimizer = LEARNED_OPTIMIZERS.create("adafac")
    size = LAYOUT.size
    momenta, square = {decay: [0.0] * size for decay in DECAYS}, [0.0] * size
    tensors = {name: Factored(shape) for name, shape in SHAPES.items()}
    for step, (theta, grad, features) in enumerate(walked(optimizer, 4)):
        for decay in DECAYS:
            momenta[decay] = [decay * m + (1 - decay) * g for m, g in zip(momenta[decay], grad, strict=True)]
        square = [0.999 * v + 0.001 * g * g for v, g in zip(square, grad, strict=True)]
        for name, part in LAYOUT.slices.items():
            tensor = tensors[name]
            tensor.step(grad[part])
            m, v, g = [momenta[decay][part] for decay in DECAYS], square[part], grad[part]
            row = [list(tensor.row[decay].values()) for decay in DECAYS]
            col = [list(tensor.col[decay].values()) for decay in DECAYS]
            factors = [tensor.factors(decay) for decay in DECAYS]
            root = [(value + 1e-6) ** -0.5 for value in v]
            columns = [g, theta[part], *m, v]
            columns += [[a * b for a, b in zip(mean, root, strict=True)] for mean in m]
            columns += [root]
            columns += [[a * b for a, b in zip(g, of_g, strict=True)] for of_g, _ in factors]
            columns += [*row, *col]
            columns += [[(value + 1e-8) ** -0.5 for value in values] for values in (*row, *col)]
            columns += [
                [a * b for a, b in zip(mean, of_m, strict=True)] for mean, (_, of_m) in zip(m, factors, strict=True)
            ]
            assert len(columns) == 28
            assert_rows(features[part], columns, step)


@pytest.mark.parametrize(("kind", "inputs", "hidden"), [("mlp", 19, 32), ("adafac", 39, 4)])
def test_the_step_is_a_direction_times_an_exponential(kind, inputs, hidden):
    """A first unit that copies the second feature leads to d = 3 f and a = 500: u = -0.001 · 3 f · exp(0.5)."""
    optimizer = LEARNED_OPTIMIZERS.create(kind)
    phi = {name: torch.zeros_like(t, dtype=F64) for name, t in optimizer.init_phi(torch.Generator()).items()}
    assert phi["layer0.weight"].shape == (inputs, hidden) and phi["head.weight"].shape == (hidden, 2)
    phi["layer0.weight"][1, 0] = phi["layer1.weight"][0, 0] = 1.0
    phi["head.weight"][0, 0], phi["head.bias"][1] = 3.0, 500.0
    features = torch.randn(2, 5, inputs, dtype=F64, generator=torch.Generator().manual_seed(0))
    update, _ = optimizer.step(phi, features, optimizer.init(torch.zeros(2, 5, dtype=F64)))
    expected = -0.001 * 3 * features[..., 1].clamp_min(0) * math.exp(0.5)
    torch.testing.assert_close(update, expected, rtol=1e-12, atol=1e-14)


def test_fresh_weights_are_cut_at_two_deviations():
    phi = LEARNED_OPTIMIZERS.create("mlp", hidden=200).init_phi(torch.Generator().manual_seed(0))
    for name, inputs in (("layer0", 19), ("layer1", 200), ("head", 200)):
        scaled = phi[f"{name}.weight"] * math.sqrt(inputs)
        assert scaled.abs().max() <= 2 and scaled.std() == pytest.approx(0.88, abs=0.06)  # 1, without the tails
        assert not phi[f"{name}.bias"].any()


def test_adafacs_decays_are_learned():
    """1 - b = (1 - b0) exp(10 delta), from the second step on; the meta-gradient by delta is the derivative."""
    optimizer, layout = LEARNED_OPTIMIZERS.create("adafac"), Layout({"w": (1,)})
    phi = {name: t.to(F64) for name, t in optimizer.init_phi(torch.Generator().manual_seed(0)).items()}
    theta = torch.tensor([0.5], dtype=F64)

    def momenta(delta: torch.Tensor) -> torch.Tensor:
        own, state = phi | {"decays.momenta": delta}, optimizer.init(theta, layout)
        for grad in (2.0, -1.0):
            update, state = optimizer.update(own, theta, torch.tensor([grad], dtype=F64), state, layout)
        return torch.cat([update, state["momenta"][0]])

    delta = torch.tensor([0.05, 0.5, -0.1], dtype=F64, requires_grad=True)  # 1 - b of the second is cut to 1
    rates = [0.1 * math.exp(0.5), 1.0, 0.001 * math.exp(-1)]
    expected = [(1 - rate) * fresh * 2 - rate for rate, fresh in zip(rates, (0.1, 0.01, 0.001), strict=True)]
    assert momenta(delta)[1:].tolist() == pytest.approx(expected, rel=1e-10)
    assert torch.autograd.gradcheck(momenta, delta)
    (slope,) = torch.autograd.grad(momenta(delta)[0], delta)
    assert slope[[0, 2]].all()


def test_lin_is_the_sum_that_it_says():
    optimizer = LEARNED_OPTIMIZERS.create("lin", output_scale=0.5)
    phi = {name: numbers(3, t.numel()) for name, t in optimizer.init_phi(torch.Generator()).items()}
    assert sum(t.numel() for t in phi.values()) == 22
    size = 5
    state, before = optimizer.init(numbers(0, size)), numbers(0, size)
    slow, fast, square = torch.zeros(size, dtype=F64), torch.zeros(size, dtype=F64), torch.zeros(size, dtype=F64)
    for step in range(4):
        theta, grad = numbers(10 + step, size), numbers(100 + step, size)
        update, state = optimizer.update(phi, theta, grad, state, None, StepInfo(None, 20 * step, 100))
        fast, slow, square = 0.9 * fast + 0.1 * grad, 0.99 * slow + 0.01 * grad, 0.99 * square + 0.01 * grad**2
        m9, m99, v = fast / (1 - 0.9 ** (step + 1)), slow / (1 - 0.99 ** (step + 1)), square / (1 - 0.99 ** (step + 1))
        s, root, change = v.mean().sqrt(), v.sqrt(), theta - before
        features = [grad / s, m9 / s, m99 / s, grad / root, m9 / root, m99 / root, 10 * grad]
        features += [change / (change**2).mean().sqrt(), theta]
        before, fraction = theta, 0.2 * step
        knots, c, e = phi["schedule"], phi["head.weight"][:9], phi["head.weight"][9:]
        left = min(int(3 * fraction), 2)
        level = knots[left] + (3 * fraction - left) * (knots[left + 1] - knots[left])
        total = sum((c[k] + fraction * e[k]) * feature for k, feature in enumerate(features))
        torch.testing.assert_close(update, 0.5 * level.exp() * total, rtol=1e-10, atol=1e-12)


def test_lins_schedule_meets_its_knots():
    knots = torch.tensor([1.0, 2.0, 4.0, 0.0], dtype=F64)
    places = torch.tensor([0.0, 1 / 6, 1 / 3, 0.5, 2 / 3, 0.9, 1.0], dtype=F64)
    torch.testing.assert_close(schedule(knots, places), torch.tensor([1, 1.5, 2, 3, 4, 1.2, 0], dtype=F64))


def test_a_fresh_lin_is_adam_but_for_a_hundredth():
    optimizer = LEARNED_OPTIMIZERS.create("lin")
    phi = optimizer.init_phi(torch.Generator().manual_seed(0))
    theta = torch.randn(200, generator=torch.Generator().manual_seed(1)) / 10
    reference = torch.nn.Parameter(theta.clone())
    adam = torch.optim.Adam([reference], lr=0.02, betas=(0.9, 0.99))
    state, start = optimizer.init(theta), theta
    for step in range(20):
        grad = torch.randn(200, generator=torch.Generator().manual_seed(step)) + 0.5
        reference.grad = grad
        adam.step()
        update, state = optimizer.update(phi, theta, grad, state)
        theta = theta + update
    moved, expected = theta - start, reference.detach() - start
    assert (moved - expected).norm() < 0.15 * expected.norm()


@pytest.mark.parametrize("kind", ["dm", "rnnprop", "simple", "mlp", "adafac"])
def test_any_member_can_be_given_more_inputs(kind):
    """After its own: t/T, two momenta and the gradient over sqrt v, how theta moved; theta itself last."""
    plain = LEARNED_OPTIMIZERS.create(kind, theta_input=True)
    given = LEARNED_OPTIMIZERS.create(kind, theta_input=True, features=NAMES)
    without, between = walked(plain, 3), walked(given, 3)
    means, square, before = {0.9: 0.0, 0.99: 0.0}, 0.0, numbers(0)
    for step, ((_, _, own), (theta, grad, features)) in enumerate(zip(without, between, strict=True)):
        theta, grad = torch.tensor(theta, dtype=F64), torch.tensor(grad, dtype=F64)
        means = {decay: decay * mean + (1 - decay) * grad for decay, mean in means.items()}
        square = 0.99 * square + 0.01 * grad**2
        root = (square / (1 - 0.99 ** (step + 1))).sqrt()
        expected = [torch.full_like(theta, step / 50)]
        expected += [mean / (1 - decay ** (step + 1)) / root for decay, mean in means.items()]
        change, before = theta - before, theta
        expected += [grad / root, change / (change**2).mean().sqrt()]
        last = 0 if kind in ("mlp", "adafac") else 1  # theta, which is among their own
        kept, extra = own.shape[-1] - last, torch.stack(expected, -1)
        torch.testing.assert_close(features[:, :kept], own[:, :kept])
        torch.testing.assert_close(features[:, kept : kept + 5], extra, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(features[:, kept + 5 :], own[:, kept:])
    phi = {name: t.to(F64) for name, t in given.init_phi(torch.Generator().manual_seed(0)).items()}
    update, _ = given.step(phi, features, given.init(before, LAYOUT))
    assert update.shape == before.shape and update.isfinite().all()


def test_the_share_of_the_unroll_may_differ_between_optimizees():
    theta = torch.zeros(3, 4)
    info = StepInfo(None, torch.tensor([0, 5, 30]), torch.tensor([10, 20, 20]))
    assert info.fraction(theta).tolist() == [[0.0], [0.25], [1.0]]
    assert StepInfo(None, 5, 20).fraction(theta).item() == 0.25
    assert StepInfo(None, 5, None).fraction(theta).item() == 0.0


@pytest.mark.parametrize("settings", [{}, {"features": NAMES, "theta_input": True}], ids=["", "features"])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_can_be_mapped_over_meta_parameters(kind, settings):
    """phi [N, ...] beside theta [N, B, P], as evolution strategies want it: the same as one particle after another."""
    optimizer = LEARNED_OPTIMIZERS.create(kind, **settings)
    generator = torch.Generator().manual_seed(0)
    phis = [{name: t.to(F64) for name, t in optimizer.init_phi(generator).items()} for _ in range(3)]
    theta = numbers(5, 3 * 2 * LAYOUT.size).view(3, 2, LAYOUT.size)

    def walk(phi, theta):
        state, horizon = optimizer.init(theta, LAYOUT), torch.tensor([7, 9])
        for step in range(3):
            info = StepInfo(theta.sum(-1), step, horizon)
            features, state = optimizer.observe(theta, (theta * (step + 1)).sin(), state, LAYOUT, info)
            update, state = optimizer.step(phi, features, state)
            theta = theta + update
        return theta, state

    together, states = vmap(walk)({name: torch.stack([phi[name] for phi in phis]) for name in phis[0]}, theta)
    for number, phi in enumerate(phis):
        alone, state = walk(phi, theta[number])
        torch.testing.assert_close(together[number], alone, rtol=1e-11, atol=1e-12)
        for name in state:
            torch.testing.assert_close(states[name][number], state[name], rtol=1e-10, atol=1e-12)


def test_a_training_of_ones_own_says_its_horizon():
    """With a schedule that grows by e over the first third: nothing of it is seen where the horizon is not known."""
    optimizer = LEARNED_OPTIMIZERS.create("lin", theta_input=False)
    phi = {name: torch.zeros_like(t) for name, t in optimizer.init_phi(torch.Generator()).items()}
    phi["schedule"], phi["head.weight"][3] = torch.tensor([0.0, 1.0, 0.0, 0.0]), -1.0

    def moves(horizon):
        parameter = torch.nn.Parameter(torch.zeros(1))
        loaded, walked = LoadedOptimizer([parameter], optimizer, phi, horizon=horizon), [0.0]
        for _ in range(3):
            parameter.grad = torch.ones(1)
            loaded.step()
            walked.append(parameter.item())
        return [b - a for a, b in itertools.pairwise(walked)]

    assert moves(None) == pytest.approx([-0.02] * 3, rel=1e-5)
    assert moves(6) == pytest.approx([-0.02, -0.02 * math.exp(0.5), -0.02 * math.e], rel=1e-5)
    for wrong in (0, -1, 1.5, "ten", True):
        with pytest.raises(ValueError, match="horizon"):
            moves(wrong)


def test_lin_without_theta_and_its_last_update_goes_by_gradients_alone():
    optimizer = LEARNED_OPTIMIZERS.create("lin", theta_input=False, previous_update=False)
    phi = {name: t.to(F64) + 0.1 for name, t in optimizer.init_phi(torch.Generator().manual_seed(0)).items()}

    def updates(theta: torch.Tensor) -> list[torch.Tensor]:
        state, seen = optimizer.init(theta), []
        for step in range(3):
            update, state = optimizer.update(phi, theta, numbers(step), state, None, StepInfo(None, step, 3))
            theta = theta + 5.0  # moved by somebody else
            seen.append(update)
        return seen

    assert sum(t.numel() for t in phi.values()) == 4 + 2 * 7
    for one, other in zip(updates(numbers(7)), updates(numbers(8)), strict=True):
        assert torch.equal(one, other)
