"""Every registered learned optimizer, and what is special about each."""

from __future__ import annotations

import math

import pytest
import torch
from members import KINDS

from engine.optimizers.learned.base import LEARNED_OPTIMIZERS
from engine.optimizers.learned.dm import log_sign

F64 = torch.float64


def make(kind: str, **settings):
    optimizer = LEARNED_OPTIMIZERS.create(kind, **settings)
    phi = {name: tensor.to(F64) for name, tensor in optimizer.init_phi(torch.Generator().manual_seed(0)).items()}
    return optimizer, phi


def trajectory(optimizer, phi, grads, theta):
    """Updates, [T, ..., P], for given gradients."""
    state, updates = optimizer.init(theta), []
    for grad in grads:
        update, state = optimizer.update(phi, theta, grad, state)
        theta = theta + update
        updates.append(update)
    return torch.stack(updates)


def random(*shape, seed=1):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def test_the_three_kinds_of_the_papers_are_there():
    assert set(KINDS) >= {"dm", "rnnprop", "simple"}


@pytest.mark.parametrize("theta_input", [False, True])
@pytest.mark.parametrize("kind", KINDS)
class TestEveryLearnedOptimizer:
    def test_is_a_pure_function(self, kind, theta_input):
        optimizer, phi = make(kind, theta_input=theta_input)
        theta, grad = random(3, 7), random(3, 7, seed=2)
        state = optimizer.init(theta)
        before = {name: tensor.clone() for name, tensor in state.items()}
        first = optimizer.update(phi, theta, grad, state)
        second = optimizer.update(phi, theta, grad, state)
        assert torch.equal(first[0], second[0]) and first[0].shape == theta.shape
        assert all(torch.equal(state[name], before[name]) for name in state)
        assert {name: tensor.shape for name, tensor in first[1].items()} == {n: t.shape for n, t in state.items()}

    def test_permuting_coordinates_permutes_updates(self, kind, theta_input):
        optimizer, phi = make(kind, theta_input=theta_input)
        theta, grads = random(9), random(4, 9, seed=2)
        order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
        plain = trajectory(optimizer, phi, grads, theta)
        permuted = trajectory(optimizer, phi, grads[:, order], theta[order])
        torch.testing.assert_close(permuted, plain[:, order], rtol=1e-12, atol=1e-14)

    def test_optimizees_side_by_side_do_not_see_each_other(self, kind, theta_input):
        optimizer, phi = make(kind, theta_input=theta_input)
        theta, grads = random(3, 5), random(4, 3, 5, seed=2)
        together = trajectory(optimizer, phi, grads, theta)
        for b in range(3):
            alone = trajectory(optimizer, phi, grads[:, b], theta[b])
            torch.testing.assert_close(together[:, b], alone, rtol=1e-12, atol=1e-14)

    def test_update_is_finite_for_every_finite_gradient(self, kind, theta_input):
        optimizer = LEARNED_OPTIMIZERS.create(kind, theta_input=theta_input)
        phi = optimizer.init_phi(torch.Generator().manual_seed(0))
        for size in (0.0, 1e-45, 1e-30, 1e30, 3e38):
            grads = torch.tensor([size, -size, 1.0, 0.0]).expand(3, 4)
            assert trajectory(optimizer, phi, grads, torch.zeros(4)).isfinite().all(), size

    def test_theta_matters_only_as_an_input(self, kind, theta_input):
        optimizer, phi = make(kind, theta_input=theta_input)
        grads = random(3, 6)
        here = trajectory(optimizer, phi, grads, torch.zeros(6, dtype=F64))
        there = trajectory(optimizer, phi, grads, torch.ones(6, dtype=F64))
        moves_theta = theta_input or optimizer.differentiates_theta
        assert torch.allclose(here, there, rtol=1e-9, atol=0) != moves_theta  # a difference of thetas is rounded

    def test_meta_parameters_repeat_with_the_seed(self, kind, theta_input):
        optimizer = LEARNED_OPTIMIZERS.create(kind, theta_input=theta_input)
        one, same, other = (optimizer.init_phi(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert any(not torch.equal(one[name], other[name]) for name in one)
        assert all(tensor.dtype == torch.float32 for tensor in one.values())


@pytest.mark.parametrize("kind", ["dm", "rnnprop"])
def test_adding_coordinates_changes_nothing_for_the_others(kind):
    optimizer, phi = make(kind)
    grads = random(4, 8)
    few = trajectory(optimizer, phi, grads[:, :5], torch.zeros(5, dtype=F64))
    many = trajectory(optimizer, phi, grads, torch.zeros(8, dtype=F64))
    torch.testing.assert_close(many[:, :5], few, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("grad", "expected"),
    [
        (1.0, (0.0, 1.0)),
        (math.exp(-5), (-0.5, 1.0)),
        (math.exp(-10), (-1.0, 1.0)),
        (math.exp(-11), (-1.0, 0.36787944)),
        (0.0, (-1.0, 0.0)),
        (-math.exp(-12), (-1.0, -0.13533528)),
        (-2.0, (0.06931472, -1.0)),
    ],
)
def test_log_sign_preprocessing(grad, expected):
    outcome = log_sign(torch.tensor(grad, dtype=F64), 10.0)
    assert [float(value) for value in outcome] == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("grad", [0.0, 1e-45, -1e-45, 1e38, -1e38, 3.4e38])
def test_log_sign_is_finite_in_float32(grad):
    assert all(value.isfinite() for value in log_sign(torch.tensor(grad), 10.0))


def test_dm_is_torchs_lstm_with_a_scaled_linear_head():
    optimizer, phi = make("dm", hidden=4, output_scale=0.03)
    grads = random(5, 6)
    reference = torch.nn.LSTM(2, 4, num_layers=2, dtype=F64)
    with torch.no_grad():
        for layer in range(2):
            getattr(reference, f"weight_ih_l{layer}").copy_(phi[f"lstm{layer}.input"].T)
            getattr(reference, f"weight_hh_l{layer}").copy_(phi[f"lstm{layer}.hidden"].T)
            getattr(reference, f"bias_ih_l{layer}").copy_(phi[f"lstm{layer}.bias"])
            getattr(reference, f"bias_hh_l{layer}").zero_()
        outputs, _ = reference(torch.stack(log_sign(grads, 10.0), dim=-1))
    expected = 0.03 * (outputs @ phi["head.weight"] + phi["head.bias"])[..., 0]
    updates = trajectory(optimizer, phi, grads, torch.zeros(6, dtype=F64))
    torch.testing.assert_close(updates, expected, rtol=1e-12, atol=1e-14)


def test_rnnprop_is_shown_adams_quantities():
    optimizer, _ = make("rnnprop")
    theta, grads = torch.zeros(3, dtype=F64), random(3, 3)
    state, mean, square = optimizer.init(theta), 0.0, 0.0
    for t, grad in enumerate(grads, start=1):
        features, state = optimizer.observe(theta, grad, state)
        mean, square = 0.95 * mean + 0.05 * grad, 0.95 * square + 0.05 * grad**2
        scale = (square / (1 - 0.95**t)).sqrt() + 1e-8
        expected = torch.stack([grad / scale, mean / (1 - 0.95**t) / scale], dim=-1)
        torch.testing.assert_close(features, expected, rtol=1e-12, atol=1e-14)


def test_rnnprop_updates_stay_below_the_output_scale():
    optimizer, phi = make("rnnprop", output_scale=0.02)
    updates = trajectory(optimizer, {n: 50 * t for n, t in phi.items()}, random(9, 50), torch.zeros(50, dtype=F64))
    assert 0.019 < updates.abs().max() <= 0.02


def test_simple_has_440_meta_parameters_and_no_bias():
    _, phi = make("simple")
    assert sum(tensor.numel() for tensor in phi.values()) == 440


def test_simple_is_torchs_rnn_on_the_normalised_gradient():
    optimizer, phi = make("simple")
    grads = random(5, 6)
    reference = torch.nn.RNN(1, 20, bias=False, dtype=F64)
    with torch.no_grad():
        reference.weight_ih_l0.copy_(phi["rnn.input"].T)
        reference.weight_hh_l0.copy_(phi["rnn.hidden"].T)
        normalised = grads / ((grads**2).mean(-1, keepdim=True) + 1e-5).sqrt()
        expected = (reference(normalised[..., None])[0] @ phi["head.weight"])[..., 0]
    torch.testing.assert_close(trajectory(optimizer, phi, grads, grads[0]), expected, rtol=1e-12, atol=1e-14)


def test_simple_is_odd_still_at_zero_and_blind_to_the_gradients_scale():
    optimizer, phi = make("simple")
    zero, grads = torch.zeros(6, dtype=F64), random(4, 6)
    updates = trajectory(optimizer, phi, grads, zero)
    assert torch.equal(trajectory(optimizer, phi, -grads, zero), -updates)
    assert not trajectory(optimizer, phi, torch.zeros_like(grads), zero).any()
    torch.testing.assert_close(trajectory(optimizer, phi, 1000 * grads, zero), updates, rtol=1e-3, atol=1e-8)
