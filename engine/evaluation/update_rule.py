"""The update function of a learned optimizer near a zero gradient, as numbers and as a curve (Xiong & Hsieh, Fig. 7).

A smooth learned optimizer answers small inputs with small updates, and near inputs with near updates.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from engine.optimizers.learned.base import LearnedOptimizer, Phi, StepInfo
from engine.tasks.base import Layout

CURVE_POINTS = 201  # enough for a smooth figure, and an odd number, so that the centre and the median are among them
HALF_WIDTH = 0.5  # of the slice
PAIRS_AT_ONCE = 2**20


@torch.no_grad()
def describe(
    optimizer: LearnedOptimizer, phi: Phi, *, points: int = 1000, seed: int = 0, spread: float = 0.1
) -> dict[str, Any]:
    """Updates at random inputs about the zero state, in float64 on the CPU, as values for JSON.

    Why: docs/method.md#the-update-rule-near-zero.

    The zero state: the features that `optimizer` observes at theta = 0 with gradient 0 before the first step, and its
    initial optimizer state. The features made of the current gradient get independent normal noise. The paper's
    N(0, 0.1) is read as standard deviation 0.1 (`spread`). Each point is an optimizee of one coordinate.

    Returns "points", "seed", "spread", "center" (the features, one number each), "center_update"; over all points the
    "mean" and "std" of the updates and "max", the largest size of one; "lipschitz", the largest |u - u'| / |s - s'|
    (L2) over all pairs that do not coincide; "outputs": {"quantile": [...], "update": [...]}, the sorted updates at no
    more than 201 evenly spaced quantiles in [0, 1]; "slice": {"feature": [...], "update": [...]}, the update while the
    first feature runs from 0.5 below to 0.5 above its centre and the others rest. A figure that is not finite is None.
    Raises ValueError for fewer than two points or a spread that is not positive and finite.
    """
    if points < 2:
        raise ValueError(f"points must be at least 2, found {points!r}")
    if not 0 < spread < math.inf:
        raise ValueError(f"spread must be a positive number, found {spread!r}")
    phi = {name: tensor.detach().to("cpu", torch.float64) for name, tensor in phi.items()}
    center = _zero_features(optimizer)
    cloud = center.repeat(points, 1)  # [points, F]
    noise = torch.randn(
        points, optimizer.gradient_features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    cloud[:, : optimizer.gradient_features] += spread * noise
    line = center.repeat(CURVE_POINTS, 1)
    half = CURVE_POINTS // 2
    line[:, 0] += HALF_WIDTH * torch.arange(-half, half + 1) / half  # exactly 0 in the middle, unlike linspace
    updates = _updates(optimizer, phi, cloud)
    quantiles = torch.linspace(0, 1, min(CURVE_POINTS, points), dtype=torch.float64)
    return {
        "points": points,
        "seed": seed,
        "spread": spread,
        "center": _numbers(center),
        "center_update": _numbers(_updates(optimizer, phi, center[None]))[0],
        "mean": _number(updates.mean()),
        "std": _number(updates.std()),
        "max": _number(updates.abs().max()),
        "lipschitz": _number(_lipschitz(cloud, updates)),
        "outputs": {"quantile": _numbers(quantiles), "update": _numbers(updates.quantile(quantiles))},
        "slice": {"feature": _numbers(line[:, 0]), "update": _numbers(_updates(optimizer, phi, line))},
    }


def _zero_features(optimizer: LearnedOptimizer) -> Tensor:
    """What the network is shown of a zero parameter with a zero gradient at the first step, shape [F]."""
    zero = torch.zeros(1, dtype=torch.float64)
    layout = Layout({"theta": (1,)})
    return optimizer.observe(zero, zero, optimizer.init(zero, layout), layout, StepInfo(zero[0], 0))[0][0]


def _updates(optimizer: LearnedOptimizer, phi: Phi, features: Tensor) -> Tensor:
    """The first update, [points], for features [points, F]: an optimizee of one coordinate for each."""
    state = optimizer.init(features.new_zeros(len(features), 1), Layout({"theta": (1,)}))
    return optimizer.step(phi, features[:, None], state)[0][:, 0]


def _lipschitz(features: Tensor, updates: Tensor) -> Tensor:
    """Largest |u - u'| / |s - s'| over pairs of different features, [points, F], with updates [points]; a scalar.

    Differences are taken directly: the distance by inner products would lose the pairs that are close.
    """
    steepest = updates.new_zeros(())
    for chosen in torch.arange(len(features)).split(max(1, PAIRS_AT_ONCE // features.numel())):
        distance = (features[chosen, None] - features).norm(dim=-1)  # [chosen, points]
        change = (updates[chosen, None] - updates).abs()
        ratio = change / torch.where(distance > 0, distance, torch.inf)
        steepest = torch.maximum(steepest, ratio.max())  # carries NaN on
    return steepest


def _number(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _numbers(values: Tensor) -> list[float | None]:
    return [_number(value) for value in values]
