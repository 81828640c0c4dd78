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

from engine.base.flat import Batch
from engine.meta_training.inner_steps import Inputs, UnrollState
from engine.meta_training.objective import Objective
from engine.meta_training.partial_gradient import PartialGradient, together
from engine.meta_training.unroll import begin
from engine.optimizers.learned.base import Phi
from engine.presets.tables import ESTIMATORS


@dataclass(frozen=True, kw_only=True, eq=False)
class GradientEstimator:
    """A member gives `estimate`; where its carry is no `UnrollState`, `begin` and `restore` as well."""

    name: ClassVar[str]

    differentiates: ClassVar[bool] = False  # whether the unroll is differentiated, back to where it began
    second_order: ClassVar[bool] = False  # whether back-propagation knows that a step changes the gradients to come
    whole_unrolls: ClassVar[bool] = False  # whether a truncation is always a whole unroll
    takes_terms: ClassVar[bool] = False  # whether the objective may be any number of the unroll: it needs no derivative

    @property
    def particles(self) -> int:
        """How many times every optimizee is trained, with different meta-parameters; 0: once, with phi itself."""
        return 0

    def on(self, device: torch.device) -> GradientEstimator:
        """The estimator as it works on a device."""
        return self

    def begin(
        self, objective: Objective, theta: Tensor, batch: Batch | None, *, scaling: Tensor | None, horizon: int | None
    ) -> Any:
        """The carry at inner step 0 of optimizees at theta, [B, P]; `batch` gives the first gradient.

        It is an `UnrollState`, or has the same members: theta, alive, inner_step, truncations, tensors() and facts().
        """
        return begin(objective, theta, batch, scaling=scaling, horizon=horizon)

    def estimate(self, objective: Objective, phi: Phi, carry: Any, inputs: Inputs) -> tuple[PartialGradient, Any]:
        """Take the inner steps of `inputs` from `carry`: what they contribute to the meta-gradient, and the next carry.

        phi's tensors require gradients.
        """
        raise NotImplementedError

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Any:
        """The carry of a checkpoint. Raises KeyError where it does not fit."""
        return UnrollState.restored(tensors, facts)

    def combine(
        self, parts: Sequence[tuple[Objective, PartialGradient]], phi: Phi, inner_step: int, noise_seeds: Sequence[int]
    ) -> tuple[Phi, dict[str, Tensor]]:
        """The meta-gradient of all groups of optimizees at their truncation's end, and the metrics, means over them."""
        optimizees = sum(partial.optimizees for _, partial in parts)
        gradient: Phi = {name: torch.zeros_like(tensor) for name, tensor in phi.items()}
        metrics: list[tuple[float, dict[str, Tensor]]] = []
        for objective, partial in parts:
            part, metrics_of_group = partial.meta_gradient(objective, phi, inner_step)
            share = partial.optimizees / optimizees
            gradient = {name: gradient[name] + share * part[name] for name in gradient}
            metrics.append((share, metrics_of_group))
        return gradient, together(metrics)


get = ESTIMATORS.create
"""An estimator by name, its settings checked: `get("es", pairs=8)`. Raises SettingsError that names the field."""
