"""The update-rule view: a linear optimizer in closed form, and what is known of the members."""

from __future__ import annotations

import json
import math

import pytest
import torch
from members import KINDS

from engine.evaluation.update_rule import describe
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS, LearnedOptimizer


class Linear(LearnedOptimizer):
    """u = w . (g, 2 g, theta) + b, the first two features made of the gradient."""

    name = "linear"
    gradient_features = 2

    def init(self, theta):
        return {}

    def observe(self, theta, grad, state):
        return torch.stack([grad, 2 * grad, theta], dim=-1), state

    def step(self, phi, features, state):
        return features @ phi["weight"] + phi["bias"], state


def linear(*weight: float, bias: float = 0.0):
    return Linear(), {"weight": torch.tensor(weight), "bias": torch.tensor(bias)}


def simple(seed: int = 0, **settings):
    rule = LEARNED_OPTIMIZERS.create("simple", **settings)
    return rule, rule.init_phi(torch.Generator().manual_seed(seed))


def test_a_linear_optimizer_in_closed_form():
    """u = w . s + b with s ~ N(0, 0.2² I): std 0.2 |w|, Lipschitz constant |w| in the gradient's features alone."""
    view = describe(*linear(3.0, -4.0, 100.0, bias=0.5), points=4000, spread=0.2)
    assert view["std"] == pytest.approx(0.2 * 5, rel=0.05)
    assert view["mean"] == pytest.approx(0.5, abs=4 * 0.2 * 5 / math.sqrt(4000))
    assert view["lipschitz"] == pytest.approx(5, rel=1e-3) and view["lipschitz"] <= 5 + 1e-6
    assert view["center"] == [0, 0, 0] and view["center_update"] == 0.5
    for feature, update in zip(view["slice"]["feature"], view["slice"]["update"], strict=True):
        assert update == pytest.approx(0.5 + 3 * feature, abs=1e-12)
    assert (view["slice"]["feature"][0], view["slice"]["feature"][-1]) == (-0.5, 0.5)


def test_quantiles_are_those_of_all_updates():
    """One feature with slope 2: the quantiles of u - b over 2 spread are those of a standard normal."""
    view = describe(*linear(2.0, 0.0, 0.0, bias=1.0), points=8000)
    quantile, update = view["outputs"]["quantile"], view["outputs"]["update"]
    assert len(quantile) == len(update) == 201 and (quantile[0], quantile[100], quantile[-1]) == (0, 0.5, 1)
    normal = torch.distributions.Normal(0.0, 1.0)
    for chosen in (20, 60, 100, 140, 180):
        expected = 1 + 2 * 0.1 * float(normal.icdf(torch.tensor(quantile[chosen])))
        assert update[chosen] == pytest.approx(expected, abs=0.02)  # 5 standard errors
    assert update == sorted(update) and view["max"] == pytest.approx(max(abs(update[0]), abs(update[-1])), rel=1e-12)


def test_simple_is_odd_and_its_constant_is_the_slope_at_zero():
    """u(s) = c tanh(a s) . h: odd, zero at zero, |u(s)-u(s')| / |s-s'| <= sum |a_i h_i|; scaled by output_scale."""
    rule, phi = simple()
    view = describe(rule, phi)
    update = view["slice"]["update"]
    assert view["center_update"] == update[100] == 0 and view["center"] == [0]
    assert update == pytest.approx([-value for value in reversed(update)], abs=1e-15)
    bound = float((phi["rnn.input"][0].abs() * phi["head.weight"][:, 0].abs()).double().sum())
    assert 0 < view["lipschitz"] <= bound
    step = (update[101] - update[99]) / (view["slice"]["feature"][101] - view["slice"]["feature"][99])
    assert step == pytest.approx(float((phi["rnn.input"][0] * phi["head.weight"][:, 0]).sum()), rel=1e-3)
    larger = describe(*simple(output_scale=3.0))
    for figure in ("std", "max", "lipschitz"):
        assert larger[figure] == pytest.approx(3 * view[figure], rel=1e-9)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("theta_input", [False, True])
def test_every_member_is_described_in_json(name, theta_input):
    """The centre is what a zero gradient looks like (for `dm` not the zero vector), and only the gradient varies."""
    rule = LEARNED_OPTIMIZERS.create(name, theta_input=theta_input)
    view = describe(rule, rule.init_phi(torch.Generator().manual_seed(1)), points=50)
    assert json.loads(json.dumps(view, allow_nan=False)) == view
    zero = torch.zeros(1, dtype=torch.float64)
    assert view["center"] == rule.observe(zero, zero, rule.init(zero))[0][0].tolist()
    assert len(view["outputs"]["update"]) == 50 and len(view["slice"]["update"]) == 201
    assert view["max"] >= abs(view["mean"]) and view["std"] > 0 and view["lipschitz"] > 0


def test_the_same_seed_gives_the_same_points():
    assert describe(*simple(), seed=3) == describe(*simple(), seed=3)
    assert describe(*simple(), seed=3)["std"] != describe(*simple(), seed=4)["std"]


def test_pairs_in_portions_are_all_pairs(monkeypatch):
    from engine.evaluation import update_rule

    whole = describe(*simple(1), points=300)["lipschitz"]
    monkeypatch.setattr(update_rule, "PAIRS_AT_ONCE", 700)
    assert describe(*simple(1), points=300)["lipschitz"] == whole


def test_coincident_points_do_not_count():
    """A rule whose gradient features are all alike but a jump elsewhere: 0 / 0 is left out, not NaN."""

    class Rounded(Linear):
        def step(self, phi, features, state):
            return features[..., 0].round(), state

    view = describe(Rounded(), {}, points=30, spread=1e-300)  # most differences underflow in the norm
    assert view["lipschitz"] == 0 and view["max"] == 0


def test_broken_meta_parameters_give_none_not_nan():
    rule, phi = simple()
    phi["head.weight"][0] = torch.nan
    view = describe(rule, phi, points=20)
    json.dumps(view, allow_nan=False)
    assert view["std"] is view["max"] is view["lipschitz"] is view["mean"] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"points": 1}, "points"), ({"spread": 0.0}, "spread"), ({"spread": math.nan}, "spread")],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        describe(*simple(), **settings)
