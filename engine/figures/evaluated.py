"""Reading transfer evaluations for figures: at the marks, and along the learning curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.base.errors import LregError, printable
from engine.comparison import Arm, ArmRun, Entry, Figure, Outcome, TaskOutcomes, collect, radii_of, t_interval
from engine.figures.base import ARM, BASELINE, KINDS, UNTRAINED, Who, in_order
from engine.runs.reader import RunReader

MOST_TASKS = 9
TRAIN_LOSS = Figure("train_loss")
Estimate = tuple[float, float, float]
"""A mean over meta-seeds of the means over their optimizees, and the ends of its 95% t-interval (of one: itself)."""
Outcomes = Mapping[Any, Mapping[int, Outcome]]
"""By meta-seed and optimizee seed."""


@dataclass(frozen=True)
class Evaluated:
    """The transfer evaluations of some arms: at the marks, and along the learning curves."""

    arms: Sequence[Arm]
    marks: Mapping[str, TaskOutcomes]
    curves: Mapping[str, TaskOutcomes]
    damaged: int
    radius: str
    step: int | None

    @property
    def ordered_arms(self) -> list[Arm]:
        """The reference arm first, then the others as they were given."""
        return in_order(self.arms)


def evaluated(
    arms: Sequence[Arm], task: str | None = None, step: int | None = None, radius: float | None = None
) -> Evaluated:
    """Read all that the arms' runs hold. Raises LregError where a task, step or radius was not evaluated."""
    marks, damaged = collect(arms)
    curves, _ = collect([replace(arm, runs=tuple(map(_along_the_curve, arm.runs))) for arm in arms])
    names = _tasks(marks, task)
    if len(names) > MOST_TASKS:
        raise LregError(f"{len(names)} tasks are too many for one page; choose with --task: {_listed(names)}")
    chosen = {name: marks[name] for name in names}
    steps = {found for outcomes in chosen.values() for entry in outcomes.entries for found in entry.steps}
    if step is not None and step not in steps:
        raise LregError(f"--step: found {step}; measured: {_listed(sorted(steps)) or 'nothing'}")
    curves = {name: curves[name] for name in names if name in curves}
    return Evaluated(arms, chosen, curves, damaged, _radius(radii_of(chosen.values()), radius), step)


def _tasks(marks: Mapping[str, TaskOutcomes], wanted: str | None) -> list[str]:
    names = list(marks)
    if wanted is None:
        return names
    found = [name for name in names if wanted in (name, name.partition(" ")[0])]
    if not found:
        raise LregError(f"--task: found {printable(wanted)!r}; evaluated: {_listed(names) or 'nothing'}")
    return found


