"""Evidence: what a study's runs and transfers have shown, in the form that the report and its claims are made of.

The comparisons are those of `lreg compare` (engine.comparison), on the winners' runs, by the study's own arms.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.base.metrics import AT_RADIUS, Metric, headline
from engine.base.settings import show
from engine.comparison import (
    Arm,
    ArmRun,
    ComparisonTable,
    Effect,
    MetricAt,
    TaskOutcomes,
    TaskResult,
    collect,
    effects,
    effects_against,
    last_common_step,
    radii_of,
    table,
)
from engine.presets.catalog import is_of_member, members_picked
from engine.presets.repeats import NAMES
from engine.runs.evaluations import ADAPTIVE, SHARPNESS, middle, radii
from engine.study.plan.plan import StudyPlan, weighing
from engine.study.plan.snapshot import ENDED, Snapshot, Watcher, WorkItem
from engine.study.plan.state import Candidate, CellState
from engine.study.plan.transfers import TransferState

HEADLINE = ""  # in place of a metric's name: what the task is judged by
SMOOTH = "smooth"
Penalties = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class SmoothAblation:
    """The twin of an arm with smooth: a candidate whose penalties have the values that those of `arm`'s winner have
    beside smooth. `label` is the twin's arm, with the point where it is not that arm's winner.
    """

    arm: str
    label: str
    candidate: Candidate


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

    # -- how far it is -----------------------------------------------------------------------------------------------

    @cached_property
    def open_pieces(self) -> list[WorkItem]:
        """What is still to be expected: all but what has finished or failed."""
        return [piece for piece in self.seen.pieces if piece.state not in ENDED]

    @property
    def provisional(self) -> list[str]:
        """Arms whose winner may still change: some run of theirs has not ended."""
        open_arms = {piece.cell.arm for piece in self.open_pieces if isinstance(piece, CellState)}
        return [arm for arm in self.winners if arm in open_arms]

    @property
    def waiting(self) -> set[str]:
        """Arms of which some run or transfer has not ended; the baselines' transfers are the reference arm's."""
        return {
            piece.transfer.arm if isinstance(piece, TransferState) else piece.cell.arm for piece in self.open_pieces
        }

    def lacking(self, arms: Iterable[str], tasks: Iterable[str] = ()) -> tuple[str, ...]:
        """What is not there of some arms, in words: winners, and evaluations on tasks."""
        missing, tasks = [], list(tasks)
        for arm in dict.fromkeys(arms):
            unseen = [task for task in tasks if not self.was_evaluated(task, arm)]
            if arm not in self.winners:
                missing.append(f"{arm} ({'no winner yet' if arm in self.waiting else 'failed: no winner'})")
            elif unseen:
                where = f" on {', '.join(unseen)}" if len(unseen) < len(tasks) else ""
                missing.append(f"{arm} (not evaluated{where})")
        return tuple(missing)

    def lacking_twins(self, tasks: Iterable[str] = ()) -> tuple[str, ...]:
        """The same of the arms with smooth and of what they are compared with."""
        tasks = list(tasks)
        missing = list(self.lacking(self.smoothed, tasks))
        for arm, twin in self.twins.items():
            if twin is None:
                missing.append(f"{arm} (no finished candidate without smooth has its other penalties)")
            elif tasks and not any(self.was_evaluated(task, twin.label) for task in tasks):
                missing.append(f"{arm} (its twin, {twin.label}, was not evaluated)")
        return tuple(missing)

    def was_evaluated(self, task: str, arm: str) -> bool:
        runs = self.arm(arm)
        entry = None if runs is None or task not in self.tasks else self.tasks[task].main(runs)
        return entry is not None and bool(entry.at(self.last(task)))

    def candidates_of(self, arm: str) -> list[Candidate]:
        return [candidate for candidate in self.seen.candidates if candidate.arm == arm]

    # -- who is who --------------------------------------------------------------------------------------------------

    def preset(self, arm: str) -> Mapping[str, Any]:
        """The values of the winner's preset; of an arm without one, those of the plan."""
        if arm in self.winners:
            return self.winners[arm].preset.values
        return next((item.preset for item in self.plan.arms if item.name == arm), {})

    def penalties(self, arm: str) -> Penalties:
        """The penalties and terms that weigh something (`weighing`)."""
        return weighing(self.preset(arm))

    def kind(self, arm: str) -> str:
        """The kind of learned optimizer."""
        return str(self.preset(arm).get("optimizer", {}).get("kind", "?"))

    def is_neutral(self, arm: str) -> bool:
        """Whether all its penalties have a ball of radius 0: the meta-loss re-weighted, without any flatness."""
        penalties = self.penalties(arm).values()
        return bool(penalties) and all(values.get("rho") == 0 for values in penalties)

    @property
    def planned(self) -> list[str]:
        """All arms of the study, with a winner or without."""
        return [arm.name for arm in self.plan.arms]

    @property
    def regularised(self) -> dict[str, str]:
        """The planned arms with a geometric penalty or term, which has a sharpness radius, each with the arm that it is
        compared with: that of the same learned optimizer without a penalty.
        """

        def has_ball(member: Mapping[str, Any]) -> bool:
            return bool(member.get("rho") or member.get("radius"))

        arms = [arm for arm in self.planned if any(map(has_ball, self.penalties(arm).values()))]
        plain = [arm for arm in self.planned if not self.penalties(arm)]
        plain.sort(key=lambda arm: arm != self.plan.reference)
        same = {arm: [other for other in plain if self.kind(other) == self.kind(arm)] for arm in arms}
        return {arm: (others or [self.plan.reference])[0] for arm, others in same.items()}

    @property
    def smoothed(self) -> list[str]:
        """The planned arms with smooth."""
        return [arm for arm in self.planned if SMOOTH in self.penalties(arm)]

    def arm(self, label: str) -> Arm | None:
        """A winner, or a twin of one."""
        return self.arms.get(label) or self.others.get(label)

    @property
    def meta_trained_on(self) -> set[str]:
        """Names of the tasks of the reference arm's meta-training."""
        tasks = self.preset(self.plan.reference).get("task", ())
        tables = tasks if isinstance(tasks, (list, tuple)) else [tasks]
        picks = [(members_picked(task["dataset"]), members_picked(task["optimizee"])) for task in tables]
        return {f"{dataset}/{optimizee}" for pick in picks for dataset, optimizee in itertools.product(*pick)}

    # -- what was found ----------------------------------------------------------------------------------------------

    def last(self, task: str) -> int:
        return self.steps[task][-1]

    def metric(self, task: str, name: str = HEADLINE) -> Metric:
        """What a name stands for on a task."""
        return self.tasks[task].metric(name) if name else self._headlines[task]

    def metric_at(self, task: str, name: str) -> MetricAt:
        """Where a task's outcomes have a metric; what is measured at radii, at the one that is shown."""
        if name == ADAPTIVE:
            return MetricAt(name, self.adaptive_radius(task))
        return MetricAt(self.metric(task, name).name, self.radius if name in AT_RADIUS else None)

    def words(self, task: str, reading: MetricAt) -> str:
        """What people read of a metric, with its radius."""
        at = f" at {reading.radius}" if reading.radius else ""
        return f"{self.metric(task, reading.name).words}{at}"

    def adaptive_radius(self, task: str) -> str | None:
        """The radius at which a task's adaptive sharpness is shown; None where nobody measured it."""
        return middle(radii(self.tasks[task].metrics, ADAPTIVE))

    @property
    def sharpness(self) -> str:
        """The sharpness that our own claims look at: the adaptive one, where every task has it."""
        return ADAPTIVE if self.tasks and all(map(self.adaptive_radius, self.tasks)) else SHARPNESS

    @cached_property
    def _headlines(self) -> dict[str, Metric]:
        """What each task is judged by, of what was measured at its last step."""
        return {
            name: headline(
                (
                    reading.name
                    for entry in task.entries
                    for seeds in entry.at(self.last(name)).values()
                    for outcome in seeds.values()
                    for reading in outcome.metrics
                ),
                task.measured,
            )
            for name, task in self.tasks.items()
        }

    def effects(self, task: str, arm: str, reference: str, step: int | None = None) -> list[Effect]:
        """An arm against another on a task; none where one of the two was not evaluated there."""
        ours, theirs = self.arm(arm), self.arm(reference)
        if arm == reference or ours is None or theirs is None or task not in self.tasks:
            return []
        key = (task, self.last(task) if step is None else step, arm, reference)
        if key not in self._effects:
            self._effects[key] = effects(self.tasks[task], key[1], ours, theirs)
        return self._effects[key]

    def effect(
        self, task: str, arm: str, reference: str, setting: str, reading: MetricAt, step: int | None = None
    ) -> Effect | None:
        return _only(self.effects(task, arm, reference, step), setting, reading)

    def effect_against(
        self,
        task: str,
        arm: str,
        name: str,
        entry: TaskResult,
        setting: str,
        reading: MetricAt,
        entry_step: int | None = None,
    ) -> Effect | None:
        """An arm against a baseline, or its untrained beginning; `entry_step`: where that is looked at."""
        if arm not in self.arms:
            return None
        against = effects_against(self.tasks[task], self.last(task), self.arms[arm], name, entry, entry_step)
        return _only(against, setting, reading)

    def every_effect(self) -> Iterator[Effect]:
        """Every arm against the reference arm, task by task, at every inner step shown."""
        for task, steps in self.steps.items():
            for step in steps:
                for arm in self.arms:
                    yield from self.effects(task, arm, self.plan.reference, step)

    def table(self, task: str, step: int) -> ComparisonTable:
        """Everybody who was measured at an inner step: arms, scaled ones, untrained ones, baselines."""
        return table(self.tasks[task], step, list(self.arms.values()))

    def run_ids(self, arm: str) -> list[str]:
        runs = self.arm(arm)
        return [run.reader.id for run in runs.runs] if runs is not None else []


