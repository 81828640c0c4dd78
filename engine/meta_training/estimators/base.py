"""The contract of a gradient estimator: how a meta-gradient is had from optimizees under way.

It sees a group of B optimizees of one task. What they contribute adds up (`PartialGradient`): over groups, and over the
processes that share a meta-batch out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from engine.base.arguments import plain
from engine.base.flat import Batch
from engine.base.registry import Registry
from engine.meta_training.objective import Objective
from engine.meta_training.partial_gradient import PartialGradient
from engine.meta_training.unroll import UnrollState
from engine.optimizers.learned.base import Phi
from engine.penalties.base import Randomness
from engine.tasks.base import Batches


@dataclass(frozen=True, kw_only=True, eq=False)
class GradientEstimator:
    """A member gives `begin` and `estimate`. What goes from one truncation to the next is constants: `UnrollState`."""

    name: ClassVar[str]

    second_order: ClassVar[bool] = False  # whether the gradient knows that a step changes the gradients to come

    def on(self, device: torch.device) -> GradientEstimator:
        """The estimator as it works on a device."""
        return self

    def begin(
        self, objective: Objective, theta: Tensor, batch: Batch | None, *, scaling: Tensor | None, horizon: int | None
    ) -> UnrollState:
        """The state at inner step 0 of optimizees at theta, [B, P]; `batch` gives the first gradient."""
        raise NotImplementedError

    def estimate(
        self,
        objective: Objective,
        phi: Phi,
        carry: UnrollState,
        batches: Batches,
        factors: Sequence[float],
        randomness: Randomness,
        *,
        scoring: Batches | None = None,
    ) -> tuple[PartialGradient, UnrollState]:
        """Take len(factors) inner steps from `carry`: what they contribute to the meta-gradient, and the next carry.

        phi's tensors require gradients. `factors` weigh the losses along the truncation, `scoring` are the batches of
        loss_batch = validation.
        """
        raise NotImplementedError

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> UnrollState:
        """The carry of a checkpoint. Raises KeyError where it does not fit."""
        return UnrollState.restored(tensors, facts)


ESTIMATORS: Registry[GradientEstimator] = Registry("estimator", "engine.meta_training.estimators")


def get(name: str, **settings: Any) -> GradientEstimator:
    """An estimator by name, its settings checked. Raises SettingsError that names the field."""
    return ESTIMATORS.create(name, **{key: plain(value) for key, value in settings.items()})
