"""One truncation of a scene's work: our way, and the reference's."""

from __future__ import annotations

from torch import Tensor

from engine.bench import reference
from engine.bench.scene import Scene
from engine.evaluation.transfer import frozen_unroll
from engine.optimizers.learned.base import Phi


def run(place: Scene) -> Phi | Tensor:
    """Our way: the meta-gradient; of a frozen optimizer theta after the truncation, [B, P]."""
    if place.piece.work == "frozen":
        return frozen(place)
    return meta_gradient(place)


def meta_gradient(place: Scene) -> Phi:
    """The meta-gradient, a mean over the optimizees."""
    given = (place.objective, place.phi, place.carry, place.window, [1.0] * place.steps, place.generator())
    partial, _, carry = place.run_truncation(*given)
    return partial.meta_gradient(place.objective, place.phi, carry.inner_step - 1)[0]


def frozen(place: Scene) -> Tensor:
    """theta, [B, P], where the frozen learned optimizer takes the optimizees."""
    theta = place.carry.theta
    for step in frozen_unroll(place.task, place.optimizer, place.phi, place.numbers, place.steps):
        theta = step[1]
    return theta


def run_eager(place: Scene) -> object:
    """The reference's way, for the first optimizee."""
    return reference.frozen(place, 0) if place.piece.work == "frozen" else reference.meta_gradient(place, 0)