def _only(effects: Iterable[Effect], setting: str, reading: MetricAt) -> Effect | None:
    return next((effect for effect in effects if effect.setting == setting and effect.at == reading), None)


def gather(plan: StudyPlan, folder: Path) -> Evidence:
    """Look at a study's folders."""
    seen = Watcher(plan, folder).look()
    best = seen.best
    arms = {name: _arm(name, candidate) for name, candidate in best.items()}
    twins = {
        arm: _twin(arm, winner, best, seen.candidates)
        for arm, winner in best.items()
        if SMOOTH in weighing(winner.preset.values)
    }
    others = {
        twin.label: _arm(twin.label, twin.candidate) for twin in filter(None, twins.values()) if twin.label not in arms
    }
    tasks, damaged = collect([*arms.values(), *others.values()])
    steps = {name: _steps(plan, task, list(arms.values())) for name, task in tasks.items()}
    tasks = {name: task for name, task in tasks.items() if steps[name]}
    measured = radii_of(tasks.values())
    steps = {name: steps[name] for name in tasks}
    return Evidence(
        plan, folder, seen, best, arms, tasks, steps, tuple(measured), middle(measured), damaged, twins, others
    )


def _arm(label: str, candidate: Candidate) -> Arm:
    return Arm(label, tuple(ArmRun.of(cell.run, cell.cell.seed) for cell in candidate.cells))


