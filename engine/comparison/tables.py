"""The table of a task at one inner step: arms, their controls, and baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.base.metrics import Metric
from engine.comparison.arms import Arm
from engine.comparison.outcomes import Entry, TaskOutcomes, Variant
from engine.comparison.paired import is_compared
from engine.comparison.statistics import Interval, interval_of
from engine.runs.evaluations import ADAPTIVE, NORMALISED, UPDATE_RULE, Facts, MetricAt, middle, radii
from engine.runs.results import mean

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


@dataclass(frozen=True)
class Row:
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
class Table:
    """The rows of a task at one inner step: arms, scaled and decayed ones, untrained ones, baselines.

    `metrics`: those that some row has, by name.
    """

    task: str
    inner_step: int
    rows: tuple[Row, ...]
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


def table(task: TaskOutcomes, step: int, arms: Sequence[Arm]) -> Table:
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
    return Table(task.name, step, tuple(measured), protocols, {name: task.metric(name) for name in names})


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


def _row(entry: Entry, step: int, kind: str, label: str) -> Row | None:
    outcomes = entry.at(step)
    if not outcomes:
        return None
    facts = entry.facts_at(step)
    every = [outcome for seeds in outcomes.values() for outcome in seeds.values()]
    rules = [one.update_rule for one in entry.facts[step].values() if one.update_rule]
    return Row(
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
