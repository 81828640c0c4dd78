"""A truncation with all that tests look at: the meta-gradient, the metrics, the losses."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.meta_training.inner_steps import Inputs, UnrollState
from engine.meta_training.unroll import Truncation
from engine.optimizers.learned.base import Phi


class MetaGradient(NamedTuple):
    gradient: Phi
    figures: dict[str, Tensor]
    losses: Tensor  # [T, B], not above the divergence cap


def truncation(objective, phi, carry, batches, factors, randomness, **more: Any) -> tuple[MetaGradient, UnrollState]:
    """The meta-gradient of the inner steps of some batches, averaged over the optimizees, and the next carry."""
    under_way = Truncation(objective, phi, carry, Inputs(batches, factors, randomness, **more))
    under_way.run()
    gradient, metrics = under_way.partial().meta_gradient(objective, phi, under_way.number - 1)
    carry = under_way.carry_on()
    under_way.backward.close()
    return MetaGradient(gradient, metrics, torch.stack(under_way.losses)), carry
