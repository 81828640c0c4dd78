"""Transfer evaluations of the compared arms, sorted by task and by what was evaluated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, NoReturn

from engine.base.errors import Problem, SettingsError
from engine.base.metrics import Metric, metric
from engine.base.settings import did_you_mean, show
from engine.comparison.arms import Arm
from engine.runs.evaluations import (
    CHECKPOINT_ORDER,
    TRAIN_LOSS,
    Facts,
    Marks,
    MetricAt,
    OptimizeeOutcome,
    middle,
    radii,
    read_facts,
    read_marks,
)

SAME = 1e-6  # relative difference between losses of one evaluation that was made twice
MetaSeed = int | str | None  # None: a baseline has none
Outcomes = Mapping[MetaSeed, Mapping[int, OptimizeeOutcome]]
"""By meta-seed and optimizee seed."""


class Variant(NamedTuple):
    """An arm's learned optimizer as it was evaluated: from a checkpoint, under a scale, a weight decay and SAM."""

    arm: str
    checkpoint: str
    scale: float = 1.0
    weight_decay: float = 0.0
    sam: float = 0.0

    @property
    def is_plain(self) -> bool:
        """Whether it is as it was meta-trained."""
        return self[2:] == (1.0, 0.0, 0.0)


@dataclass
class TaskResult:
    """One optimizer on one task, over meta-seeds and optimizee seeds.

    `outcomes` are by meta-seed, inner step and optimizee seed; `facts` are by inner step and meta-seed, those of the
    evaluation that the outcomes come from. `arm` is None for a baseline.
    """

    arm: Arm | None
    outcomes: dict[MetaSeed, dict[int, dict[int, OptimizeeOutcome]]] = field(default_factory=dict)
    facts: dict[int, dict[MetaSeed, Facts]] = field(default_factory=dict)

    def facts_at(self, step: int) -> Facts:
        """What the newest evaluation says that measured at an inner step; at none: any."""
        facts = self.facts.get(step) or next(iter(self.facts.values()))
        return max(facts.values(), key=lambda fact: fact.created)

    @property
    def steps(self) -> set[int]:
        """The inner steps at which anything was measured."""
        return set(self.facts)

    def at(self, step: int) -> dict[MetaSeed, dict[int, OptimizeeOutcome]]:
        """Outcomes at one inner step by meta-seed and optimizee seed."""
        return {seed: steps[step] for seed, steps in self.outcomes.items() if step in steps}

    def path(self, meta_seed: MetaSeed, seed: int, last: int) -> list[OptimizeeOutcome]:
        """The outcomes of one optimizee along its marks up to inner step `last`."""
        steps = self.outcomes.get(meta_seed, {})
        return [steps[step][seed] for step in sorted(steps) if step <= last and seed in steps[step]]

    def add(self, meta_seed: MetaSeed, facts: Facts, marks: Marks) -> None:
        """Take an evaluation that is newer than those before; at its own inner steps it replaces them.

        But one of fewer optimizees replaces none of more: a quick look by hand takes nothing from a study.

        Metrics that it lacks (at other radii, say) stay where they are of the same optimizer and optimizees and were
        probed alike. Where they are of other meta-parameters, nothing stays at any inner step: the run has gone on
        since, and a checkpoint of the same name is another learned optimizer.
        """
        digests = {by_seed[meta_seed].digest for by_seed in self.facts.values() if meta_seed in by_seed}
        if facts.digest and digests - {"", facts.digest}:
            del self.outcomes[meta_seed]
            for by_seed in self.facts.values():
                by_seed.pop(meta_seed, None)
            self.facts = {step: by_seed for step, by_seed in self.facts.items() if by_seed}
        for step, outcomes in marks.items():
            by_seed = self.facts.setdefault(step, {})
            before = self.outcomes.setdefault(meta_seed, {}).get(step, {})
            if len(outcomes) < len(before):
                continue
            if meta_seed in by_seed and by_seed[meta_seed].is_comparable(facts) and before.keys() == outcomes.keys():
                outcomes = {
                    seed: replace(outcome, metrics={**before[seed].metrics, **outcome.metrics})
                    for seed, outcome in outcomes.items()
                }
            self.outcomes[meta_seed][step] = outcomes
            by_seed[meta_seed] = facts

    def join(self, other: TaskResult) -> None:
        """Take another's meta-seeds, but those that are here already."""
        for meta_seed in [seed for seed in other.outcomes if seed not in self.outcomes]:
            for step, outcomes in other.outcomes[meta_seed].items():
                self.add(meta_seed, other.facts[step][meta_seed], {step: outcomes})

    def is_same(self, other: TaskResult) -> bool:
        """Whether both reached the same train losses wherever they have meta-seed, step and optimizee in common."""
        pairs = [
            (outcome.metrics.get(TRAIN_LOSS), other.outcomes[meta_seed][step][seed].metrics.get(TRAIN_LOSS))
            for meta_seed, steps in self.outcomes.items()
            for step, outcomes in steps.items()
            for seed, outcome in outcomes.items()
            if seed in other.outcomes.get(meta_seed, {}).get(step, {})
        ]
        losses = [(mine, its) for mine, its in pairs if mine is not None and its is not None]
        return bool(losses) and all(math.isclose(mine, its, rel_tol=SAME) for mine, its in losses)


