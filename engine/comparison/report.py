"""Everything that a comparison of runs says: arms, settings, final figures, tables, paired differences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.base.errors import Problem, SettingsError
from engine.base.settings import did_you_mean, show
from engine.comparison.arms import Arm, ArmRun, SettingsTable, group_arms, reference_arm, settings_table
from engine.comparison.outcomes import TaskOutcomes, collect, radii_of
from engine.comparison.paired import EQUAL_STEPS, Effect, effects, has_frontier, more_diverged
from engine.comparison.tables import Table, last_common_step, table
from engine.runs.results import mean
from engine.runs.store import RunReader

SHARE = "_penalty_share"
ENOUGH_META_SEEDS = 5  # with fewer, t-intervals are so wide that little but large differences is found
LAST_PART = 10  # a penalty's share is averaged over the last tenth of the records


@dataclass(frozen=True)
class RunFigures:
    """The end of a run's meta-training: the newest and the best validation loss, how many unrolls diverged, and each
    penalty's share of the meta-gradient over the last tenth of the meta-steps.
    """

    run: str
    name: str
    arm: str
    meta_seed: int | str
    state: str
    step: int
    total: int
    validation_loss: float | None
    best_validation_loss: float | None
    diverged: float | None
    penalty_shares: dict[str, float | None]
    best_scale: float | None
    problem: str


@dataclass(frozen=True)
class Comparison:
    """A comparison. `radius` is the one to show where only one is shown; `notes` say what weakens the comparison."""

    arms: tuple[Arm, ...]
    reference: Arm
    settings: SettingsTable
    runs: tuple[RunFigures, ...]
    tables: tuple[Table, ...]
    effects: tuple[Effect, ...]
    radii: tuple[str, ...]
    radius: str | None
    notes: tuple[str, ...]
    damaged_files: int


def compare(
    readers: Sequence[RunReader],
    *,
    reference: RunReader | None = None,
    task: str | None = None,
    step: int | None = None,
    radius: float | None = None,
) -> Comparison:
    """Compare runs by their transfer evaluations.

    `reference`: a run of the arm that the others are compared with (default: the first without penalties, of those that
    were evaluated). `task`: "dataset/optimizee", only that one. `step`: at that inner step (default: the last that the
    arms have in common, task by task). `radius`: the one to show (default: the middle one). Raises SettingsError where
    a task, step or radius was not measured.
    """
    arms = group_arms([*readers, *([reference] if reference is not None else [])])
    every, damaged = collect(arms)
    tasks = _wanted_tasks(every, task)
    steps = _wanted_steps(tasks, arms, step)
    chosen = reference_arm(arms, reference, _evaluated(tasks, steps, arms))
    radii = radii_of(tasks)
    tables = [table(found, steps[found.name], arms) for found in tasks if found.name in steps]
    others = [arm for arm in arms if arm is not chosen]
    measured = [found for found in tasks if found.name in steps]
    differences = [
        effect for found in measured for arm in others for effect in effects(found, steps[found.name], arm, chosen)
    ]
    return Comparison(
        arms=tuple(arms),
        reference=chosen,
        settings=settings_table(arms),
        runs=tuple(run_figures(arm, run) for arm in arms for run in arm.runs),
        tables=tuple(tables),
        effects=tuple(differences),
        radii=tuple(radii),
        radius=_wanted_radius(radii, radius),
        notes=tuple(_notes(arms, chosen, measured, steps, tables, differences)),
        damaged_files=damaged,
    )


def run_figures(arm: Arm, run: ArmRun) -> RunFigures:
    """The final figures of one run; what is not known is None."""
    reader = RunReader(run.reader.path, wanted=_tells_the_end)  # not the given one: it may be following the metrics
    reader.poll()
    status, latest = reader.status(), reader.figures()
    losses = reader.series("validation_loss")[1]
    shares = {name.removesuffix(SHARE): _late_mean(reader, name) for name in reader.columns if name.endswith(SHARE)}
    return RunFigures(
        run=reader.id,
        name=run.name,
        arm=arm.label,
        meta_seed=run.meta_seed,
        state=status.state,
        step=status.step,
        total=status.total,
        validation_loss=latest.get("validation_loss"),
        best_validation_loss=min(filter(math.isfinite, losses), default=None),
        diverged=latest.get("diverged"),
        penalty_shares=shares,
        best_scale=reader.best_scale().get("scale"),
        problem=run.problem,
    )


def _tells_the_end(metric: str) -> bool:
    """True for the metrics that are read here: runs are long, and have many."""
    return metric in ("validation_loss", "diverged") or metric.endswith(SHARE)


def _late_mean(reader: RunReader, metric: str) -> float | None:
    values = reader.series(metric)[1]
    return mean(values[-max(1, len(values) // LAST_PART) :]).mean


def _wanted_tasks(tasks: dict[str, TaskOutcomes], wanted: str | None) -> list[TaskOutcomes]:
    """All tasks; or the wanted one, with all its unusual batch sizes and classes."""
    if wanted is None:
        return list(tasks.values())
    found = [task for name, task in tasks.items() if wanted in (name, name.split(" ")[0])]
    if not found:
        _refuse("--task", wanted, tasks)
    return found


def _wanted_steps(tasks: Iterable[TaskOutcomes], arms: Sequence[Arm], wanted: int | None) -> dict[str, int]:
    """The inner step of every task's table; a task that was not measured at the wanted one has none."""
    if wanted is None:
        last = {task.name: last_common_step(task, arms) for task in tasks}
        return {name: step for name, step in last.items() if step is not None}
    there = {task.name: {step for entry in task.entries for step in entry.steps} for task in tasks}
    found = {name: wanted for name, steps in there.items() if wanted in steps}
    if not found:
        _refuse("--step", wanted, map(str, sorted(set().union(*there.values()))))
    return found


