"""Everything that a comparison of runs says: arms, settings, final figures, tables, paired differences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.base.metrics import Metric, metric
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
from engine.comparison.outcomes import (
    TaskOutcomes,
    TaskResult,
    Variant,
    chosen_radius,
    chosen_tasks,
    collect,
    radii_of,
    refuse,
)
from engine.comparison.paired import EQUAL_STEPS, Effect, best_scales, effects, has_frontier, is_compared, more_diverged
from engine.comparison.statistics import Interval, interval_of
from engine.runs.evaluations import ADAPTIVE, NORMALISED, UPDATE_RULE, Facts, MetricAt, middle, radii
from engine.runs.results import mean
from engine.runs.store import RunReader

ARM, CHECKPOINT, SCALED, DECAYED, SAM, UNTRAINED, BASELINE, EQUAL_PASSES = (
    "arm",
    "checkpoint",
    "scaled",
    "decayed",
    "sam",
    "untrained",
    "baseline",
    "equal passes",
)
ENOUGH_META_SEEDS = 5  # with fewer, t-intervals are so wide that little but large differences is found
END = ("validation_loss", "diverged")
LAST_PART = 10  # a penalty's share is averaged over the last tenth of the records


@dataclass(frozen=True)
class ComparisonRow:
    """One optimizer: means over `seeds` optimizees of `meta_seeds` meta-seeds; `diverged` of them are left out.

    `kind`: an arm as it is, another checkpoint of it, a scaled one, one under weight decay (and scaled), one
    with SAM around it, an untrained one, a baseline, or a baseline at the inner step where it has had as many
    forward/backward passes as the others. `inner_step` and `passes` are counts.
    """

    label: str
    kind: str
    arm: str | None
    facts: Facts
    inner_step: int
    passes: int
    meta_seeds: int
    seeds: int
    diverged: int
    metrics: Mapping[MetricAt, Interval]
    update_rule: Mapping[str, float | None] = field(default_factory=dict)  # means over meta-seeds


@dataclass(frozen=True)
class ComparisonTable:
    """The rows of a task at one inner step: arms, scaled and decayed ones, untrained ones, baselines.

    `metrics`: those that some row has, by name.
    """

    task: str
    inner_step: int
    rows: tuple[ComparisonRow, ...]
    protocols: frozenset[tuple[Any, ...]]
    metrics: Mapping[str, Metric]

    @property
    def adaptive_radius(self) -> str | None:
        """The radius at which adaptive sharpness is shown; None where no row has it."""
        return middle(radii((at for row in self.rows for at in row.metrics), ADAPTIVE))

    def best(self, at: MetricAt) -> frozenset[int]:
        """Which rows have the best mean: never one of which a seed diverged, nor an untrained one, which may be
        flat because it has not moved, nor one of a grid, of which there are many. None where arms are not
        compared in a metric, with fewer than two rows, or if all are equal.
        """
        metric = self.metrics.get(at.name)
        means = {
            index: mean
            for index, row in enumerate(self.rows)
            if not row.diverged and row.kind not in (UNTRAINED, DECAYED)
            if at in row.metrics and (mean := row.metrics[at].mean) is not None
        }
        if metric is None or not (is_compared(metric) or at.name == NORMALISED) or len(set(means.values())) < 2:
            return frozenset()
        best = metric.best(means.values())
        return frozenset(index for index, value in means.items() if metric.sign and value == best)


def last_common_step(task: TaskOutcomes, arms: Sequence[Arm]) -> int | None:
    """The largest inner step at which every arm that was evaluated on the task was measured, else the largest."""
    steps = [entry.steps for arm in arms if (entry := task.main(arm)) is not None]
    steps = steps or [entry.steps for entry in task.entries]
    return max(set.intersection(*steps) or set.union(*steps), default=None) if steps else None


def table(task: TaskOutcomes, step: int, arms: Sequence[Arm]) -> ComparisonTable:
    """All rows of a task at an inner step; what was not measured there is absent."""
    rows = [_row(entry, step, ARM, arm.label) for arm in arms if (entry := task.main(arm)) is not None]
    for arm in arms:
        main = task.checkpoint(arm)
        variants = [
            one for one in task.trained if one.arm == arm.label and (one.checkpoint != main or not one.is_plain)
        ]
        for one in sorted(variants, key=lambda one: (one.checkpoint, one.sam, one.weight_decay, one.scale)):
            rows.append(_row(task.trained[one], step, _kind(one), _label(one, main)))
    rows += [_row(entry, step, UNTRAINED, name) for name, entry in task.without_training(arms).values()]
    for label, entry in sorted(
        task.baselines.items(), key=lambda item: (item[1].facts_at(step).passes_per_step, item[0])
    ):
        rows.append(_row(entry, step, BASELINE, label))
        if (passes := entry.facts_at(step).passes_per_step) > 1:
            rows.append(_row(entry, step // passes, EQUAL_PASSES, f"{label} at equal passes"))
    measured = [row for row in rows if row is not None]
    names = dict.fromkeys(at.name for row in measured for at in row.metrics)
    protocols = frozenset(facts.protocol for entry in task.entries for facts in entry.facts.get(step, {}).values())
    return ComparisonTable(task.name, step, tuple(measured), protocols, {name: task.metric(name) for name in names})


def _kind(variant: Variant) -> str:
    if variant.sam:
        return SAM
    return DECAYED if variant.weight_decay else SCALED if variant.scale != 1 else CHECKPOINT


def _label(variant: Variant, main: str | None) -> str:
    words = [variant.arm]
    words += [f"({variant.checkpoint})"] if variant.checkpoint != main else []
    words += [f"×{variant.scale:g}"] if variant.scale != 1 else []
    words += [f"decay {variant.weight_decay:g}"] if variant.weight_decay else []
    return " ".join([*words, f"SAM {variant.sam:g}"] if variant.sam else words)


def _row(entry: TaskResult, step: int, kind: str, label: str) -> ComparisonRow | None:
    outcomes = entry.at(step)
    if not outcomes:
        return None
    facts = entry.facts_at(step)
    every = [outcome for seeds in outcomes.values() for outcome in seeds.values()]
    rules = [facts.update_rule for facts in entry.facts[step].values() if facts.update_rule]
    return ComparisonRow(
        label=label,
        kind=kind,
        arm=None if entry.arm is None else entry.arm.label,
        facts=facts,
        inner_step=step,
        passes=step * facts.passes_per_step,
        meta_seeds=0 if entry.arm is None else len(outcomes),
        seeds=len(every),
        diverged=sum(outcome.diverged for outcome in every),
        metrics={
            at: interval_of(outcomes, at) for at in dict.fromkeys(at for outcome in every for at in outcome.metrics)
        },
        update_rule={
            name: mean(values).mean for name, values in zip(UPDATE_RULE, zip(*rules, strict=True), strict=False)
        },
    )


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
    tables: tuple[ComparisonTable, ...]
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
    tables = [table(one, steps[one.name], arms) for one in tasks_there]
    pairs = ((one, arm) for one in tasks_there for arm in arms if arm is not chosen)
    differences = [effect for one, arm in pairs for effect in effects(one, steps[one.name], arm, chosen)]
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
        notes=tuple(notes(arms, chosen, tasks_there, tables, differences)),
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


def notes(
    arms: Sequence[Arm],
    reference: Arm,
    tasks: Sequence[TaskOutcomes],
    tables: Sequence[ComparisonTable],
    differences: Sequence[Effect],
) -> Iterator[str]:
    """What a reader of the tables should know, each said once."""
    unscaled, at_edge = [], []
    for task, task_table in zip(tasks, tables, strict=True):
        step = task_table.inner_step
        where = f"{task.name} after {step} inner steps"
        missing = [arm.label for arm in arms if not _is_evaluated(task, arm, step)]
        if missing:
            yield f"{where}: not evaluated: {', '.join(missing)}"
        if len(task_table.protocols) > 1:
            yield f"{where}: the probes were not made alike (examples, restarts, ascent steps differ)"
        unscaled += [] if has_frontier(task, step, reference) else [task.name]
        is_at_edge = max(task.scaled(reference), default=0.0) in best_scales(task, step, reference).values()
        at_edge += [task.name] if is_at_edge else []
    if unscaled and len(arms) > 1:
        yield (
            f"no scale frontier on {', '.join(unscaled)}: {reference.label} has fewer than two scales besides 1 there "
            "(lreg transfer RUN --scales 0.5,0.7,1,1.4,2,2.8)"
        )
    if at_edge and len(arms) > 1:
        yield (
            f"the best scale of {reference.label} is the largest that was evaluated on {', '.join(at_edge)}: its "
            "regular frontier may go on"
        )
    first = [effect for effect in differences if effect.setting == EQUAL_STEPS]
    if single := sorted({effect.arm for effect in first if effect.interval.meta_seeds == 1}):
        yield (
            f"one meta-seed only: {', '.join(single)}; intervals are over optimizee seeds: they compare these very "
            "runs, and say nothing about meta-training once more"
        )
    if few := sorted({effect.arm for effect in first if 1 < effect.interval.meta_seeds < ENOUGH_META_SEEDS}):
        yield (
            f"fewer than {ENOUGH_META_SEEDS} meta-seeds: {', '.join(few)}; t-intervals over so few are wide: what "
            "they do not show may well be there"
        )
    if lost := sorted({f"{effect.arm} on {effect.task}" for effect in first if more_diverged(effect) > 0}):
        yield (
            f"clearly more optimizees diverged than with {reference.label}: {', '.join(lost)}; the pairs are of the "
            "others alone"
        )
    if unmatched := sorted({effect.arm for effect in first if not effect.meta_seeds_match}):
        yield f"no meta-seed in common with {reference.label}, so paired in their order: {', '.join(unmatched)}"
