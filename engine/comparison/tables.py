"""The table of a task at one inner step: arms, their controls, and baselines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.comparison.arms import Arm
from engine.comparison.evaluations import NORMALISED, UPDATE_RULE, Facts, Figure, Outcome
from engine.comparison.outcomes import Entry, TaskOutcomes
from engine.comparison.paired import TRAIN_LOSS
from engine.comparison.statistics import Cell, cell
from engine.runs.results import mean

ARM, CHECKPOINT, SCALED, UNTRAINED, BASELINE, EQUAL_PASSES = (
    "arm",
    "checkpoint",
    "scaled",
    "untrained",
    "baseline",
    "equal passes",
)
LOWER_IS_BETTER = ("train_loss", "test_loss", "sharpness", "max_grad_norm", "top_eigenvalue", NORMALISED)
HIGHER_IS_BETTER = ("test_accuracy",)
SAME = 1e-6  # relative difference between figures of one evaluation that was made twice


@dataclass(frozen=True)
class Row:
    """One optimizer: means over `seeds` optimizees of `meta_seeds` meta-seeds; `diverged` of them are left out.

    `kind`: an arm as it is, another checkpoint of it, a scaled one, an untrained one, a baseline, or a baseline at the
    inner step where it has had as many forward/backward passes as the others. `inner_step` and `passes` are counts.
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
    figures: Mapping[Figure, Cell]
    update_rule: Mapping[str, float | None] = field(default_factory=dict)  # means over meta-seeds


@dataclass(frozen=True)
class Table:
    """The rows of a task at one inner step: arms, scaled ones, untrained ones, baselines."""

    task: str
    inner_step: int
    rows: tuple[Row, ...]
    protocols: frozenset[tuple[Any, ...]] = field(default=frozenset())

    def best(self, figure: Figure) -> frozenset[int]:
        """Which rows have the best mean: never one of which a seed diverged, nor an untrained one, which may be flat
        because it has not moved. None where a figure is neither good nor bad, with fewer than two rows, or if all are
        equal.
        """
        sign = (figure.name in LOWER_IS_BETTER) - (figure.name in HIGHER_IS_BETTER)
        means = {
            index: sign * found.mean
            for index, row in enumerate(self.rows)
            if not row.diverged
            and row.kind != UNTRAINED
            and (found := row.figures.get(figure)) is not None
            and found.mean is not None
        }
        if not sign or len(set(means.values())) < 2:
            return frozenset()
        lowest = min(means.values())
        return frozenset(index for index, value in means.items() if value == lowest)


def last_common_step(task: TaskOutcomes, arms: Sequence[Arm]) -> int | None:
    """The largest inner step at which every arm that was evaluated on the task was measured, else the largest."""
    steps = [entry.steps for arm in arms if (entry := task.main(arm)) is not None]
    steps = steps or [entry.steps for entry in task.entries]
    return max(set.intersection(*steps) or set.union(*steps), default=None) if steps else None


def table(task: TaskOutcomes, step: int, arms: Sequence[Arm]) -> Table:
    """All rows of a task at an inner step; what was not measured there is absent."""
    rows: list[Row | None] = [
        _row(entry, step, ARM, arm.label) for arm in arms if (entry := task.main(arm)) is not None
    ]
    for arm in arms:
        main = task.checkpoint(arm)
        for (label, checkpoint, scale), entry in sorted(task.trained.items()):
            if label == arm.label and (checkpoint, scale) != (main, 1):
                other = f" ({checkpoint})" if checkpoint != main else ""
                factor = f" ×{scale:g}" if scale != 1 else ""
                rows.append(_row(entry, step, SCALED if factor else CHECKPOINT, label + other + factor))
    rows += _untrained(task, step, arms)
    for label, entry in sorted(
        task.baselines.items(), key=lambda item: (item[1].facts_at(step).passes_per_step, item[0])
    ):
        rows += [_row(entry, step, BASELINE, label), _at_equal_passes(entry, step, label)]
    found = tuple(row for row in rows if row is not None)
    protocols = frozenset(facts.protocol for entry in task.entries for facts in entry.facts.get(step, {}).values())
    return Table(task.name, step, found, protocols)


def _row(entry: Entry, step: int, kind: str, label: str) -> Row | None:
    outcomes = entry.at(step)
    if not outcomes:
        return None
    facts = entry.facts_at(step)
    every = [outcome for seeds in outcomes.values() for outcome in seeds.values()]
    names = dict.fromkeys(figure for outcome in every for figure in outcome.figures)
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
        figures={figure: cell(outcomes, figure) for figure in names},
        update_rule=_update_rule(entry.facts.get(step, {}).values()),
    )


def _update_rule(facts: Iterable[Facts]) -> dict[str, float | None]:
    known = [one.update_rule for one in facts if one.update_rule]
    return {name: mean(column).mean for name, column in zip(UPDATE_RULE, zip(*known, strict=True), strict=False)}


def _at_equal_passes(entry: Entry, step: int, label: str) -> Row | None:
    """A baseline that takes several passes a step, where it has had as many as one that takes one."""
    passes = entry.facts_at(step).passes_per_step
    return _row(entry, step // passes, EQUAL_PASSES, f"{label} at equal passes") if passes > 1 else None


def _untrained(task: TaskOutcomes, step: int, arms: Sequence[Arm]) -> list[Row | None]:
    """Arms that begin with the same meta-parameters share one row."""
    shared: list[tuple[list[str], Entry]] = []
    for label, entry in ((arm.label, task.untrained[arm.label]) for arm in arms if arm.label in task.untrained):
        there = entry.at(step)
        for labels, other in shared:
            if (
                there
                and _is_same(there, other.at(step))
                and entry.facts_at(step).optimizer == other.facts_at(step).optimizer
            ):
                labels.append(label)
                for meta_seed in there:
                    if meta_seed not in other.outcomes:
                        other.add(meta_seed, entry.facts[step][meta_seed], {step: there[meta_seed]})
                break
        else:
            if there:
                copy = Entry(entry.arm)
                for meta_seed, outcomes in there.items():
                    copy.add(meta_seed, entry.facts[step][meta_seed], {step: outcomes})
                shared.append(([label], copy))
    return [
        _row(entry, step, UNTRAINED, "untrained" if len(shared) == 1 else f"{labels[0]} (untrained)")
        for labels, entry in shared
    ]


def _is_same(first: Mapping[Any, Mapping[int, Outcome]], second: Mapping[Any, Mapping[int, Outcome]]) -> bool:
    """Whether two evaluations found the same train losses wherever they have a meta-seed and a seed in common."""
    both = [
        (first[meta_seed][seed].figures.get(TRAIN_LOSS), second[meta_seed][seed].figures.get(TRAIN_LOSS))
        for meta_seed in first.keys() & second.keys()
        for seed in first[meta_seed].keys() & second[meta_seed].keys()
    ]
    return bool(both) and all(
        one == other or (one is not None and other is not None and math.isclose(one, other, rel_tol=SAME))
        for one, other in both
    )
