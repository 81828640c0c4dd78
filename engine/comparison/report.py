"""Everything that a comparison of runs says: arms, settings, final figures, tables, paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.base.metrics import metric
from engine.comparison.arms import (
    Arm,
    ArmRun,
    ControlArm,
    SettingsTable,
    controls,
    group_arms,
    reference_arm,
    settings_table,
)
from engine.comparison.outcomes import TaskOutcomes, chosen_radius, chosen_tasks, collect, radii_of, refuse
from engine.comparison.paired import EQUAL_STEPS, Effect, best_scales, effects, has_frontier, more_diverged
from engine.comparison.tables import Table, last_common_step, table
from engine.runs.results import mean
from engine.runs.store import RunReader

ENOUGH_META_SEEDS = 5  # with fewer, t-intervals are so wide that little but large differences is found
END = ("validation_loss", "diverged")
LAST_PART = 10  # a penalty's share is averaged over the last tenth of the records


@dataclass(frozen=True)
class RunEnd:
    """How a run's meta-training ended: the newest and the best validation loss, how many unrolls diverged, and each
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
    """A comparison. `controls`: the arms that lack some penalties or terms of others, by the others' labels.
    `best_scales`: of the reference arm's meta-seeds, by task, where it has a frontier. `radius` is the one to show
    where only one is shown; `notes` say what weakens the comparison.
    """

    arms: tuple[Arm, ...]
    reference: Arm
    controls: dict[str, ControlArm]
    settings: SettingsTable
    runs: tuple[RunEnd, ...]
    tables: tuple[Table, ...]
    effects: tuple[Effect, ...]
    best_scales: dict[str, tuple[float, ...]]
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
    tasks = chosen_tasks(every, task)
    steps = _steps(tasks, arms, step)
    tasks_there = [one for one in tasks if one.name in steps]
    evaluated = {arm.label for one in tasks_there for arm in arms if _is_evaluated(one, arm, steps[one.name])}
    chosen = reference_arm(arms, reference, evaluated)
    others = [arm for arm in arms if arm is not chosen]
    tables = [table(one, steps[one.name], arms) for one in tasks_there]
    differences = [
        effect for one in tasks_there for arm in others for effect in effects(one, steps[one.name], arm, chosen)
    ]
    radii = radii_of(tasks)
    return Comparison(
        arms=tuple(arms),
        reference=chosen,
        controls=controls(arms),
        settings=settings_table(arms),
        runs=tuple(run_end(arm, run) for arm in arms for run in arm.runs),
        tables=tuple(tables),
        effects=tuple(differences),
        best_scales={
            one.name: tuple(scales.values())
            for one in tasks_there
            if (scales := best_scales(one, steps[one.name], chosen))
        },
        radii=tuple(radii),
        radius=chosen_radius(radii, radius),
        notes=tuple(_notes(arms, chosen, tasks_there, tables, differences)),
        damaged_files=damaged,
    )


def run_end(arm: Arm, run: ArmRun) -> RunEnd:
    """How one run's meta-training ended; what is not known is None."""
    # not the given reader: it may be following the metrics; and few of them, for runs are long
    reader = RunReader(run.reader.path, wanted=lambda name: name in END or metric(name).kind == "share")
    reader.poll()
    status, latest = reader.status(), reader.figures()
    shares = {}
    for name in reader.columns:
        if metric(name).kind == "share":
            values = reader.series(name)[1]
            shares[metric(name).penalty] = mean(values[-max(1, len(values) // LAST_PART) :]).mean
    return RunEnd(
        run=reader.id,
        name=run.name,
        arm=arm.label,
        meta_seed=run.meta_seed,
        state=status.state,
        step=status.step,
        total=status.total,
        validation_loss=latest.get("validation_loss"),
        best_validation_loss=min(filter(math.isfinite, reader.series("validation_loss")[1]), default=None),
        diverged=latest.get("diverged"),
        penalty_shares=shares,
        best_scale=reader.best_scale().get("scale"),
        problem=run.problem,
    )


def _steps(tasks: Sequence[TaskOutcomes], arms: Sequence[Arm], step: int | None) -> dict[str, int]:
    """The inner step of every task's table; a task that was not measured at the one asked for has none."""
    if step is None:
        last = {task.name: last_common_step(task, arms) for task in tasks}
        return {name: at for name, at in last.items() if at is not None}
    steps = {task.name: step for task in tasks if step in task.steps}
    return steps or refuse("--step", step, sorted({at for task in tasks for at in task.steps}))


def _is_evaluated(task: TaskOutcomes, arm: Arm, step: int) -> bool:
    entry = task.main(arm)
    return entry is not None and step in entry.steps


def _notes(
    arms: Sequence[Arm],
    reference: Arm,
    tasks: Sequence[TaskOutcomes],
    tables: Sequence[Table],
    differences: Sequence[Effect],
) -> list[str]:
    """What a reader of the tables should know, each said once."""
    notes = []
    for task, shown in zip(tasks, tables, strict=True):
        where = f"{task.name} after {shown.inner_step} inner steps"
        missing = [arm.label for arm in arms if not _is_evaluated(task, arm, shown.inner_step)]
        if missing:
            notes.append(f"{where}: not evaluated: {', '.join(missing)}")
        if len(shown.protocols) > 1:
            notes.append(f"{where}: the probes were not made alike (examples, restarts, ascent steps differ)")
    pairs = zip(tasks, tables, strict=True)
    unscaled = [task.name for task, shown in pairs if not has_frontier(task, shown.inner_step, reference)]
    if unscaled and len(arms) > 1:
        notes.append(
            f"no scale frontier on {', '.join(unscaled)}: {reference.label} has fewer than two scales besides 1 there "
            "(lreg transfer RUN --scales 0.5,0.7,1,1.4,2,2.8)"
        )
    at_edge = [
        task.name
        for task, shown in zip(tasks, tables, strict=True)
        if max(task.scaled(reference), default=0.0) in best_scales(task, shown.inner_step, reference).values()
    ]
    if at_edge and len(arms) > 1:
        notes.append(
            f"the best scale of {reference.label} is the largest that was evaluated on {', '.join(at_edge)}: its "
            "regular frontier may go on"
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
