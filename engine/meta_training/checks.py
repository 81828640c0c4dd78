"""Whether what meta-training is asked for goes together: learned optimizer, estimator, objective, penalties, tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Generator, Tensor

from engine.base.arguments import kind, refusal
from engine.base.errors import Problem, SettingsError
from engine.base.settings import check_table, schema_of, show
from engine.meta_training.estimators import GradientEstimator
from engine.optimizers.learned.base import LearnedOptimizer, Phi
from engine.penalties.base import Penalty, UpdatePenalty
from engine.presets.checking import joint_problems
from engine.presets.tables import EvaluationSettings, MetaSettings, ObjectiveSettings
from engine.tasks.base import Task
from engine.terms import Term

Settings = TypeVar("Settings", MetaSettings, ObjectiveSettings, EvaluationSettings)


def checked_settings(
    name: str, kind_of_settings: type[Settings], settings: Settings | Mapping[str, Any] | None
) -> Settings:
    """Settings, or a table of some of them, whose values are allowed. Raises SettingsError that names the others."""
    if settings is not None and not isinstance(settings, (Mapping, kind_of_settings)):
        raise refusal(name, f"a table, or {kind_of_settings.__name__}", kind(settings))
    table = settings if isinstance(settings, Mapping) else vars(settings or kind_of_settings())
    values, problems = check_table(table, schema_of(kind_of_settings), name)
    if problems:
        raise SettingsError(problems)
    return kind_of_settings(**values)


def checked_optimizer(optimizer: Any) -> LearnedOptimizer:
    """Raises ArgumentError for what is no learned optimizer."""
    if not isinstance(optimizer, LearnedOptimizer):
        raise refusal("optimizer", "a learned optimizer, of a subclass of engine.LearnedOptimizer", kind(optimizer))
    return optimizer


def checked_estimator(estimator: Any) -> GradientEstimator:
    """Raises ArgumentError for what is no estimator."""
    if not isinstance(estimator, GradientEstimator):
        raise refusal("estimator", "an estimator, as engine.estimators.get('es')", kind(estimator))
    return estimator


def check_no_run(settings: MetaSettings) -> None:
    """Raise SettingsError where a run is named to start from: objects know of no runs."""
    if settings.init_from:
        raise _refused("settings.init_from", settings.init_from, "left out; init_phi is where to start from")


def check_together(
    estimator: GradientEstimator,
    settings: MetaSettings,
    objective: ObjectiveSettings,
    terms: Mapping[str, Term],
    penalties: Mapping[str, Penalty],
) -> None:
    """Raise SettingsError for what does not go together, as in a preset; and for what only some estimators can do."""
    problems = joint_problems(
        {**vars(settings), "estimator": estimator.name},
        {**vars(objective), "terms": {name: {"start": term.start} for name, term in terms.items()}},
        {name: {"start": penalty.start} for name, penalty in penalties.items()},
        takes_terms=estimator.takes_terms,
        differentiates=estimator.differentiates,
    )
    for name, penalty in penalties.items():
        if isinstance(penalty, UpdatePenalty) and penalty.every_step and not estimator.differentiates:
            allowed = f"false with the estimator {estimator.name}; tbptt, second_order"
            problems.append(Problem(f"penalty.{name}.every_step", "true", allowed))
    if problems:
        raise SettingsError(problems)


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
    for task in held_out if settings.learn_start else ():
        if task.layout.shapes != sampled.layout.shapes:
            allowed = f"false, or tasks of one layout; {sampled.name} and {task.name} differ"
            raise _refused("meta.learn_start", True, allowed)


def fresh_phi(optimizer: LearnedOptimizer, task: Task, seed: int) -> Phi:
    """Fresh meta-parameters in the precision of the task. Raises ArgumentError where a member gives none."""
    if missing := [method for method in ("init", "observe") if not hasattr(optimizer, method)]:
        raise refusal("optimizer", "one with init and observe", f"{optimizer.name} without {', '.join(missing)}")
    phi = optimizer.init_phi(Generator().manual_seed(seed))
    if not isinstance(phi, Mapping) or not phi or not all(map(_is_floats, phi.values())):
        raise refusal(f"init_phi of {optimizer.name}", "floating-point tensors by name, one or more", kind(phi))
    return {name: tensor.to(task.dtype) for name, tensor in phi.items()}


def _is_floats(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.is_floating_point()


def _refused(path: str, value: Any, allowed: str) -> SettingsError:
    return SettingsError([Problem(path, show(value), allowed)])