def _evaluated(tasks: Iterable[TaskOutcomes], steps: dict[str, int], arms: Sequence[Arm]) -> set[str]:
    """Labels of the arms of which some table has a row."""
    shown = [(task, steps[task.name]) for task in tasks if task.name in steps]
    return {
        arm.label
        for task, step in shown
        for arm in arms
        if (entry := task.main(arm)) is not None and step in entry.steps
    }


def _wanted_radius(radii: Sequence[str], wanted: float | None) -> str | None:
    if wanted is None:
        return radii[len(radii) // 2] if radii else None
    near = [radius for radius in radii if math.isclose(float(radius), wanted)]
    if not near:
        _refuse("--radius", wanted, radii)
    return near[0]


def _refuse(option: str, wanted: Any, allowed: Iterable[str]) -> None:
    names = list(allowed)
    words = "one that was measured: " + ", ".join(names) if names else "nothing: there are no transfer evaluations"
    raise SettingsError([Problem(option, show(wanted), words, did_you_mean(str(wanted), names))])


def _notes(
    arms: Sequence[Arm],
    reference: Arm,
    tasks: Sequence[TaskOutcomes],
    steps: dict[str, int],
    tables: Sequence[Table],
    differences: Sequence[Effect],
) -> list[str]:
    """What a reader of the tables should know, each said once."""
    notes = []
    for task, shown in zip(tasks, tables, strict=True):
        step, where = steps[task.name], f"{task.name} after {steps[task.name]} inner steps"
        missing = [arm.label for arm in arms if (entry := task.main(arm)) is None or step not in entry.steps]
        if missing:
            notes.append(f"{where}: not evaluated: {', '.join(missing)}")
        if len(shown.protocols) > 1:
            notes.append(f"{where}: the probes were not made alike (examples, restarts, ascent steps differ)")
    unscaled = [task.name for task in tasks if not has_frontier(task, steps[task.name], reference)]
    if unscaled and len(arms) > 1:
        notes.append(
            f"no scale frontier on {', '.join(unscaled)}: {reference.label} has fewer than two scales besides 1 there "
            "(lreg transfer RUN --scales 0.5,0.7,1,1.4,2,2.8)"
        )
    first = [effect for effect in differences if effect.setting == EQUAL_STEPS]
    single = sorted({effect.arm for effect in first if effect.interval.meta_seeds == 1})
    if single:
        notes.append(
            f"one meta-seed only: {', '.join(single)}; intervals are over optimizee seeds: they compare these very "
            "runs, and say nothing about meta-training once more"
        )
    few = sorted({effect.arm for effect in first if 1 < effect.interval.meta_seeds < ENOUGH_META_SEEDS})
    if few:
        notes.append(
            f"fewer than {ENOUGH_META_SEEDS} meta-seeds: {', '.join(few)}; t-intervals over so few are wide: unclear "
            "says little about whether there is a difference"
        )
    lost = sorted({f"{effect.arm} on {effect.task}" for effect in first if more_diverged(effect) > 0})
    if lost:
        notes.append(
            f"clearly more optimizees diverged than with {reference.label}: {', '.join(lost)}; the pairs are of the "
            "others alone"
        )
    unmatched = sorted({effect.arm for effect in first if not effect.meta_seeds_match})
    if unmatched:
        notes.append(f"no meta-seed in common with {reference.label}, so paired in their order: {', '.join(unmatched)}")
    return notes
