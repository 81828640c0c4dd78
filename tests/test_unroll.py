"""The meta-gradient against closed forms and against plain autograd through the whole unroll."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from members import KINDS
from torch import Tensor
from torch.func import grad, vmap
from unrolling import truncation

from engine.meta_training.objective import Objective
from engine.meta_training.unroll import begin, weights
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS, LearnedOptimizer, Phi, State, StepInfo
from engine.penalties.base import InnerStep, get

F64 = torch.float64


@pytest.fixture(autouse=True)
def way(request, monkeypatch) -> str:
    """The kernels that go back through a truncation. The second order has none: there it is always "auto"."""
    chosen = getattr(request, "param", "auto")
    monkeypatch.setenv("LREG_KERNELS", chosen)
    return chosen


EVERY_WAY = pytest.mark.parametrize("way", ["auto", "recompute", "plain"], indirect=True)
MODES = [("auto", False), ("recompute", False), ("plain", False), ("auto", True)]
EVERY_MODE = pytest.mark.parametrize(("way", "second_order"), MODES, indirect=["way"])


def in_turn(kinds: Sequence[str], choices: Sequence[tuple]) -> list[tuple]:
    """(kind, way, second_order, *choice): every kind in every mode, and the choices dealt out among them."""
    pairs = [(kind, mode, k + m) for k, kind in enumerate(kinds) for m, mode in enumerate(MODES)]
    return [(kind, *mode, *choices[turn % len(choices)]) for kind, mode, turn in pairs]


class ScaledGradient(LearnedOptimizer):
    """u = -phi g."""

    gradient_features = 1

    def init(self, theta: Tensor) -> State:
        return {}

    def observe(self, theta: Tensor, grad: Tensor, state: State) -> tuple[Tensor, State]:
        return grad[..., None], state

    def step(self, phi: Phi, features: Tensor, state: State) -> tuple[Tensor, State]:
        return -phi["rate"] * features[..., 0], state


def quadratic(theta: Tensor, batch: object) -> Tensor:
    """L = a x^2 / 2 with a = 2."""
    return (theta**2).sum()


def quadratic_meta_gradient(steps: int, factors: list[float], **settings) -> tuple[float, float]:
    """J and dJ/dphi for x_0 = 1.5, phi = 0.1; `steps` for each truncation."""
    objective = Objective(quadratic, ScaledGradient(), **settings)
    phi = {"rate": torch.tensor(0.1, dtype=F64, requires_grad=True)}
    batch = torch.zeros(1, dtype=F64)
    carry = begin(objective, torch.tensor([[1.5]], dtype=F64), batch)
    value, slope = 0.0, 0.0
    for first in range(0, len(factors), steps):
        part = factors[first : first + steps]
        meta, carry = truncation(objective, phi, carry, [batch] * steps, part, torch.Generator())
        value += float(torch.tensor(part, dtype=F64) @ meta.losses[:, 0])
        slope += float(meta.gradient["rate"])
    return value, slope


def test_first_order_meta_gradient_equals_its_closed_form():
    assert quadratic_meta_gradient(5, [1.0] * 5) == pytest.approx((3.5705032704, -49.6075345920), rel=1e-11)


def test_second_order_meta_gradient_equals_its_closed_form():
    value = quadratic_meta_gradient(5, [1.0] * 5, second_order=True)
    assert value == pytest.approx((3.5705032704, -38.8529049600), rel=1e-11)


def test_truncations_of_one_step_cut_the_meta_gradient_but_not_the_trajectory():
    assert quadratic_meta_gradient(1, [1.0] * 5) == pytest.approx((3.5705032704, -17.8525163520), rel=1e-11)


def test_linear_weights_equal_their_closed_form():
    value, _ = quadratic_meta_gradient(5, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert value == pytest.approx(7.7705809920, rel=1e-11)
    value, _ = quadratic_meta_gradient(5, weights("linear", 5))
    assert value == pytest.approx(0.5180387328, rel=1e-9)


def test_weights_schemes():
    assert weights("uniform", 3) == [1.0, 1.0, 1.0]
    assert weights("linear", 3) == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert weights("decayed", 3, decay=0.5) == [0.25, 0.5, 1.0]
    assert weights("final", 3) == [0.0, 0.0, 1.0]
    assert weights("xh_code", 3, first=0) == [0.0] * 3
    assert weights("xh_code", 2, first=6) == [6.0] * 2  # the last truncation may be shorter


# A small sigmoid network as the optimizee, everything written out once more with plain autograd.

INPUTS, UNITS, CLASSES = 3, 4, 3
SIZES = [INPUTS * UNITS, UNITS, UNITS * CLASSES, CLASSES]
PARAMETERS = sum(SIZES)


def network_loss(theta: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    first, bias, second, head = theta.split(SIZES)
    hidden = torch.sigmoid(x @ first.view(INPUTS, UNITS) + bias)
    return torch.nn.functional.cross_entropy(hidden @ second.view(UNITS, CLASSES) + head, y)


def make_batches(count: int, optimizees: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(optimizees, 6, INPUTS, dtype=F64, generator=generator),
            torch.randint(0, CLASSES, (optimizees, 6), generator=generator),
        )
        for _ in range(count)
    ]


def make_phi(optimizer: LearnedOptimizer) -> Phi:
    phi = optimizer.init_phi(torch.Generator().manual_seed(3))
    return {name: tensor.to(F64).requires_grad_() for name, tensor in phi.items()}


def make_theta(optimizees: int) -> Tensor:
    return 0.5 * torch.randn(optimizees, PARAMETERS, dtype=F64, generator=torch.Generator().manual_seed(1))


def plain_meta_gradient(
    objective: Objective, phi: Phi, theta: Tensor, batches, factors, first, seed, scoring=None, final=None
) -> Phi:
    """The meta-gradient by writing the meta-objective down and asking autograd, one optimizee at a time."""
    total = torch.zeros((), dtype=F64)
    optimizees = len(theta)
    generator = torch.Generator().manual_seed(seed)
    points = [phi["start"][None] if "start" in phi else theta[b : b + 1] for b in range(optimizees)]
    states = [objective.optimizer.init(point.detach()) for point in points]
    for j, factor in enumerate(factors):
        steps = []
        for b in range(optimizees):
            feed = first if (objective.loss_batch == "next" and j == 0) else None
            feed = feed or (batches[j - 1] if objective.loss_batch == "next" else batches[j])
            one = tuple(part[b] for part in feed)
            gradient = grad(lambda t, one=one: network_loss(t, one))(points[b][0])[None]
            seen, seen_loss = points[b], network_loss(points[b][0], one)[None]
            if not objective.second_order:
                gradient, seen_loss = gradient.detach(), seen_loss.detach()
                seen = seen if objective.optimizer.differentiates_theta else seen.detach()
            info = StepInfo(seen_loss, j)
            features, before = objective.optimizer.observe(seen, gradient, states[b], None, info)
            update, states[b] = objective.optimizer.step(phi, features, before)
            points[b] = points[b] + update
            if objective.optimizer.differentiates_theta:  # penalties hold theta constant
                update = objective.optimizer.step(phi, features.detach(), before)[0]
            steps.append((features, before, update))
        if objective.update:
            joint = InnerStep(
                torch.cat([step[0] for step in steps]).detach(),
                {
                    k: torch.cat([s[1][k] for s in steps]) if steps[0][1][k].ndim else steps[0][1][k]
                    for k in steps[0][1]
                },
                torch.cat([step[2] for step in steps]),
            )
        losses = []
        for b in range(optimizees):
            one = tuple(part[b] for part in (scoring[j] if scoring else batches[j]))
            losses.append(loss := network_loss(points[b][0], one))
            if final is not None and j == len(factors) - 1:
                on_fresh = [network_loss(points[b][0], tuple(part[b] for part in batch)) for batch in final]
                total = total + factor * torch.stack(on_fresh).mean() / optimizees
            else:
                total = total + factor * loss / optimizees
            for penalty in objective.geometric.values():
                value = scalar_penalty(penalty, points[b][0], one, j)
                value = value / loss.detach() if penalty.relative else value
                total = total + factor * penalty.weight * value / optimizees * (j >= penalty.start)
        for penalty in objective.update.values():
            values = penalty.value(objective.optimizer, phi, joint, generator)
            values = values / torch.stack(losses).detach() if penalty.relative else values
            total = total + factor * penalty.weight * values.mean()
    for penalty in objective.parameter.values():
        total = total + penalty.weight * penalty.value(phi)
    return dict(zip(phi, torch.autograd.grad(total, list(phi.values())), strict=True))


def scalar_penalty(penalty, theta: Tensor, batch, inner_step: int) -> Tensor:
    """The scalar forms as they stand in the papers, with the perturbation a constant, differentiable by theta."""

    def loss(point: Tensor) -> Tensor:
        return network_loss(point, batch)

    here = theta.detach().requires_grad_()
    (g,) = torch.autograd.grad(loss(here), here, create_graph=True)
    if penalty.name in ("sam", "gsam"):
        worst = loss(theta + (penalty.rho * g / g.norm()).detach())
        return worst if penalty.name == "sam" else worst - loss(theta)
    if penalty.name == "asam":
        return loss(theta + penalty.rho * theta * (here * g / (here * g).norm()).detach()) - loss(theta)
    if penalty.name == "hessian_trace":
        hessian = torch.autograd.functional.hessian(loss, theta, create_graph=True)
        signs = penalty.signs(here, inner_step)
        return torch.einsum("kp,pq,kq->", signs, hessian, signs) / len(signs)
    if penalty.name == "top_eigenvalue":
        return torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, theta, create_graph=True))[-1]
    (ascent,) = torch.autograd.grad(g.norm(), here)
    (worst_gradient,) = torch.autograd.grad(
        loss(moved := theta + (penalty.rho * ascent / ascent.norm()).detach()), moved, create_graph=True
    )
    return penalty.rho * worst_gradient.norm()


def assert_equal_to_plain_autograd(
    kind: str,
    *,
    optimizees: int = 3,
    steps: int = 4,
    scored: bool = False,
    learned_start: bool = False,
    fresh: int = 0,
    **settings,
):
    optimizer = LEARNED_OPTIMIZERS.create(kind, hidden=5, **settings.pop("optimizer", {}))
    objective = Objective(network_loss, optimizer, **settings)
    phi, theta = make_phi(optimizer), make_theta(optimizees)
    if learned_start:
        phi["start"] = make_theta(1)[0].requires_grad_()
        theta = phi["start"].detach().expand(optimizees, -1)
    final = make_batches(fresh, optimizees, seed=11) if fresh else None
    first, *batches = make_batches(steps + 1, optimizees, seed=2)
    scoring = make_batches(steps, optimizees, seed=9) if scored else None
    factors = [0.5, 1.0, 2.0, 0.25, 1.5, 1.0][:steps]
    carry = begin(objective, theta, first if objective.loss_batch == "next" else None)
    generator = torch.Generator().manual_seed(7)
    meta, _ = truncation(objective, phi, carry, batches, factors, generator, scoring=scoring, final=final)
    expected = plain_meta_gradient(objective, phi, theta, batches, factors, first, 7, scoring, final)
    for name in phi:
        error = (meta.gradient[name] - expected[name]).norm() / expected[name].norm()
        assert error < 1e-10, f"{name}: relative error {error:.1e}"


BATCHES = [("next",), ("same",), ("validation",)]


@pytest.mark.parametrize(("kind", "way", "second_order", "loss_batch"), in_turn(KINDS, BATCHES), indirect=["way"])
def test_meta_gradient_equals_plain_autograd(kind, second_order, loss_batch):
    scored = loss_batch == "validation"
    assert_equal_to_plain_autograd(kind, second_order=second_order, loss_batch=loss_batch, scored=scored)


@pytest.mark.parametrize(
    ("kind", "way", "second_order", "loss_batch"), in_turn(["meta-lstm", "dm", "lin"], BATCHES[:2]), indirect=["way"]
)
def test_learned_initial_parameters_and_a_last_loss_on_fresh_batches_equal_plain_autograd(
    kind, second_order, loss_batch
):
    penalties = {"update": {"smooth": get("smooth", ascent_steps=2, perturb="gradient")}}
    how = {"second_order": second_order, "loss_batch": loss_batch, "learned_start": True}
    assert_equal_to_plain_autograd(kind, fresh=2, **how)
    assert_equal_to_plain_autograd(kind, **how, **penalties)


@EVERY_MODE
def test_theta_as_an_input_equals_plain_autograd(second_order):
    assert_equal_to_plain_autograd("dm", second_order=second_order, optimizer={"theta_input": True})


@pytest.mark.parametrize(
    ("kind", "way", "second_order", "features"),
    in_turn(KINDS, [(["time", "momenta", "normalised"],), (["previous_update"],)]),
    indirect=["way"],
)
def test_more_inputs_equal_plain_autograd(kind, features, second_order):
    penalty = get("smooth", epsilon=0.3, ascent_steps=3, weight=10.0)
    settings = {"features": features, "theta_input": True}
    assert_equal_to_plain_autograd(kind, second_order=second_order, optimizer=settings, update={"smooth": penalty})


@pytest.mark.parametrize(("second_order", "relative"), [(False, True), (True, False)])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {"rho": 0.1}) for name in ("sam", "gsam", "gam", "asam")),
        ("hessian_trace", {"samples": 2}),
        ("top_eigenvalue", {"iterations": 300}),
    ],
)
def test_geometric_penalties_equal_plain_autograd(name, settings, relative, second_order):
    penalty = get(name, weight=3.0, relative=relative, start=1, **settings)
    assert_equal_to_plain_autograd("simple", geometric={name: penalty}, second_order=second_order)


@EVERY_WAY
def test_penalties_of_every_kind_add_up():
    geometric = {"sam": get("sam", rho=0.1, weight=0.7), "gam": get("gam", rho=0.1, weight=2.0)}
    update = {"smooth": get("smooth", epsilon=0.3, ascent_steps=3, weight=5.0)}
    parameter = {"l2": get("l2", weight=0.1), "orthogonal": get("orthogonal", weight=0.2)}
    assert_equal_to_plain_autograd("dm", geometric=geometric, update=update, parameter=parameter)


@pytest.mark.parametrize(
    ("kind", "way", "second_order", "relative"), in_turn(KINDS, [(False,), (True,)]), indirect=["way"]
)
def test_smoothness_equals_plain_autograd_where_it_dominates(kind, relative, second_order):
    """Three optimizees: a third is no power of two, so a cotangent that was rounded to float32 would show."""
    penalty = get("smooth", epsilon=0.3, ascent_steps=3, weight=1e4, relative=relative)
    assert_equal_to_plain_autograd(kind, update={"smooth": penalty}, second_order=second_order)


@EVERY_WAY
def test_one_optimizee_and_several_give_the_same_meta_gradient():
    """A meta-batch of equal optimizees has the meta-gradient of one."""
    optimizer = LEARNED_OPTIMIZERS.create("rnnprop", hidden=5)
    objective = Objective(network_loss, optimizer, geometric={"gam": get("gam", rho=0.1)})
    phi, theta = make_phi(optimizer), make_theta(1)
    single = make_batches(4, 1, seed=2)
    one, _ = truncation(objective, phi, begin(objective, theta, single[0]), single[1:], [1.0] * 3, torch.Generator())
    many = [tuple(part.expand(3, *part.shape[1:]) for part in batch) for batch in single]
    carry = begin(objective, theta.expand(3, -1), many[0])
    three, _ = truncation(objective, phi, carry, many[1:], [1.0] * 3, torch.Generator())
    for name in phi:
        torch.testing.assert_close(three.gradient[name], one.gradient[name], rtol=1e-12, atol=1e-14)


@EVERY_WAY
def test_zero_weights_change_nothing_bit_for_bit():
    optimizer = LEARNED_OPTIMIZERS.create("simple")
    zero = {"geometric": {name: get(name, weight=0.0) for name in ("sam", "gam", "hessian_trace")}}
    zero |= {"update": {"smooth": get("smooth", weight=0.0)}, "parameter": {"l2": get("l2", weight=0.0)}}
    outcomes = []
    for penalties in ({}, zero):
        objective = Objective(network_loss, optimizer, **penalties)
        phi, theta = make_phi(optimizer), make_theta(2)
        first, *batches = make_batches(5, 2, seed=2)
        outcomes.append(
            truncation(objective, phi, begin(objective, theta, first), batches, [1.0] * 4, torch.Generator())
        )
    (plain, plain_carry), (penalized, carry) = outcomes
    assert all(torch.equal(plain.gradient[name], penalized.gradient[name]) for name in plain.gradient)
    assert torch.equal(plain_carry.theta, carry.theta)
    assert {"sam_penalty", "gam_penalty", "smooth_penalty", "l2_penalty"} <= set(penalized.figures)


@EVERY_WAY
def test_two_truncations_walk_the_trajectory_of_one():
    optimizer = LEARNED_OPTIMIZERS.create("rnnprop", hidden=5)
    objective = Objective(network_loss, optimizer)
    phi = make_phi(optimizer)
    first, *batches = make_batches(7, 2, seed=2)
    start = begin(objective, make_theta(2), first)
    _, whole = truncation(objective, phi, start, batches, [1.0] * 6, torch.Generator())
    _, half = truncation(objective, phi, start, batches[:3], [1.0] * 3, torch.Generator())
    _, rest = truncation(objective, phi, half, batches[3:], [1.0] * 3, torch.Generator())
    assert torch.equal(rest.theta, whole.theta)
    assert (rest.inner_step, rest.truncations) == (6, 2)


@EVERY_WAY
def test_penalty_share_is_the_ratio_of_gradient_norms():
    """SAM with rho = 0 is the loss once more: its share is its weight."""
    optimizer = LEARNED_OPTIMIZERS.create("simple")
    objective = Objective(network_loss, optimizer, geometric={"sam": get("sam", rho=0.0, weight=2.5)})
    first, *batches = make_batches(4, 2, seed=2)
    meta, _ = truncation(
        objective, make_phi(optimizer), begin(objective, make_theta(2), first), batches, [1.0] * 3, torch.Generator()
    )
    assert float(meta.figures["sam_penalty_share"]) == pytest.approx(2.5, rel=1e-12)
    assert float(meta.figures["sam_penalty"]) == pytest.approx(float(meta.figures["meta_loss"]), rel=1e-12)


def test_the_meta_loss_is_the_weighted_mean_in_double_precision():
    objective = Objective(network_loss, LEARNED_OPTIMIZERS.create("simple"))
    first, *batches = make_batches(4, 3, seed=2)
    factors = weights("decayed", 3)
    carry = begin(objective, make_theta(3), first)
    meta, _ = truncation(objective, make_phi(objective.optimizer), carry, batches, factors, torch.Generator())
    expected = (torch.tensor(factors, dtype=torch.float64) @ meta.losses).mean() / sum(factors)
    assert float(meta.figures["meta_loss"]) == pytest.approx(float(expected), rel=1e-14)


@EVERY_WAY
def test_random_scaling_is_training_in_scaled_coordinates():
    """theta = c z: the unroll on L(theta) with scaling c walks c times the unroll on z -> L(c z)."""
    optimizer = LEARNED_OPTIMIZERS.create("simple")
    scaling = torch.rand(2, PARAMETERS, dtype=F64, generator=torch.Generator().manual_seed(5)) + 0.5
    theta = make_theta(2)
    phi = make_phi(optimizer)
    first, *batches = make_batches(4, 2, seed=2)
    plain = Objective(network_loss, optimizer)
    _, scaled = truncation(
        plain, phi, begin(plain, theta, first, scaling=scaling), batches, [1.0] * 3, torch.Generator()
    )
    in_z = Objective(lambda z, batch: network_loss(z * batch[2], batch[:2]), optimizer)
    with_scale = [(*batch, scaling) for batch in (first, *batches)]
    _, inside = truncation(
        in_z, phi, begin(in_z, theta / scaling, with_scale[0]), with_scale[1:], [1.0] * 3, torch.Generator()
    )
    torch.testing.assert_close(scaled.theta, inside.theta * scaling, rtol=1e-12, atol=1e-12)


@EVERY_WAY
def test_a_diverging_optimizee_rests_and_spoils_nothing():
    """Losses past the cap, infinite or NaN: capped, counted once, and without a trace in the others' meta-gradient."""

    def loss(theta: Tensor, batch: Tensor) -> Tensor:
        return (batch * theta**2).sum()

    objective = Objective(loss, ScaledGradient(), divergence_cap=10.0)
    theta = torch.tensor([[1.5], [1.5], [1.5]], dtype=F64)
    calm = torch.ones(3, 1, dtype=F64)
    broken = [torch.tensor([[1.0], [1e3], [torch.nan]], dtype=F64)] + [calm] * 3
    phi = {"rate": torch.tensor(0.1, dtype=F64, requires_grad=True)}
    meta, carry = truncation(objective, phi, begin(objective, theta, calm), broken, [1.0] * 4, torch.Generator())
    assert carry.alive.tolist() == [True, False, False]
    assert torch.equal(meta.losses[1:, 1], torch.full((3,), 22.5, dtype=F64))
    alone, _ = truncation(
        objective, phi, begin(objective, theta[:1], calm[:1]), [calm[:1]] * 4, [1.0] * 4, torch.Generator()
    )
    # optimizee 1 counts once, where it passes the cap: 2 * 1000 * theta_1 * dtheta_1/dphi = 2000 * 1.2 * (-3)
    expected = (float(alone.gradient["rate"]) + 2000 * 1.2 * -3.0) / 3
    assert float(meta.gradient["rate"]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("kind", "way", "second_order", "loss_batch", "broken", "at"),
    in_turn(
        KINDS, [("next", torch.inf, 0), ("next", torch.nan, 3), ("same", torch.nan, 0), ("validation", torch.inf, 3)]
    ),
    indirect=["way"],
)
def test_meta_gradient_stays_finite_when_an_optimizee_breaks(kind, second_order, loss_batch, broken, at):
    """And the next truncation's, and it is what the sound optimizee gives alone."""
    optimizer = LEARNED_OPTIMIZERS.create(kind, theta_input=True)
    penalties = {
        "geometric": {"gam": get("gam", rho=0.1)},
        "update": {"smooth": get("smooth", ascent_steps=2, noise=1e-9, relative=True)},
    }
    objective = Objective(network_loss, optimizer, second_order=second_order, loss_batch=loss_batch, **penalties)
    phi = make_phi(optimizer)
    batches = make_batches(9, 2, seed=2)
    spoilt = batches[at][0] * torch.tensor([1.0, broken], dtype=F64)[:, None, None]
    batches[at] = (spoilt, batches[at][1])
    alone = [tuple(part[:1] for part in batch) for batch in batches]
    outcomes = []
    for theta, feed in ((make_theta(2), batches), (make_theta(2)[:1], alone)):
        start, window = (feed[0], feed[1:]) if loss_batch == "next" else (None, feed)
        carry, gradients = begin(objective, theta, start), []
        for first in (0, 4):
            part = window[first : first + 4]
            scoring = make_batches(4, len(theta), seed=9) if loss_batch == "validation" else None
            scoring = scoring and [tuple(p[:1].expand(len(theta), *p.shape[1:]) for p in batch) for batch in scoring]
            meta, carry = truncation(objective, phi, carry, part, [1.0] * 4, torch.Generator(), scoring=scoring)
            assert all(tensor.isfinite().all() and tensor.any() for tensor in meta.gradient.values())
            assert all(figure.isfinite() for figure in meta.figures.values())
            gradients.append(meta.gradient)
        outcomes.append((carry, gradients))
    assert outcomes[0][0].alive.tolist() == [True, False]
    torch.testing.assert_close(outcomes[0][0].theta[:1], outcomes[1][0].theta, rtol=1e-10, atol=1e-12)


