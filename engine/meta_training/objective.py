"""Objective: what a learned optimizer is meta-trained for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from engine.base.arguments import kind, refusal
from engine.base.flat import BatchLoss
from engine.optimizers.learned.base import LearnedOptimizer
from engine.penalties.base import GeometricPenalty, ParameterPenalty, Penalty, Reparametrization, UpdatePenalty
from engine.presets.tables import MetaSettings, ObjectiveSettings
from engine.tasks.base import Layout, Task
from engine.terms import Term

Member = TypeVar("Member", bound=Penalty | Term)

PENALTY_CLASSES: tuple[type[Penalty], ...] = (GeometricPenalty, UpdatePenalty, ParameterPenalty, Reparametrization)


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
    task: Task | None = None  # that the terms are measured on, and that learned optimizers may look at
    data_seeds: tuple[int, ...] = ()  # [B], where every optimizee has data of its own: `task.of` these seeds
    settings: ObjectiveSettings = ObjectiveSettings()
    terms: dict[str, Term] = field(default_factory=dict)

    def of(self, task: Task, data_seeds: Sequence[int]) -> Objective:
        """The objective for some optimizees, and `task` as they see it."""
        if task.rows is None:
            return self
        return replace(self, task=task if self.optimizer.uses_task else self.task, data_seeds=tuple(data_seeds))


def objective_on(
    optimizer: LearnedOptimizer,
    penalties: Mapping[str, Penalty],
    terms: dict[str, Term],
    meta: MetaSettings,
    settings: ObjectiveSettings,
    task: Task,
    *,
    second_order: bool,
) -> Objective:
    """What is meta-trained for on a task."""
    return Objective(
        loss=task.loss,
        layout=task.layout,
        optimizer=optimizer,
        geometric=of_kind(penalties, GeometricPenalty),
        update=of_kind(penalties, UpdatePenalty),
        parameter=of_kind(penalties, ParameterPenalty),
        loss_batch=meta.loss_batch,
        second_order=second_order,
        divergence_cap=meta.divergence_cap,
        task=task,
        settings=settings,
        terms=terms,
    )


def of_kind(penalties: Mapping[str, Penalty], kind: type[Any]) -> dict[str, Any]:
    """The penalties of a kind, by name."""
    return {name: penalty for name, penalty in penalties.items() if isinstance(penalty, kind)}


def by_name(members: Any, concept: str, classes: tuple[type[Member], ...]) -> dict[str, Member]:
    """Penalties, or terms, by name: that of their registered class, or of the class itself; of several alike with a
    number. Raises ArgumentError, which speaks of `concept`, for what is none of the classes.
    """
    plural = f"{concept}s" if concept != "penalty" else "penalties"
    if not isinstance(members, Iterable):
        raise refusal(plural, f"a list of {plural}, or {plural} by name", kind(members))
    named: dict[str, Member] = {}
    for key, member in members.items() if isinstance(members, Mapping) else enumerate(members):
        if not isinstance(member, classes):
            names = " or ".join(cls.__name__ for cls in classes)
            raise refusal(f"{plural}[{key!r}]", f"a {concept}: a {names}", kind(member))
        name = str(key)
        if not isinstance(members, Mapping):
            name = member.name
            alike = sum(other.split("-")[0] == name for other in named)
            name = f"{name}-{alike + 1}" if alike else name
        named[name] = member
    return named
