"""Truncated back-propagation, by cotangents: see `engine.meta_training.unroll`."""

from __future__ import annotations

import copy
from typing import ClassVar

import torch

from engine.meta_training import recording
from engine.meta_training.estimators.base import ESTIMATORS, GradientEstimator
from engine.meta_training.inner_steps import Inputs, UnrollState
from engine.meta_training.objective import Objective
from engine.meta_training.partial_gradient import PartialGradient
from engine.meta_training.unroll import run_truncation
from engine.optimizers.learned.base import Phi


@ESTIMATORS.register("tbptt")
class TBPTT(GradientEstimator):
    """Back-propagation through a truncation; the gradients that feed the learned optimizer are constants."""

    differentiates: ClassVar[bool] = True
    run_truncation: ClassVar[recording.RunTruncation] = staticmethod(run_truncation)

    def on(self, device: torch.device) -> TBPTT:
        """On CUDA, truncations may be recorded as graphs."""
        clone = copy.copy(self)
        object.__setattr__(clone, "run_truncation", recording.chosen(device))
        return clone

    def estimate(
        self, objective: Objective, phi: Phi, carry: UnrollState, inputs: Inputs
    ) -> tuple[PartialGradient, UnrollState]:
        return self.run_truncation(objective, phi, carry, inputs)


@ESTIMATORS.register("second_order")
class SecondOrder(TBPTT):
    """Back-propagation through a truncation and through the optimizees' gradients as well: a Hessian-vector product for
    every inner step, see `engine.meta_training.second_order`."""

    second_order: ClassVar[bool] = True
