"""Input features that any learned optimizer can be given beside its own: `features = ["time", "momenta"]`.

They are made of theta, the gradient and a state of their own, so `observe` makes them and no network writes them:

    time             t / T, the share of the unroll that is done; 0 where nobody knows T
    momenta          m.9 / √v and m.99 / √v
    normalised       g / √v
    previous_update  Δ / √(mean Δ²), the mean over all coordinates: how theta moved, whatever moved it

m.9, m.99 and v, of g², are exponential means of decays 0.9, 0.99 and 0.99 with Adam's correction of their start
(arXiv:1412.6980, algorithm 1). Both roots have 1e-16 under them, so what is well below 1e-8 fades; there is no
derivative that is infinite. Gradients beyond 1e15 are taken for that, so that squares stay finite in float32.

Shape letters: P parameters, F features.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

NAMES = ("time", "momenta", "normalised", "previous_update")
MOMENTA = (0.9, 0.99)  # decays of the gradient's means
SQUARE = 0.99  # decay of the mean of its square
FLOOR = 1e-16
LARGEST = 1e15
_WIDTHS = {"momenta": len(MOMENTA)}

FeatureState = dict[str, Tensor]
"""The part of an optimizer state that the features need, names prefixed "features."."""


def width(names: Collection[str]) -> int:
    """F, how many numbers these features are for each coordinate."""
    return sum(_WIDTHS.get(name, 1) for name in names)


def init(names: Collection[str], theta: Tensor) -> FeatureState:
    """The state before the first step at theta, [..., P]."""
    state: FeatureState = {}
    if {"momenta", "normalised"} & set(names):
        state |= moments_at_start(theta)
    if "previous_update" in names:
        state |= theta_kept(theta)
    return state


def observe(
    names: Collection[str], theta: Tensor, grad: Tensor, state: FeatureState, fraction: Tensor
) -> tuple[list[Tensor], FeatureState]:
    """The features, [..., P] each, in the order of `NAMES`, and the state moved on. `fraction` is t / T."""
    features: list[Tensor] = []
    if "time" in names:
        features.append(fraction.expand_as(theta))
    if {"momenta", "normalised"} & set(names):
        means, square, state = moments(grad, state)
        scale = (square + FLOOR).sqrt()
        features += [mean / scale for mean in means] if "momenta" in names else []
        features += [bounded(grad) / scale] if "normalised" in names else []
    if "previous_update" in names:
        update, state = previous_update(theta, state)
        features.append(update)
    return features, state


def bounded(grad: Tensor) -> Tensor:
    return grad.clamp(-LARGEST, LARGEST)


def moments_at_start(theta: Tensor) -> FeatureState:
    return {
        "features.means": theta.new_zeros(*theta.shape, len(MOMENTA)),
        "features.square": torch.zeros_like(theta),
        "features.time": torch.zeros_like(theta),  # of each coordinate: torch's parameters may be of different ages
    }


def moments(grad: Tensor, state: FeatureState) -> tuple[list[Tensor], Tensor, FeatureState]:
    """The means of the gradient, [..., P] for each of `MOMENTA`, and of its square, corrected, and the state moved on.

    Only what belongs to the moments changes in the state.
    """
    grad, time = bounded(grad), state["features.time"] + 1
    means = [
        decay * mean + (1 - decay) * grad
        for decay, mean in zip(MOMENTA, state["features.means"].unbind(-1), strict=True)
    ]
    square = SQUARE * state["features.square"] + (1 - SQUARE) * grad**2
    state = {
        **state,
        "features.means": torch.stack(means, -1),
        "features.square": square,
        "features.time": time,
    }
    corrected = [mean / _correction(decay, time) for decay, mean in zip(MOMENTA, means, strict=True)]
    return corrected, square / _correction(SQUARE, time), state


def _correction(decay: float, time: Tensor) -> Tensor:
    """1 - decay^time, several times faster than by a power."""
    return 1 - (math.log(decay) * time).exp()


def theta_kept(theta: Tensor) -> FeatureState:
    return {"features.theta": theta.clone()}  # which its owner may change in place


def previous_update(theta: Tensor, state: FeatureState) -> tuple[Tensor, FeatureState]:
    """How theta moved since the last step over its root mean square, [..., P]; 0 before the first."""
    change = theta - state["features.theta"]
    normalised = change * ((change**2).mean(-1, keepdim=True) + FLOOR).rsqrt()
    return normalised, {**state, **theta_kept(theta)}
