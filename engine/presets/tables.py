"""The tables [meta], [objective] and [evaluation] of a preset; terms of the objective are in [objective.terms]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.base.registry import Registry
from engine.base.settings import setting

ESTIMATORS: Registry[Any] = Registry("estimator", "engine.meta_training.estimators")
"""Of the meta-gradient. Presets pick one by name; what it does is above them, in `engine.meta_training`."""

ON_FRESH_BATCHES = ("last_many", "validation")
AT_THE_END = ("last", *ON_FRESH_BATCHES)
"""Losses that are those of the point at which an unroll ends."""
WITHOUT_DERIVATIVE = ("minimum",)
"""Losses for estimators that need no derivative alone."""


@dataclass(frozen=True)
class MetaSettings:
    """The [meta] table."""

    epochs: int = setting(100, minimum=0, help="meta-epochs; one is meta_batch optimizees trained from scratch")
    inner_steps: int | tuple[int, ...] = setting(
        100, minimum=1, maximum=10**7, help="inner steps of an unroll; a growing list is a curriculum"
    )
    truncation: int = setting(20, minimum=1, help="inner steps between two meta-steps; longer is less short-sighted")
    weights: str = setting(
        "uniform",
        choices=("uniform", "linear", "decayed", "final", "xh_code"),
        help="how the losses along a truncation add up to the meta-loss",
    )
    weights_decay: float = setting(0.9, above=0.0, maximum=1.0, help="factor per inner step of weights = decayed")
    loss_batch: str = setting(
        "next",
        choices=("next", "same", "validation"),
        help="batch that scores new parameters: the next gradient's (free), the last gradient's, or a held-out one",
    )
    staggered: int = setting(
        1,
        minimum=1,
        maximum=1000,
        help="meta-epochs side by side, their starts spread over an unroll",
    )
    meta_batch: int = setting(1, minimum=1, maximum=100_000, help="optimizees that are trained side by side")
    learn_start: bool = setting(
        False, help="the initial parameters of optimizees are meta-trained, too (tbptt, second_order; one layout)"
    )
    init_from: str = setting("", help="run whose learned optimizer to start from; empty: a fresh one")
    optimizer: str = setting("adam", choices=("adam", "sgd"), help="what takes the meta-step")
    learning_rate: float = setting(1e-3, above=0.0, maximum=1e3, help="learning rate of the meta-step")
    momentum: float = setting(0.0, minimum=0.0, maximum=1.0, help="momentum of optimizer = sgd")
    schedule: str = setting(
        "constant", choices=("constant", "linear", "cosine"), help="learning rate over the meta-epochs, down to zero"
    )
    average: float = setting(
        0.0,
        minimum=0.0,
        maximum=1.0,
        help="last part of the meta-epochs whose mean meta-parameters are the result; 0: those best on validation",
    )
    clip: str = setting("norm", choices=("norm", "value", "none"), help="how the meta-gradient is clipped")
    clip_at: float = setting(1.0, above=0.0, help="largest norm, or largest value, of the meta-gradient")
    second_order: bool = setting(False, help="the same as estimator = second_order")
    random_scaling: float = setting(
        0.0, minimum=0.0, maximum=10.0, help="r: optimizees are scaled by exp(U(-r, r)) while meta-training"
    )
    random_scaling_of: str = setting(
        "coordinate",
        choices=("coordinate", "tensor", "network"),
        help="what of an optimizee has a random scale of its own",
    )
    divergence_cap: float = setting(10.0, above=1.0, help="an unroll ends when its loss passes this many first losses")
    max_skipped: float = setting(
        0.05,
        minimum=0.0,
        maximum=1.0,
        help="share of meta-steps that may be skipped as not finite before the run fails",
    )
    checkpoint_every: float = setting(20.0, above=0.0, help="seconds between two checkpoints")

    @property
    def stages(self) -> tuple[int, ...]:
        """The lengths of unrolls, one after another."""
        return stages(vars(self))


def stages(meta: Mapping[str, Any]) -> tuple[int, ...]:
    """The lengths of unrolls by a [meta] table, one after another."""
    steps = meta["inner_steps"]
    return tuple(steps) if isinstance(steps, (list, tuple)) else (steps,)


@dataclass(frozen=True)
class ObjectiveSettings:
    """The [objective] table, but for its terms."""

    loss: str = setting(
        "mean",
        choices=("mean", "last", "minimum", "last_many", "validation"),
        help="which loss counts: the mean along the unroll (meta.weights), its last one, its lowest, the last one on "
        "many fresh training batches, or on batches of held-out examples",
    )
    batches: int = setting(
        10,
        minimum=1,
        maximum=10_000,
        help="fresh batches that last_many and validation are measured on; means nothing for the other losses",
    )
    log: bool = setting(False, help="the logarithm of the loss counts, so that every task weighs the same (es, pes)")


@dataclass(frozen=True)
class EvaluationSettings:
    """The [evaluation] table."""

    every: int = setting(10, minimum=1, help="meta-epochs between two evaluations")
    optimizees: int = setting(4, minimum=1, maximum=10_000, help="held-out optimizees in every evaluation")
    radius: float = setting(
        0.05, above=0.0, as_typed=True, help="radius of the sharpness figures recorded while meta-training"
    )
    radii: tuple[float, ...] = setting(
        (0.001, 0.005, 0.01, 0.05, 0.1),
        above=0.0,
        as_typed=True,
        help="radii of the sharpness figures of transfer evaluations",
    )
    adaptive_radius: float = setting(
        0.5,
        above=0.0,
        as_typed=True,
        help="radius of adaptive sharpness: the perturbation's L2 norm in units of |theta|",
    )
    examples: int = setting(1000, minimum=1, help="training examples that the sharpness figures are measured on")
    restarts: int = setting(3, minimum=1, maximum=10_000, help="starts of each search for the worst point of a ball")
    ascent_steps: int = setting(20, minimum=1, help="ascent steps of each search for the worst point of a ball")
    precision: str = setting(
        "float64",
        choices=("float64", "float32"),
        help="of the sharpness figures: searches in float32 that end in float64, or float32 alone, which is rough "
        "below radius 0.01",
    )
    extended: bool = setting(
        True,
        help="transfer evaluations measure the Hessian's trace and the l-infinity ball, too: twice the time",
    )
    final_optimizees: int = setting(
        5, minimum=0, maximum=10_000, help="fresh optimizees in the result table; 0: no table"
    )
