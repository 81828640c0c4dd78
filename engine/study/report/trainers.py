"""Trainers: everybody who has trained optimizees on a task, for the report's tables."""

from __future__ import annotations

from dataclasses import dataclass

from engine.comparison import Entry, Outcome
from engine.study.report.evidence import Evidence


@dataclass(frozen=True)
class Trainer:
    """What has trained optimizees on a task: an arm as it is, one that is scaled or untrained, or a baseline.

    `step`: where it is looked at; of a baseline at equal passes fewer than the others' steps. `arm` is empty for a
    baseline.
    """

    label: str
    kind: str
    arm: str
    entry: Entry
    step: int

    @property
    def outcomes(self) -> dict[int | str | None, dict[int, Outcome]]:
        return self.entry.at(self.step)

    @property
    def every(self) -> list[Outcome]:
        """The optimizees of all meta-seeds."""
        return [outcome for seeds in self.outcomes.values() for outcome in seeds.values()]

    @property
    def diverged(self) -> int:
        return sum(outcome.diverged for outcome in self.every)


def trainers(found: Evidence, task: str, step: int) -> list[Trainer]:
    """Everybody who was measured at an inner step: arms, scaled ones, untrained ones, baselines."""
    outcomes, arms = found.tasks[task], list(found.arms.values())
    mains = [(arm.label, outcomes.main(arm)) for arm in arms]
    there = [Trainer(label, "arm", label, entry, step) for label, entry in mains if entry is not None]
    there += [
        Trainer(f"{arm.label} x{scale:g}", "scaled", arm.label, entry, step)
        for arm in arms
        for scale, entry in outcomes.scaled(arm).items()
        if scale != 1
    ]
    fresh = outcomes.untrained.items()
    there += [Trainer(f"{label} (untrained)", "untrained", label, entry, step) for label, entry in fresh]
    for name, entry in outcomes.baselines.items():
        passes = entry.facts_at(step).passes_per_step
        there.append(Trainer(name, "baseline", "", entry, step))
        if passes > 1:
            there.append(Trainer(f"{name} at equal passes", "equal passes", "", entry, step // passes))
    return [trainer for trainer in there if trainer.outcomes]