def _twin(
    arm: str, winner: Candidate, best: Mapping[str, Candidate], candidates: Sequence[Candidate]
) -> SmoothAblation | None:
    """None where no finished candidate is one. Of several, one that is its own arm's winner; the one with the fewest
    other settings of its own; the best.
    """

    def penalties_and_kind(candidate: Candidate) -> tuple[Penalties, Any]:
        values = candidate.preset.values
        return weighing(values), values.get("optimizer", {}).get("kind")

    def differing(candidate: Candidate) -> int:
        """In how many settings beside names and penalties."""
        one, other = candidate.preset.flat(), winner.preset.flat()
        keys = {key for key in {**one, **other} if key not in NAMES and not is_of_member(key)}
        return sum(one.get(key) != other.get(key) for key in keys)

    penalties, kind = penalties_and_kind(winner)
    without = {name: values for name, values in penalties.items() if name != SMOOTH}
    alike = [item for item in candidates if item.value is not None and penalties_and_kind(item) == (without, kind)]
    if not alike:
        return None
    twin = min(alike, key=lambda item: (item is not best.get(item.arm), differing(item), item.value))
    point = ", ".join(f"{key} = {show(value)}" for key, value in twin.point.items())
    return SmoothAblation(arm, twin.arm if twin is best.get(twin.arm) else f"{twin.arm} ({point})", twin)


def _steps(plan: StudyPlan, task: TaskOutcomes, arms: Sequence[Arm]) -> tuple[int, ...]:
    """The inner steps that the study asks for by name, as far as they were measured, and the last of all arms."""
    last = last_common_step(task, arms)
    if last is None:
        return ()
    marks = plan.transfer.settings.get("marks", ()) if plan.transfer is not None else ()
    measured = {step for entry in task.entries for step in entry.steps}
    return tuple(sorted({last, *(step for step in marks if step in measured and step < last)}))
