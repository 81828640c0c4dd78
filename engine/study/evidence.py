"""Evidence: what a study's runs and transfers have shown, in the form that the report and its claims are made of.

The comparisons are those of `lreg compare` (engine.comparison), on the winners' runs, by the study's own arms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.comparison import (
    Arm,
    ArmRun,
    Effect,
    Entry,
    Figure,
    Outcome,
    TaskOutcomes,
    collect,
    effects,
    last_common_step,
    radii_of,
)
from engine.errors import PresetError, RunError
from engine.study.plan import StudyPlan
from engine.study.snapshot import ENDED, Snapshot, Watcher
from engine.study.state import Candidate, CellState, winners

TEST_ACCURACY, TRAIN_LOSS, TOP_EIGENVALUE = Figure("test_accuracy"), Figure("train_loss"), Figure("top_eigenvalue")
Penalties = Mapping[str, Mapping[str, Any]]


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


@dataclass
class Evidence:
    """A study at one moment, and what its winners have shown.

    `arms` are those of the study that have a winner, with the winner's finished runs. `steps` are the inner steps shown
    of each task, ascending; the last is the one that claims are decided at. `radius` is the one to show where only one
    is shown.
    """

    plan: StudyPlan
    folder: Path
    seen: Snapshot
    winners: dict[str, Candidate]
    arms: dict[str, Arm]
    tasks: dict[str, TaskOutcomes]
    steps: dict[str, tuple[int, ...]]
    radii: tuple[str, ...]
    radius: str | None
    damaged: int
    _effects: dict[tuple[str, int, str, str], list[Effect]] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return self.folder.parent.parent

    @property
    def is_finished(self) -> bool:
        """Whether nothing more is to be expected, but for runs that failed."""
        return not self.open_pieces and bool(self.seen.pieces)

    @property
    def open_pieces(self) -> list[Any]:
        return [piece for piece in self.seen.pieces if piece.state not in ENDED]

    @property
    def provisional(self) -> list[str]:
        """Arms whose winner may still change: some run of theirs has not ended."""
        waiting = {cell.cell.arm for cell in self.seen.cells if cell.state not in ENDED}
        return [arm for arm in self.winners if arm in waiting]

    def cells_of(self, arm: str) -> list[CellState]:
        return [cell for cell in self.seen.cells if cell.cell.arm == arm]

    def candidates_of(self, arm: str) -> list[Candidate]:
        return [candidate for candidate in self.seen.candidates if candidate.arm == arm]

    # -- who is who --------------------------------------------------------------------------------------------------

    def preset(self, arm: str) -> Mapping[str, Any]:
        """The values of the winner's preset; of an arm without one, those of the plan."""
        if arm in self.winners:
            return self.winners[arm].cells[0].cell.preset.values
        return next((item.preset for item in self.plan.arms if item.name == arm), {})

    def penalties(self, arm: str) -> Penalties:
        """The penalties that weigh something."""
        found = self.preset(arm).get("penalty", {})
        return {name: values for name, values in found.items() if values.get("weight") != 0}

    def kind(self, arm: str) -> str:
        """The kind of learned optimizer."""
        return str(self.preset(arm).get("optimizer", {}).get("kind", "?"))

    def is_plain(self, arm: str) -> bool:
        return not self.penalties(arm)

    def is_neutral(self, arm: str) -> bool:
        """Whether all its penalties have a ball of radius 0: the meta-loss re-weighted, without any flatness."""
        found = self.penalties(arm).values()
        return bool(found) and all(values.get("rho") == 0 for values in found)

    @property
    def regularised(self) -> list[str]:
        """The arms with a geometric penalty, which has a sharpness radius."""
        return [arm for arm in self.arms if any(values.get("rho") for values in self.penalties(arm).values())]

    def plain_of(self, arm: str) -> str:
        """The arm to compare a regularised one with: that of the same learned optimizer without a penalty."""
        same = [other for other in self.arms if self.is_plain(other) and self.kind(other) == self.kind(arm)]
        return self.plan.reference if self.plan.reference in same or not same else same[0]

    def smoothed(self) -> Iterator[tuple[str, str]]:
        """The arms with smooth, each with the arm that has the same penalties but smooth."""
        for arm in self.arms:
            rest = set(self.penalties(arm)) - {"smooth"}
            if "smooth" in self.penalties(arm):
                twins = [
                    other
                    for other in self.arms
                    if set(self.penalties(other)) == rest
                    and self.kind(other) == self.kind(arm)
                    and self.is_neutral(other) == (bool(rest) and all(self._rho_is_0(arm, name) for name in rest))
                ]
                yield from ((arm, twin) for twin in twins[:1])

    def _rho_is_0(self, arm: str, penalty: str) -> bool:
        return self.penalties(arm)[penalty].get("rho") == 0

    def meta_trained_on(self) -> set[str]:
        """Names of the tasks of the reference arm's meta-training."""
        tasks = self.preset(self.plan.reference).get("task", ())
        tables = tasks if isinstance(tasks, (list, tuple)) else [tasks]
        return {f"{task['dataset']}/{task['optimizee']}" for task in tables}

    # -- what was found ----------------------------------------------------------------------------------------------

    def last(self, task: str) -> int:
        return self.steps[task][-1]

    def effects(self, task: str, arm: str, reference: str, step: int | None = None) -> list[Effect]:
        """An arm against another on a task; none where one of the two was not evaluated there."""
        if arm == reference or arm not in self.arms or reference not in self.arms or task not in self.tasks:
            return []
        at = self.last(task) if step is None else step
        key = (task, at, arm, reference)
        if key not in self._effects:
            self._effects[key] = effects(self.tasks[task], at, self.arms[arm], self.arms[reference])
        return self._effects[key]

    def effect(
        self, task: str, arm: str, reference: str, setting: str, figure: Figure, step: int | None = None
    ) -> Effect | None:
        found = self.effects(task, arm, reference, step)
        return next((effect for effect in found if effect.setting == setting and effect.figure == figure), None)

    def every_effect(self) -> Iterator[Effect]:
        """Every arm against the reference arm, task by task, at every inner step shown."""
        for task, steps in self.steps.items():
            for step in steps:
                for arm in self.arms:
                    yield from self.effects(task, arm, self.plan.reference, step)

    def trainers(self, task: str, step: int) -> list[Trainer]:
        """Everybody who was measured at an inner step: arms, scaled ones, untrained ones, baselines."""
        outcomes, arms = self.tasks[task], list(self.arms.values())
        mains = [(arm.label, outcomes.main(arm)) for arm in arms]
        found = [Trainer(label, "arm", label, entry, step) for label, entry in mains if entry is not None]
        found += [
            Trainer(f"{arm.label} x{scale:g}", "scaled", arm.label, entry, step)
            for arm in arms
            for scale, entry in outcomes.scaled(arm).items()
            if scale != 1
        ]
        fresh = outcomes.untrained.items()
        found += [Trainer(f"{label} (untrained)", "untrained", label, entry, step) for label, entry in fresh]
        for name, entry in outcomes.baselines.items():
            passes = entry.facts_at(step).passes_per_step
            found.append(Trainer(name, "baseline", "", entry, step))
            if passes > 1:
                found.append(Trainer(f"{name} at equal passes", "equal passes", "", entry, step // passes))
        return [trainer for trainer in found if trainer.outcomes]

    def run_ids(self, arm: str) -> list[str]:
        return [run.reader.id for run in self.arms[arm].runs] if arm in self.arms else []


def gather(plan: StudyPlan, folder: Path) -> Evidence:
    """Look at a study's folders."""
    seen = Watcher(plan, folder).look()
    best = {**winners(seen.candidates), **seen.winners}
    best = {arm.name: best[arm.name] for arm in plan.arms if arm.name in best}
    arms = {name: Arm(name, tuple(map(_run, candidate.cells))) for name, candidate in best.items()}
    tasks, damaged = collect(list(arms.values()))
    steps = {name: _steps(plan, task, list(arms.values())) for name, task in tasks.items()}
    tasks = {name: task for name, task in tasks.items() if steps[name]}
    radii = radii_of(tasks.values())
    radius = radii[len(radii) // 2] if radii else None
    steps = {name: steps[name] for name in tasks}
    return Evidence(plan, folder, seen, best, arms, tasks, steps, tuple(radii), radius, damaged)


def _run(cell: CellState) -> ArmRun:
    try:
        return ArmRun(cell.run, cell.run.preset(), cell.cell.seed)
    except (PresetError, RunError) as error:
        return ArmRun(cell.run, None, cell.cell.seed, str(error).splitlines()[0])


def _steps(plan: StudyPlan, task: TaskOutcomes, arms: Sequence[Arm]) -> tuple[int, ...]:
    """The inner steps that the study asks for by name, as far as they were measured, and the last of all arms."""
    last = last_common_step(task, arms)
    if last is None:
        return ()
    wanted = plan.transfer.settings.get("marks", ()) if plan.transfer is not None else ()
    measured = {step for entry in task.entries for step in entry.steps}
    return tuple(sorted({last, *(step for step in wanted if step in measured and step < last)}))
