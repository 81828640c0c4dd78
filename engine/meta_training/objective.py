"""Objective: what a learned optimizer is meta-trained for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.base.arguments import kind, refusal
from engine.base.flat import BatchLoss
from engine.optimizers.learned.base import LearnedOptimizer
from engine.penalties.base import GeometricPenalty, ParameterPenalty, Penalty, Reparametrization, UpdatePenalty
from engine.tasks.base import Layout


@dataclass(frozen=True)
class Objective:
    """What is meta-trained for: a task's loss, the learned optimizer, the penalties, and how they add up."""

    loss: BatchLoss
    optimizer: LearnedOptimizer
    geometric: dict[str, GeometricPenalty] = field(default_factory=dict)
    update: dict[str, UpdatePenalty] = field(default_factory=dict)
    parameter: dict[str, ParameterPenalty] = field(default_factory=dict)
    loss_batch: str = "next"
    second_order: bool = False
    divergence_cap: float = 10.0
    layout: Layout | None = None


def of_kind(penalties: Mapping[str, Penalty], kind: type[Any]) -> dict[str, Any]:
    """The penalties of a kind, by name."""
    return {name: penalty for name, penalty in penalties.items() if isinstance(penalty, kind)}


def by_name(penalties: Mapping[str, Penalty] | Iterable[Penalty]) -> dict[str, Penalty]:
    """Penalties by name: that of their registered class, or of the class itself; of several alike with a number.

    Raises ArgumentError for what is no penalty.
    """
    if isinstance(penalties, Mapping):
        for name, penalty in penalties.items():
            _check_penalty(f"penalties[{name!r}]", penalty)
        return dict(penalties)
    if not isinstance(penalties, Iterable):
        raise refusal("penalties", "a list of penalties, or penalties by name", kind(penalties))
    named: dict[str, Penalty] = {}
    for index, penalty in enumerate(penalties):
        _check_penalty(f"penalties[{index}]", penalty)
        name = getattr(penalty, "name", type(penalty).__name__.lower())
        alike = sum(other.split("-")[0] == name for other in named)
        named[f"{name}-{alike + 1}" if alike else name] = penalty
    return named


def _check_penalty(place: str, penalty: object) -> None:
    if not isinstance(penalty, (GeometricPenalty, UpdatePenalty, ParameterPenalty, Reparametrization)):
        allowed = "a penalty: a GeometricPenalty, UpdatePenalty, ParameterPenalty or Reparametrization"
        raise refusal(place, allowed, kind(penalty))
