"""The [objective] table: what of an unroll is meta-trained for. Terms of its end are tables in [objective.terms]."""

from __future__ import annotations

from dataclasses import dataclass

from engine.base.settings import setting

ON_FRESH_BATCHES = ("last_many", "validation")
AT_THE_END = ("last", *ON_FRESH_BATCHES)
"""Losses that are those of the point at which an unroll ends."""
WITHOUT_DERIVATIVE = ("minimum",)
"""Losses for estimators that need no derivative alone."""


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