@EVERY_WAY
@pytest.mark.parametrize("name", ["sam", "smooth"])
def test_a_relative_penalty_is_left_out_where_the_loss_is_zero(name):
    """A confident batch has loss 0 exactly; what is divided by it is left out and counted, and the loss stays."""

    def loss(theta: Tensor, batch: Tensor) -> Tensor:
        return batch.sum() * (theta**2).sum()

    penalty = get(name, relative=True, **({"ascent_steps": 1} if name == "smooth" else {}))
    kind = "update" if name == "smooth" else "geometric"
    optimizer = LEARNED_OPTIMIZERS.create("simple")
    objective = Objective(loss, optimizer, **{kind: {name: penalty}})
    phi = make_phi(optimizer)
    one, zero = torch.ones(2, 1, dtype=F64), torch.tensor([[1.0], [0.0]], dtype=F64)
    meta, carry = truncation(
        objective, phi, begin(objective, make_theta(2), one), [one, zero, one], [1.0] * 3, torch.Generator()
    )
    assert carry.alive.all() and float(meta.figures["dropped_terms"]) == 1
    assert all(tensor.isfinite().all() for tensor in meta.gradient.values())


def test_a_broken_penalty_of_weight_zero_changes_nothing():
    """It is logged where it can be, and drops neither the loss nor itself from the counts."""
    optimizer = LEARNED_OPTIMIZERS.create("simple")
    first, *batches = make_batches(4, 2, seed=2)
    gradients = []
    for penalties in ({}, {"geometric": {"sam": get("sam", rho=1e308, weight=0.0)}}):
        objective = Objective(network_loss, optimizer, **penalties)
        phi, carry = make_phi(optimizer), begin(objective, make_theta(2), first)
        meta, _ = truncation(objective, phi, carry, batches, [1.0] * 3, torch.Generator())
        assert float(meta.figures["counted_terms"]) == 6 and float(meta.figures["dropped_terms"]) == 0
        gradients.append(meta.gradient)
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