@dataclass
class TaskOutcomes:
    """All that was evaluated on one task. `untrained` are by arm label, `baselines` by name. `measured`: the task's own
    metrics.
    """

    name: str
    trained: dict[Variant, TaskResult] = field(default_factory=dict)
    untrained: dict[str, TaskResult] = field(default_factory=dict)
    baselines: dict[str, TaskResult] = field(default_factory=dict)
    measured: dict[str, Metric] = field(default_factory=dict)

    def metric(self, name: str) -> Metric:
        """What a name stands for on this task."""
        return metric(name, self.measured)

    def checkpoint(self, arm: Arm) -> str | None:
        """The checkpoint that an arm is judged by: best where it was evaluated, else last."""
        evaluated = {variant.checkpoint for variant in self.trained if variant.arm == arm.label and variant.is_plain}
        return next((name for name in (*CHECKPOINT_ORDER, *sorted(evaluated)) if name in evaluated), None)

    def main(self, arm: Arm) -> TaskResult | None:
        """The arm's learned optimizer as it is; None where it was not evaluated."""
        return self.trained.get(Variant(arm.label, self.checkpoint(arm) or ""))

    def scaled(self, arm: Arm) -> dict[float, TaskResult]:
        """The same by the factor of its updates, ascending, 1 among them."""
        return {scale: entry for (decay, scale), entry in self.grid(arm).items() if not decay}

    def grid(self, arm: Arm) -> dict[tuple[float, float], TaskResult]:
        """The same by weight decay and scale, both ascending."""
        variants = (arm.label, self.checkpoint(arm))
        of_arm = {one: entry for one, entry in self.trained.items() if one[:2] == variants and not one.sam}
        return {(one.weight_decay, one.scale): of_arm[one] for one in sorted(of_arm, key=lambda one: (one[3], one[2]))}

    def without_training(self, arms: Sequence[Arm]) -> dict[str, tuple[str, TaskResult]]:
        """The untrained learned optimizers and what they are called, by the label of the first arm that begins so:
        arms that begin with the same meta-parameters share one.
        """
        shared: dict[str, TaskResult] = {}
        for arm in arms:
            if (entry := self.untrained.get(arm.label)) is not None:
                alike = next((other for other in shared.values() if entry.is_same(other)), None)
                if alike is None:
                    alike = shared[arm.label] = TaskResult(entry.arm)
                alike.join(entry)
        name = "untrained" if len(shared) == 1 else "{} (untrained)"
        return {label: (name.format(label), entry) for label, entry in shared.items()}

    @property
    def entries(self) -> list[TaskResult]:
        return [*self.trained.values(), *self.untrained.values(), *self.baselines.values()]

    @property
    def steps(self) -> set[int]:
        """The inner steps at which anything was measured."""
        return {step for entry in self.entries for step in entry.steps}

    @property
    def metrics(self) -> dict[MetricAt, None]:
        """Everything that was measured of anybody."""
        return dict.fromkeys(
            at
            for entry in self.entries
            for steps in entry.outcomes.values()
            for outcomes in steps.values()
            for outcome in outcomes.values()
            for at in outcome.metrics
        )


