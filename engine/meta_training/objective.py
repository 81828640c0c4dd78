"""Objective: what a learned optimizer is meta-trained for."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.base.flat import BatchLoss
from engine.optimizers.learned.base import LearnedOptimizer
from engine.penalties.base import GeometricPenalty, ParameterPenalty, UpdatePenalty


@dataclass(frozen=True)
class Objective:
    """What is meta-trained for: the task's loss, the learned optimizer, the penalties, and how they add up."""

    loss: BatchLoss
    optimizer: LearnedOptimizer
    geometric: dict[str, GeometricPenalty] = field(default_factory=dict)
    update: dict[str, UpdatePenalty] = field(default_factory=dict)
    parameter: dict[str, ParameterPenalty] = field(default_factory=dict)
    loss_batch: str = "next"
    second_order: bool = False
    divergence_cap: float = 10.0