@pytest.mark.parametrize("start", [0, 4, 5, 9, 10])
def test_a_parameter_penalty_starts_with_the_truncation_that_holds_its_start(start):
    optimizer = LEARNED_OPTIMIZERS.create("simple")
    objective = Objective(network_loss, optimizer, parameter={"l2": get("l2", weight=1e6, start=start)})
    phi = make_phi(optimizer)
    first, *batches = make_batches(11, 1, seed=2)
    carry, sizes = begin(objective, make_theta(1), first), []
    for begin_at in (0, 5):
        meta, carry = truncation(objective, phi, carry, batches[begin_at : begin_at + 5], [1.0] * 5, torch.Generator())
        sizes.append(max(float(tensor.abs().max()) for tensor in meta.gradient.values()) > 1e4)
    assert sizes == [start < 5, start < 10]


def test_penalties_are_not_computed_where_the_loss_weighs_nothing():
    calls = []

    def loss(theta: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        calls.append(1)
        return network_loss(theta, batch)

    optimizer = LEARNED_OPTIMIZERS.create("simple")
    objective = Objective(loss, optimizer, geometric={"sam": get("sam")})
    first, *batches = make_batches(5, 1, seed=2)
    carry = begin(objective, make_theta(1), first)
    truncation(objective, make_phi(optimizer), carry, batches, weights("final", 4), torch.Generator())
    assert len(calls) == 1 + 4 + 1


def test_sam_and_gap_penalties_are_one_family():
    """L + w L_SAM = (1 + w) [L + w / (1 + w) gap], in the meta-gradient too."""
    optimizer = LEARNED_OPTIMIZERS.create("simple")
    first, *batches = make_batches(4, 2, seed=2)
    gradients = []
    for penalty, factor in ((get("sam", rho=0.1, weight=3.0), 1.0), (get("gsam", rho=0.1, weight=0.75), 4.0)):
        objective = Objective(network_loss, optimizer, geometric={penalty.name: penalty})
        phi = make_phi(optimizer)
        carry = begin(objective, make_theta(2), first)
        meta, _ = truncation(objective, phi, carry, batches, [factor] * 3, torch.Generator())
        gradients.append(meta.gradient)
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], rtol=1e-10, atol=1e-14)


