"""Evaluation on held-out optimizees: what a learned optimizer is worth, measured while it is being meta-trained."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from engine.base.metrics import metric
from engine.distributed.parallel import ALONE, ProcessGroup, dealt_back
from engine.evaluation import transfer
from engine.evaluation.frozen_unroll import nothing
from engine.evaluation.transfer import DIVERGED, EPISODES_AT_ONCE, ProbeSettings
from engine.evaluation.tuning import tune
from engine.optimizers.baselines import BASELINES
from engine.optimizers.learned.base import LearnedOptimizer, Phi, Start, learned_start
from engine.presets.tables import EvaluationSettings
from engine.runs.evaluations import task_name
from engine.tasks.base import Task, TaskDistribution

SHOWN_BASELINES = ("sgd", "adam")  # beside every run; `lreg transfer --baselines` has the others


def validate(
    tasks: TaskDistribution,
    optimizer: LearnedOptimizer,
    phi: Phi,
    inner_steps: int,
    settings: EvaluationSettings,
    tick: Callable[[], None] = nothing,
    team: ProcessGroup = ALONE,
) -> dict[str, float | None]:
    """Metrics of a frozen learned optimizer on held-out optimizees, the same ones every time; means over them.

    A team shares the optimizees out, and all of its processes get the metrics.

    `validation_loss` is what checkpoints are chosen by, and like `validation_mean_loss` what a study can pick winners
    by. There a diverged optimizee counts with ten times its first loss, so that one of them cannot decide alone; the
    other metrics leave out what is not finite.
    """
    probe = _probe(settings, (settings.radius,))
    held_out = tasks.held_out(settings.optimizees)
    mine = team.share([(index, number) for index, (_, numbers) in enumerate(held_out) for number in numbers])

    def part() -> list[dict[str, Any]]:
        outcomes: list[dict[str, Any]] = []
        for index, (task, _) in enumerate(held_out):
            if numbers := [number for at, number in mine if at == index]:
                how = (numbers, inner_steps, probe)
                outcomes += transfer.evaluate(task, optimizer, phi, *how, purpose="validation", tick=tick)["seeds"]
        return outcomes

    outcomes = dealt_back(team.do(part))
    marks = [outcome["marks"][-1] for outcome in outcomes]
    radius, adaptive_radius = map(transfer.radius_key, (settings.radius, settings.adaptive_radius))
    metrics: dict[str, float | None] = {
        "validation_loss": statistics.fmean(_capped(item, item["marks"][-1]["validation_loss"]) for item in outcomes),
        "validation_mean_loss": statistics.fmean(_capped(item, item["mean_loss"]) for item in outcomes),
        "validation_diverged": float(sum(outcome["diverged"] for outcome in outcomes)),
    }
    test = [name for name in dict.fromkeys(name for mark in marks for name in mark) if metric(name).split == "test"]
    for name in ("train_loss", *test, "top_eigenvalue", "parameter_norm"):
        metrics[name] = _mean([mark.get(name) for mark in marks])
    if all(task.is_episodic for task, _ in held_out):
        return {name: value for name, value in metrics.items() if name != "top_eigenvalue"}
    radii = {
        "adaptive_sharpness": adaptive_radius,
        **dict.fromkeys(("sharpness", "max_grad_norm", "surrogate_gap"), radius),
    }
    for name, at in radii.items():
        metrics[name] = _mean([mark.get(name, {}).get(at) for mark in marks])
    return metrics


def compare(
    tasks: TaskDistribution,
    optimizer: LearnedOptimizer,
    phis: dict[str, Phi],
    inner_steps: int,
    settings: EvaluationSettings,
    on_progress: Callable[[str], None],
    team: ProcessGroup = ALONE,
) -> list[dict[str, Any]]:
    """The result of a run on its own tasks: transfer evaluations of `phis`, by role, and of tuned SGD and Adam.

    best: the checkpoint; untrained: fresh meta-parameters; start: what `meta.init_from` gave. Where initial parameters
    are learned, they are measured as they are (inner step 0) and under tuned gradient descent; where optimizees have
    data of their own, beside what trains nothing. `on_progress` is told what is being measured, over and over, so that
    it can interrupt by raising.
    """
    held_out = tasks.held_out(settings.final_optimizees) if settings.final_optimizees else []
    probe = _probe(settings, settings.radii)

    def of_phi(task: Task, numbers: Sequence[int], suffix: str, name: str) -> dict[str, Any]:
        label = f"{optimizer.name} ({name}){suffix}"
        tick = partial(on_progress, f"result: {label}")
        checkpoint = {"best": "best", "start": "initial"}.get(name, None if "start" in phis else "initial")
        facts = {"run": "", "optimizer": optimizer.name, "label": label, "checkpoint": checkpoint, "scale": 1.0}
        how = {"tick": tick, "marks": (0,) if learned_start(optimizer, phis[name]) else ()}
        return {**facts, **transfer.evaluate(task, optimizer, phis[name], numbers, inner_steps, probe, **how)}

    def of_baseline(
        task: Task, numbers: Sequence[int], suffix: str, name: str, start: Start | None = None
    ) -> dict[str, Any]:
        tick = partial(on_progress, f"result: {name}, best learning rate{suffix}")
        few = EPISODES_AT_ONCE if task.is_episodic else 3
        tuned = tune(task, BASELINES[name], numbers[:few], inner_steps, tick, start)
        values = (BASELINES[name], tuned.values, numbers, inner_steps, probe)
        label = f"{name} from the learned start" if start is not None else name
        return {**transfer.evaluate_baseline(task, *values, start=start, tick=tick), "label": f"{label}{suffix}"}

    def of_control(task: Task, numbers: Sequence[int], suffix: str, name: str) -> dict[str, Any]:
        on_progress(f"result: {name}{suffix}")
        facts = {"run": None, "optimizer": name, "label": f"{name}{suffix}", "checkpoint": None, "scale": 1.0}
        return {**facts, **transfer.evaluate_control(task, name, numbers)}

    works: list[Callable[[], dict[str, Any]]] = []
    for task, numbers in held_out:
        suffix = f" on {_told(task, [task for task, _ in held_out])}" if len(held_out) > 1 else ""
        works += [partial(of_phi, task, numbers, suffix, name) for name in phis]
        works += [partial(of_baseline, task, numbers, suffix, name) for name in SHOWN_BASELINES]
        if (start := learned_start(optimizer, phis["best"])) is not None:
            works.append(partial(of_baseline, task, numbers, suffix, "sgd", start))
        works += [partial(of_control, task, numbers, suffix, name) for name in task.of([0]).controls()]
    return dealt_back(team.do(lambda: [work() for work in team.share(works)]))


def _probe(settings: EvaluationSettings, radii: Sequence[float]) -> ProbeSettings:
    return ProbeSettings(
        radii=radii,
        adaptive_radius=settings.adaptive_radius,
        examples=settings.examples,
        restarts=settings.restarts,
        ascent_steps=settings.ascent_steps,
        precision=settings.precision,
    )


def _told(task: Task, tasks: Sequence[Task]) -> str:
    """A task's name; where another has it too, with what is unusual about this one."""
    is_unique = sum(task.name == other.name for other in tasks) == 1
    return task.name if is_unique else task_name(task.facts) or task.name


def _capped(outcome: dict[str, Any], loss: float | None) -> float:
    first = outcome["curve"]["train_loss"][0]
    if outcome["marks"][0]["inner_step"] == 0:  # of an episode the loss on its queries before the first step
        first = outcome["marks"][0]["validation_loss"]
    cap = DIVERGED * first if first is not None else math.inf
    return min(loss, cap) if loss is not None else cap


def _mean(values: Sequence[float | None]) -> float | None:
    finite = [value for value in values if value is not None]
    return statistics.fmean(finite) if finite else None
