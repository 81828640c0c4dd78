"""Inputs: what a group of optimizees is given for one truncation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engine.penalties.base import Randomness
from engine.tasks.base import Batches


class Inputs(NamedTuple):
    """Everything but phi and where the optimizees are. T inner steps."""

    batches: Batches  # T, that feed the inner steps
    factors: Sequence[float]  # T, the weights of their losses
    randomness: Randomness = ()  # for the penalties, of each optimizee
    scoring: Batches | None = None  # T, of loss_batch = validation
    ends: bool = True  # whether the unroll ends with this truncation
    meta_epoch: int = 0  # the unroll's number: terms may count from one on
    final: Batches | None = None  # that the loss at the unroll's end is measured on
    noise_seeds: Sequence[int] = (0,)  # of the perturbations of phi in this unroll, this truncation's last