def collect(arms: Sequence[Arm], *, curves: bool = False) -> tuple[dict[str, TaskOutcomes], int]:
    """Every task's outcomes by its name, and how many transfer files are damaged.

    Where several evaluations are of the same thing, the newest counts. `curves`: of the points of the learning curves.
    """
    evaluations: list[tuple[Facts, Arm, MetaSeed, Marks]] = []
    copies: dict[tuple[Facts, int], Marks] = {}  # every run has one of each baseline
    damaged = 0
    for arm in arms:
        for run in arm.runs:
            transfers = run.reader.transfers()
            damaged += max(len(list((run.reader.path / "transfer").glob("[!.]*.json"))), len(transfers))
            for item in transfers.values():
                facts, seeds = read_facts(item), item.get("seeds")
                if facts is None or not facts.task or not isinstance(seeds, list):
                    continue
                marks = copies.get((facts, len(seeds))) or read_marks(item, curves=curves)
                if facts.is_baseline:
                    copies[facts, len(seeds)] = marks
                if marks:
                    evaluations.append((facts, arm, run.meta_seed, marks))
                    damaged -= 1
    tasks: dict[str, TaskOutcomes] = {}
    for facts, arm, meta_seed, marks in sorted(evaluations, key=lambda item: item[0].created):
        task = tasks.setdefault(facts.task, TaskOutcomes(facts.task))
        task.measured |= facts.measured
        if facts.is_baseline:
            task.baselines.setdefault(facts.optimizer, TaskResult(None)).add(None, facts, marks)
        elif facts.is_untrained:
            task.untrained.setdefault(arm.label, TaskResult(arm)).add(meta_seed, facts, marks)
        else:
            key = Variant(arm.label, facts.checkpoint, facts.scale, facts.weight_decay, facts.sam)
            task.trained.setdefault(key, TaskResult(arm)).add(meta_seed, facts, marks)
    return dict(sorted(tasks.items())), damaged


def radii_of(tasks: Iterable[TaskOutcomes]) -> list[str]:
    """The radii that sharpness was measured at, ascending, as they are typed."""
    return radii(at for task in tasks for at in task.metrics)


def chosen_tasks(tasks: Mapping[str, TaskOutcomes], name: str | None) -> list[TaskOutcomes]:
    """All tasks; or those of a name, with all their unusual batch sizes and classes. Raises SettingsError."""
    chosen = [task for full, task in tasks.items() if name in (None, full, full.split(" ")[0])]
    return chosen or ([] if name is None else refuse("--task", name, tasks))


def chosen_radius(measured: Sequence[str], radius: float | None) -> str | None:
    """A radius as it is typed; the middle one where none is asked for. Raises SettingsError for another."""
    if radius is None:
        return middle(measured)
    near = [text for text in measured if math.isclose(float(text), radius)]
    return near[0] if near else refuse("--radius", radius, measured)


def refuse(option: str, value: Any, measured: Iterable[Any]) -> NoReturn:
    """Raise SettingsError for what was not measured, and say what was."""
    names = list(map(str, measured))
    words = "one that was measured: " + ", ".join(names) if names else "nothing: there are no transfer evaluations"
    raise SettingsError([Problem(option, show(value), words, did_you_mean(str(value), names))])