def _radius(radii: Sequence[str], wanted: float | None) -> str:
    """The radius as it is typed; the middle one where none is wanted."""
    if wanted is None:
        return radii[len(radii) // 2] if radii else ""
    found = [radius for radius in radii if abs(float(radius) - wanted) <= 1e-9 * wanted]
    if not found:
        raise LregError(f"--radius: found {wanted:g}; measured: {_listed(radii) or 'nothing'}")
    return found[0]


def _listed(items: Sequence[Any]) -> str:
    return ", ".join(printable(str(item)) for item in items)


class _CurveReader(RunReader):
    """A run whose transfer evaluations have the points of their learning curves in place of their marks."""

    def transfers(self) -> dict[str, dict[str, Any]]:
        return {name: _with_curves(found) for name, found in super().transfers().items()}


def _along_the_curve(run: ArmRun) -> ArmRun:
    return replace(run, reader=_CurveReader(run.reader.path))


def _with_curves(evaluation: dict[str, Any]) -> dict[str, Any]:
    seeds = evaluation.get("seeds")
    seeds = [seed for seed in seeds if isinstance(seed, dict)] if isinstance(seeds, list) else []
    return {**evaluation, "seeds": [{**seed, "marks": list(_points(seed.get("curve")))} for seed in seeds]}


def _points(curve: Any) -> Iterator[dict[str, Any]]:
    steps, losses = (curve.get(key) if isinstance(curve, dict) else None for key in ("inner_step", "train_loss"))
    for step, loss in zip(steps, losses, strict=False) if isinstance(steps, list) and isinstance(losses, list) else ():
        yield {"inner_step": step, "train_loss": loss}


def everybody(found: Evaluated, task: TaskOutcomes) -> dict[Who, Entry]:
    """Arms at scale 1, untrained learned optimizers (equal ones together), baselines: as far as they were evaluated."""
    ordered = found.ordered_arms
    people: dict[Who, Entry] = {}
    for number, arm in enumerate(ordered):
        entry = task.main(arm)
        if entry is not None:
            people[Who(ARM, number, arm.label)] = entry
    people |= _untrained(ordered, task)
    numbers = {label: number for number, label in enumerate(_baseline_labels(found))}
    people |= {Who(BASELINE, numbers[label], label): entry for label, entry in task.baselines.items()}
    return dict(sorted(people.items(), key=lambda item: (KINDS.index(item[0].kind), item[0].number)))


def _untrained(arms: Sequence[Arm], task: TaskOutcomes) -> dict[Who, Entry]:
    """Arms that begin with the same meta-parameters share an untrained optimizer."""
    kept: dict[Who, Entry] = {}
    for number, arm in enumerate(arms):
        entry = task.untrained.get(arm.label)
        if entry is None:
            continue
        same = next((other for other in kept.values() if _is_same(entry, other)), None)
        if same is None:
            outcomes = {meta_seed: dict(steps) for meta_seed, steps in entry.outcomes.items()}
            kept[Who(UNTRAINED, number, f"{arm.label} (untrained)")] = Entry(entry.arm, outcomes, dict(entry.facts))
            continue
        for meta_seed, steps in entry.outcomes.items():
            same.outcomes.setdefault(meta_seed, dict(steps))
    return kept if len(kept) != 1 else {replace(who, label="untrained"): entry for who, entry in kept.items()}


def _is_same(one: Entry, other: Entry) -> bool:
    """Whether two found the same train losses wherever they have meta-seed, inner step and optimizee in common."""
    pairs = [
        (outcome.figures.get(TRAIN_LOSS), other.outcomes[meta_seed][step][seed].figures.get(TRAIN_LOSS))
        for meta_seed, steps in one.outcomes.items()
        for step, outcomes in steps.items()
        for seed, outcome in outcomes.items()
        if seed in other.outcomes.get(meta_seed, {}).get(step, {})
    ]
    there = [(mine, its) for mine, its in pairs if mine is not None and its is not None]
    return bool(there) and all(math.isclose(mine, its, rel_tol=1e-6) for mine, its in there)


def _baseline_labels(found: Evaluated) -> list[str]:
    """All baselines in the order of their names, so that each looks the same in every panel."""
    return sorted(
        {label for tasks in (found.marks, found.curves) for task in tasks.values() for label in task.baselines}
    )


def estimate(outcomes: Outcomes, figure: Figure) -> Estimate | None:
    """Of the optimizees that did not diverge; None where nothing was measured."""
    interval = t_interval(_values(outcomes, figure))
    if interval.mean is None:
        return None
    if interval.low is None or interval.high is None:
        return interval.mean, interval.mean, interval.mean
    return interval.mean, interval.low, interval.high


def drawn(outcomes: Outcomes, figure: Figure) -> Estimate | None:
    """The same for a figure. Of two meta-seeds, whose t-interval is 13 standard errors and would hide everything, the
    means of both in place of its ends.
    """
    means = [math.fsum(own.values()) / len(own) for own in _values(outcomes, figure).values() if own]
    return (sum(means) / 2, min(means), max(means)) if len(means) == 2 else estimate(outcomes, figure)


def _values(outcomes: Outcomes, figure: Figure) -> dict[Any, dict[int, float]]:
    return {
        meta_seed: {
            seed: outcome.figures[figure]
            for seed, outcome in seeds.items()
            if not outcome.diverged and figure in outcome.figures
        }
        for meta_seed, seeds in outcomes.items()
    }
