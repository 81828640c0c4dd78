"""The [objective] table: what of an unroll is meta-trained for. Terms of its end are tables below it."""

from __future__ import annotations

from dataclasses import dataclass

from engine.base.settings import setting


@dataclass(frozen=True)
class ObjectiveSettings:
    """The [objective] table, but for its terms."""

    loss: str = setting(
        "mean",
        choices=("mean", "last", "minimum"),
        help="which loss counts: the mean along the unroll (meta.weights), its last one, or its lowest (es, pes)",
    )
    batches: int = setting(
        0,
        minimum=0,
        maximum=10_000,
        help="fresh batches that loss = last is measured on (es, pes); 0: the last one of the unroll",
    )
    split: str = setting("train", choices=("train", "validation"), help="what these batches are drawn from")
    log: bool = setting(False, help="the logarithm of the loss counts, so that every task weighs the same (es, pes)")
