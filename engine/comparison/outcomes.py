"""Transfer evaluations of the compared arms, sorted by task and by what was evaluated."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.comparison.arms import Arm
from engine.comparison.evaluations import Facts, Marks, Outcome, read_evaluation
from engine.runs.results import CHECKPOINT_ORDER
from engine.runs.store import RunReader


@dataclass
class Entry:
    """One optimizer on one task, over meta-seeds and optimizee seeds.

    `outcomes` are by meta-seed (None for a baseline), inner step and optimizee seed; `facts` are by inner step and
    meta-seed, those of the evaluation that the outcomes come from. `arm` is None for a baseline.
    """

    arm: Arm | None
    outcomes: dict[int | str | None, dict[int, dict[int, Outcome]]] = field(default_factory=dict)
    facts: dict[int, dict[int | str | None, Facts]] = field(default_factory=dict)

    def facts_at(self, step: int) -> Facts:
        """What the newest evaluation says that measured at an inner step; at none: any."""
        found = self.facts.get(step) or next(iter(self.facts.values()))
        return max(found.values(), key=lambda facts: facts.created)

    @property
    def steps(self) -> set[int]:
        """The inner steps at which anything was measured."""
        return set(self.facts)

    def at(self, step: int) -> dict[int | str | None, dict[int, Outcome]]:
        """Outcomes at one inner step by meta-seed and optimizee seed."""
        return {seed: steps[step] for seed, steps in self.outcomes.items() if step in steps}

    def path(self, meta_seed: int | str | None, seed: int, last: int) -> list[Outcome]:
        """The outcomes of one optimizee along its marks up to inner step `last`."""
        steps = self.outcomes.get(meta_seed, {})
        return [steps[step][seed] for step in sorted(steps) if step <= last and seed in steps[step]]

    def add(self, meta_seed: int | str | None, facts: Facts, marks: Marks) -> None:
        """Take an evaluation that is newer than those before; at its own inner steps it replaces them.

        But one of fewer optimizees replaces none of more: a quick look by hand takes nothing from a study.

        Figures that it lacks (at other radii, say) stay where they are of the same optimizer and optimizees and were
        probed alike. Where they are of other meta-parameters, nothing stays at any inner step: the run has gone on
        since, and a checkpoint of the same name is another learned optimizer.
        """
        if any(self._is_other(own[meta_seed], facts) for own in self.facts.values() if meta_seed in own):
            del self.outcomes[meta_seed]
            for own in self.facts.values():
                own.pop(meta_seed, None)
            self.facts = {step: own for step, own in self.facts.items() if own}
        for step, outcomes in marks.items():
            own = self.facts.setdefault(step, {})
            before = self.outcomes.setdefault(meta_seed, {}).get(step, {})
            if len(outcomes) < len(before):
                continue
            is_same = meta_seed in own and own[meta_seed].is_comparable(facts) and before.keys() == outcomes.keys()
            self.outcomes[meta_seed][step] = _merged(before, outcomes) if is_same else outcomes
            own[meta_seed] = facts

    @staticmethod
    def _is_other(before: Facts, now: Facts) -> bool:
        return bool(before.digest and now.digest) and before.digest != now.digest


def _merged(before: Mapping[int, Outcome], now: Mapping[int, Outcome]) -> dict[int, Outcome]:
    return {seed: replace(new, figures={**before[seed].figures, **new.figures}) for seed, new in now.items()}


@dataclass
class TaskOutcomes:
    """All that was evaluated on one task. `trained` are by arm label, checkpoint and scale."""

    name: str
    trained: dict[tuple[str, str, float], Entry] = field(default_factory=dict)
    untrained: dict[str, Entry] = field(default_factory=dict)
    baselines: dict[str, Entry] = field(default_factory=dict)

    def checkpoint(self, arm: Arm) -> str | None:
        """The checkpoint that an arm is judged by: best where it was evaluated, else last."""
        found = {checkpoint for label, checkpoint, scale in self.trained if label == arm.label and scale == 1}
        return next((name for name in (*CHECKPOINT_ORDER, *sorted(found)) if name in found), None)

    def main(self, arm: Arm) -> Entry | None:
        """The arm's learned optimizer as it is, without a factor; None where it was not evaluated."""
        return self.trained.get((arm.label, self.checkpoint(arm) or "", 1.0))

    def scaled(self, arm: Arm) -> dict[float, Entry]:
        """The same by the factor of its updates, ascending, 1 among them."""
        wanted = (arm.label, self.checkpoint(arm))
        found = {scale: entry for (*key, scale), entry in self.trained.items() if tuple(key) == wanted}
        return dict(sorted(found.items()))

    @property
    def entries(self) -> list[Entry]:
        return [*self.trained.values(), *self.untrained.values(), *self.baselines.values()]


def collect(arms: Sequence[Arm]) -> tuple[dict[str, TaskOutcomes], int]:
    """Every task's outcomes by its name, and how many transfer files are damaged.

    Where several evaluations are of the same thing, the newest counts.
    """
    found: list[tuple[Facts, Arm, int | str, Marks]] = []
    copies: dict[tuple[Facts, int], Marks] = {}  # every run has one of each baseline
    damaged = 0
    for arm in arms:
        for run in arm.runs:
            evaluations = run.reader.transfers()
            read = [(facts, marks) for item in evaluations.values() for facts, marks in read_evaluation(item, copies)]
            found += [(facts, arm, run.meta_seed, marks) for facts, marks in read]
            damaged += max(_files(run.reader), len(evaluations)) - len(read)
    tasks: dict[str, TaskOutcomes] = {}
    for facts, arm, meta_seed, marks in sorted(found, key=lambda item: item[0].created):
        task = tasks.setdefault(facts.task, TaskOutcomes(facts.task))
        if facts.is_baseline:
            task.baselines.setdefault(facts.optimizer, Entry(None)).add(None, facts, marks)
        elif facts.is_untrained:
            task.untrained.setdefault(arm.label, Entry(arm)).add(meta_seed, facts, marks)
        else:
            key = (arm.label, facts.checkpoint, facts.scale)
            task.trained.setdefault(key, Entry(arm)).add(meta_seed, facts, marks)
    return dict(sorted(tasks.items())), damaged


def radii_of(tasks: Iterable[TaskOutcomes]) -> list[str]:
    """The radii that sharpness was measured at, ascending, as they are typed."""
    figures = {
        figure
        for task in tasks
        for entry in task.entries
        for steps in entry.outcomes.values()
        for outcomes in steps.values()
        for outcome in outcomes.values()
        for figure in outcome.figures
    }
    return sorted({figure.radius for figure in figures if figure.name == "sharpness" and figure.radius}, key=float)


def _files(reader: RunReader) -> int:
    try:
        names = os.listdir(reader.path / "transfer")
    except OSError:
        return 0
    return sum(name.endswith(".json") and not name.startswith(".") for name in names)