def test_side_by_side_equals_one_by_one():
    theta, (batch,) = make_theta(4), make_batches(1, 4, seed=2)
    together = vmap(grad(network_loss))(theta, batch)
    for b in range(4):
        alone = grad(network_loss)(theta[b], tuple(part[b] for part in batch))
        torch.testing.assert_close(together[b], alone, rtol=1e-12, atol=1e-14)


@EVERY_WAY
def test_a_subclass_of_smooth_with_another_value_is_taken_at_its_word(way):
    class Doubled(type(get("smooth"))):
        def value(self, optimizer, phi, step, randomness):
            return 2 * super().value(optimizer, phi, step, randomness)

    optimizer = LEARNED_OPTIMIZERS.create("simple", hidden=3)
    batches = make_batches(3, 2, seed=5)
    found = []
    for penalty in (get("smooth", weight=1e4), Doubled(weight=1e4)):
        objective = Objective(network_loss, optimizer, update={"smooth": penalty})
        carry = begin(objective, make_theta(2), batches[0])
        generator = torch.Generator().manual_seed(3)
        meta, _ = truncation(objective, make_phi(optimizer), carry, batches, [1.0] * 3, generator)
        found.append(meta.figures["smooth_penalty"])
    assert found[1] == pytest.approx(2 * found[0])
