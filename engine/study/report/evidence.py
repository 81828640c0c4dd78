"""Evidence: what a study's runs and transfers have shown, in the form that the report and its claims are made of.

The comparisons are those of `lreg compare` (engine.comparison), on the winners' runs, by the study's own arms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.base.errors import PresetError, RunError
from engine.comparison import (
    Arm,
    ArmRun,
    Effect,
    Entry,
    Figure,
    TaskOutcomes,
    collect,
    effects,
    effects_against,
    last_common_step,
    radii_of,
)
from engine.study.plan.plan import StudyPlan
from engine.study.plan.snapshot import ENDED, Snapshot, Watcher
from engine.study.plan.state import Candidate, CellState, winners
from engine.study.plan.transfers import TransferState
from engine.study.plan.twins import SMOOTH, SmoothAblation, twins

TEST_ACCURACY, TRAIN_LOSS, TOP_EIGENVALUE = Figure("test_accuracy"), Figure("train_loss"), Figure("top_eigenvalue")
Penalties = Mapping[str, Mapping[str, Any]]


@dataclass
class Evidence:
    """A study at one moment, and what its winners have shown.

    `arms` are those of the study that have a winner, with the winner's finished runs. `steps` are the inner steps shown
    of each task, ascending; the last is the one that claims are decided at. `radius` is the one to show where only one
    is shown. `twins` are by arm with smooth; `others` are those of them that are no winners, by label.
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
    twins: dict[str, SmoothAblation | None] = field(default_factory=dict)
    others: dict[str, Arm] = field(default_factory=dict)
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

    @property
    def waiting(self) -> set[str]:
        """Arms of which some run or transfer has not ended; the baselines' transfers are the reference arm's."""
        return {
            piece.transfer.arm if isinstance(piece, TransferState) else piece.cell.arm for piece in self.open_pieces
        }

    def lacking(self, arms: Iterable[str], tasks: Iterable[str] = ()) -> list[str]:
        """What is not there of some arms, in words: winners, and evaluations on tasks."""
        found = []
        wanted = list(tasks)
        for arm in dict.fromkeys(arms):
            unseen = [task for task in wanted if not self.was_evaluated(task, arm)]
            if arm not in self.winners:
                found.append(f"{arm} ({'no winner yet' if arm in self.waiting else 'failed: no winner'})")
            elif unseen:
                where = f" on {', '.join(unseen)}" if len(unseen) < len(wanted) else ""
                found.append(f"{arm} (not evaluated{where})")
        return found

    def without_twin(self, tasks: Iterable[str] = ()) -> list[str]:
        """The arms with smooth that cannot be compared with the same arm without it, in words; `tasks`: on these."""
        wanted, found = list(tasks), []
        for arm, twin in self.twins.items():
            if twin is None:
                found.append(f"{arm} (no finished candidate without smooth has its other penalties)")
            elif wanted and not any(self.was_evaluated(task, twin.label) for task in wanted):
                found.append(f"{arm} (its twin, {twin.label}, was not evaluated)")
        return found

    def was_evaluated(self, task: str, arm: str) -> bool:
        mine = self.arm(arm)
        entry = None if mine is None else self.tasks[task].main(mine)
        return entry is not None and bool(entry.at(self.last(task)))

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
        """The planned arms with a geometric penalty, which has a sharpness radius."""
        return [arm for arm in self.planned if any(values.get("rho") for values in self.penalties(arm).values())]

    @property
    def planned(self) -> list[str]:
        """All arms of the study, with a winner or without."""
        return [arm.name for arm in self.plan.arms]

    def plain_of(self, arm: str) -> str:
        """The arm to compare a regularised one with: that of the same learned optimizer without a penalty."""
        same = [other for other in self.planned if self.is_plain(other) and self.kind(other) == self.kind(arm)]
        return self.plan.reference if self.plan.reference in same or not same else same[0]

    @property
    def smoothed(self) -> list[str]:
        """The planned arms with smooth."""
        return [arm for arm in self.planned if SMOOTH in self.penalties(arm)]

    def arm(self, label: str) -> Arm | None:
        """A winner, or a twin of one."""
        return self.arms.get(label) or self.others.get(label)

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
        mine, its = self.arm(arm), self.arm(reference)
        if arm == reference or mine is None or its is None or task not in self.tasks:
            return []
        at = self.last(task) if step is None else step
        key = (task, at, arm, reference)
        if key not in self._effects:
            self._effects[key] = effects(self.tasks[task], at, mine, its)
        return self._effects[key]

    def effect(
        self, task: str, arm: str, reference: str, setting: str, figure: Figure, step: int | None = None
    ) -> Effect | None:
        return _only(self.effects(task, arm, reference, step), setting, figure)

    def effect_against(
        self, task: str, arm: str, name: str, entry: Entry, setting: str, figure: Figure, entry_step: int | None = None
    ) -> Effect | None:
        """An arm against a baseline, or its untrained beginning; `entry_step`: where that is looked at."""
        mine = self.arms.get(arm)
        if mine is None:
            return None
        found = effects_against(self.tasks[task], self.last(task), mine, name, entry, entry_step)
        return _only(found, setting, figure)

    def every_effect(self) -> Iterator[Effect]:
        """Every arm against the reference arm, task by task, at every inner step shown."""
        for task, steps in self.steps.items():
            for step in steps:
                for arm in self.arms:
                    yield from self.effects(task, arm, self.plan.reference, step)

    def run_ids(self, arm: str) -> list[str]:
        found = self.arm(arm)
        return [run.reader.id for run in found.runs] if found is not None else []


def _only(found: Iterable[Effect], setting: str, figure: Figure) -> Effect | None:
    return next((effect for effect in found if effect.setting == setting and effect.figure == figure), None)


def gather(plan: StudyPlan, folder: Path) -> Evidence:
    """Look at a study's folders."""
    seen = Watcher(plan, folder).look()
    best = {**winners(seen.candidates), **seen.winners}
    best = {arm.name: best[arm.name] for arm in plan.arms if arm.name in best}
    arms = {name: Arm(name, tuple(map(_run, candidate.cells))) for name, candidate in best.items()}
    pairs = twins(best, seen.candidates)
    more = {twin.label: twin.candidate for twin in pairs.values() if twin is not None and twin.label not in arms}
    others = {label: Arm(label, tuple(map(_run, candidate.cells))) for label, candidate in more.items()}
    tasks, damaged = collect([*arms.values(), *others.values()])
    steps = {name: _steps(plan, task, list(arms.values())) for name, task in tasks.items()}
    tasks = {name: task for name, task in tasks.items() if steps[name]}
    radii = radii_of(tasks.values())
    radius = radii[len(radii) // 2] if radii else None
    steps = {name: steps[name] for name in tasks}
    return Evidence(plan, folder, seen, best, arms, tasks, steps, tuple(radii), radius, damaged, pairs, others)


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
