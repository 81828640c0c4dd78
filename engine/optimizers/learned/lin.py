"""lin: a linear map of nine features with a learned schedule, small enough for evolution strategies."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Generator, Tensor

from engine.base.settings import setting
from engine.optimizers.learned import features as input_features
from engine.optimizers.learned.base import (
    LEARNED_OPTIMIZERS,
    LearnedOptimizer,
    Phi,
    State,
    StepInfo,
    fraction_of,
    uniform,
)

KNOTS = 4  # of the schedule, at t/T = 0, 1/3, 2/3, 1
ADAM = 4  # place of m.9 / sqrt v among the features
SPREAD = 0.01  # of the fresh meta-parameters about Adam
STEEPNESS = 10.0  # of the feature that a bare gradient is


@LEARNED_OPTIMIZERS.register("lin")
class Lin(LearnedOptimizer):
    """u = scale · exp(schedule(t/T)) · Σₖ (cₖ + eₖ t/T) fₖ: 22 meta-parameters (docs/method.md#learned-optimizers).

    f = g/s, m.9/s, m.99/s, g/√v, m.9/√v, m.99/√v, 10 g, the last update over its root mean square, θ; s² is the mean
    of v over all coordinates. The schedule is linear between 4 knots. A fresh one is Adam at a constant step: c is -1
    for m.9/√v; all else is U(-0.01, 0.01). It needs no hidden units. Where nobody knows T, t/T is 0.

    θ and the last update feed back: a positive coefficient makes them grow along the unroll, for tensors whose steps
    are larger than most (step_scale) faster than 1 / T. `theta_input` and `previous_update` leave them out.
    """

    coordinatewise: ClassVar[bool] = True
    gradient_features: ClassVar[int] = 1

    theta_input: bool = setting(True, help="have the parameter itself as one of the features")
    previous_update: bool = setting(True, help="have the last update over its root mean square as one of the features")
    output_scale: float = setting(0.02, above=0.0, help="factor of the update: the fresh optimizer's step size")

    def init_phi(self, generator: Generator) -> Phi:
        features = 7 + self.previous_update + self.extra_inputs
        head = uniform((2 * features,), SPREAD, generator)  # c, then e; no matrix between units
        head[ADAM] -= 1.0
        return {"schedule": uniform((KNOTS,), SPREAD, generator), "head.weight": head}

    def init(self, theta: Tensor) -> State:
        moments = input_features.moments_at_start(theta)
        state = moments | input_features.theta_kept(theta) | self.extra_state(theta)
        return state | {"time": theta.new_zeros(())}

    def observe(self, theta: Tensor, grad: Tensor, state: State, info: StepInfo | None = None) -> tuple[Tensor, State]:
        """The features; the state's time is t/T, the same for all coordinates."""
        extra, extra_state = self.extra_features(theta, grad, state, info)
        means, square, state = input_features.moments(grad, state)
        update, state = input_features.previous_update(theta, state)
        last_updates = [update] if self.previous_update else []
        grad = input_features.bounded(grad)
        directions = [grad, *means]
        overall = (square.mean(-1, keepdim=True) + input_features.FLOOR).sqrt()
        each = (square + input_features.FLOOR).sqrt()
        features = [direction / scale for scale in (overall, each) for direction in directions]
        features += [STEEPNESS * grad, *last_updates, *extra]
        return self.with_theta(features, theta), {**extra_state, **state, "time": fraction_of(info, theta)}

    def step(self, phi: Phi, features: Tensor, state: State) -> tuple[Tensor, State]:
        coefficients = self.coefficients(phi, state["time"]).to(features.dtype)
        if coefficients.dim() > 1:  # optimizees that are at different parts of their unrolls
            return (features * coefficients).sum(-1), state
        by_feature = features.movedim(-1, 0)
        return (coefficients @ by_feature.flatten(1)).view(by_feature.shape[1:]), state

    def coefficients(self, phi: Phi, fraction: Tensor) -> Tensor:
        """What the features are multiplied by at t/T, [K]; [..., 1, K] for t/T [..., 1], [M, K] for phi [M, ...]."""
        fixed, slope = phi["head.weight"].chunk(2, -1)
        size = self.output_scale * schedule(phi["schedule"], fraction).exp()
        return size[..., None] * (fixed + fraction[..., None] * slope)

    @property
    def is_plain(self) -> bool:
        """Whether a kernel that knows the nine features computes it."""
        return type(self) is Lin and self.theta_input and self.previous_update and not self.features


def schedule(knots: Tensor, fraction: Tensor) -> Tensor:
    """The line through the knots, [K], evenly spaced over [0, 1], at a fraction, [...]."""
    places = torch.arange(knots.shape[-1], device=knots.device, dtype=knots.dtype)
    near = (1 - ((knots.shape[-1] - 1) * fraction[..., None] - places).abs()).clamp_min(0.0)  # [..., K]
    return (near * knots).sum(-1)
