"""Whether what meta-training is asked for goes together: learned optimizer, estimator, objective, penalties, tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from engine.base.arguments import kind, refusal
from engine.base.errors import Problem, SettingsError
from engine.base.settings import check_table, schema_of, show
from engine.meta_training.estimators import GradientEstimator
from engine.optimizers.learned.base import LearnedOptimizer
from engine.penalties.base import Penalty, UpdatePenalty
from engine.presets.tables import WITHOUT_DERIVATIVE, EvaluationSettings, MetaSettings, ObjectiveSettings
from engine.tasks.base import Task
from engine.terms import Term

Settings = TypeVar("Settings", MetaSettings, ObjectiveSettings, EvaluationSettings)
DIFFERENTIATING = "tbptt, second_order"


def checked_settings(
    name: str, kind_of_settings: type[Settings], settings: Settings | Mapping[str, Any] | None
) -> Settings:
    """Settings, or a table of some of them, whose values are allowed. Raises SettingsError that names the others."""
    given = settings if isinstance(settings, Mapping) else vars(settings or kind_of_settings())
    values, problems = check_table(given, schema_of(kind_of_settings), name)
    if problems:
        raise SettingsError(problems)
    return kind_of_settings(**values)


def checked_optimizer(optimizer: Any) -> LearnedOptimizer:
    """Raises ArgumentError for what is no learned optimizer."""
    if not isinstance(optimizer, LearnedOptimizer):
        raise refusal("optimizer", "a learned optimizer, of a subclass of engine.LearnedOptimizer", kind(optimizer))
    return optimizer


def check_objective(estimator: GradientEstimator, settings: ObjectiveSettings, terms: Mapping[str, Term]) -> None:
    """Raises SettingsError for what needs an estimator that takes any number of the unroll, where this one does not."""
    if estimator.takes_terms:
        return
    beyond = {"loss": show(settings.loss)} if settings.loss in WITHOUT_DERIVATIVE else {}
    beyond |= {"log": show(settings.log)} if settings.log else {}
    beyond |= {f"terms.{name}": "a term" for name in terms}
    allowed = f"left out with the estimator {estimator.name}, which knows the derivatives of losses alone; es, pes"
    if beyond:
        raise SettingsError([Problem(f"objective.{key}", found, allowed) for key, found in beyond.items()])


def check_optimizer(
    optimizer: LearnedOptimizer,
    estimator: GradientEstimator,
    settings: MetaSettings,
    sampled: Task,
    held_out: list[Task],
) -> None:
    """Raise SettingsError where the learned optimizer trains no such tasks, or asks for more than there is."""
    for task in held_out:
        optimizer.check_task(task)
    needs_graph, looks, name = optimizer.gives_start, optimizer.uses_task, optimizer.name
    if (needs_graph or looks) and (estimator.second_order or not estimator.differentiates):
        raise _refused("meta.estimator", estimator.name, f"tbptt with the learned optimizer {name}")
    if needs_graph and settings.learn_start:
        raise _refused("meta.learn_start", True, f"false with the learned optimizer {name}")
    if looks and settings.random_scaling:
        raise _refused("meta.random_scaling", settings.random_scaling, f"0.0 with the learned optimizer {name}")
    if settings.learn_start and not estimator.differentiates:
        raise _refused("meta.learn_start", True, f"false with the estimator {estimator.name}; {DIFFERENTIATING}")
    for task in held_out if settings.learn_start else ():
        if task.layout.shapes != sampled.layout.shapes:
            allowed = f"false, or tasks of one layout; {sampled.name} and {task.name} differ"
            raise _refused("meta.learn_start", True, allowed)


def check_penalties(estimator: GradientEstimator, penalties: Mapping[str, Penalty]) -> None:
    """Raise SettingsError for an update penalty that counts where the loss does not, without back-propagation."""
    for name, penalty in penalties.items():
        if isinstance(penalty, UpdatePenalty) and penalty.every_step and not estimator.differentiates:
            allowed = f"false with the estimator {estimator.name}; {DIFFERENTIATING}"
            raise _refused(f"penalty.{name}.every_step", True, allowed)


def _refused(path: str, value: Any, allowed: str) -> SettingsError:
    return SettingsError([Problem(path, show(value), allowed)])
