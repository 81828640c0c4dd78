"""Arms: runs whose presets differ in nothing but the meta-seed are one arm, meta-trained several times."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from engine.base.errors import PresetError, RunError
from engine.base.settings import show
from engine.presets.catalog import is_of_member, weighing
from engine.presets.repeats import NAMES, PARENT, TELLING, arm_identity, common_name, frozen
from engine.runs import notes
from engine.runs.results import preset_differences
from engine.runs.store import RunReader

if TYPE_CHECKING:
    from engine.presets.preset import Preset


MOST_SETTINGS = 3  # in the label of an arm


@dataclass(frozen=True)
class ArmRun:
    """One run of an arm.

    `meta_seed` tells the arm's runs apart: the seed, or text where runs of the same seed start from different runs.
    `preset` is None where it is damaged; `problem` then says why.
    """

    reader: RunReader
    preset: Preset | None
    meta_seed: int | str
    problem: str = ""

    @classmethod
    def of(cls, reader: RunReader, meta_seed: int | None = None) -> ArmRun:
        """A run as its folder tells of it; never raises for what is there. None: the seed that it was made with."""
        preset: Preset | None = None
        problem = ""
        try:
            preset = reader.preset()
        except (PresetError, RunError) as error:
            problem = str(error).splitlines()[0]
        seed = reader.facts.get("seed") if preset is None else preset.seed
        seed = seed if meta_seed is None else meta_seed
        return cls(reader, preset, seed if isinstance(seed, int) and not isinstance(seed, bool) else 0, problem)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What its preset says, by key, but for names; nothing where it is damaged."""
        flat = {} if self.preset is None else self.preset.flat()
        return {key: value for key, value in flat.items() if key not in NAMES}

    @property
    def parent(self) -> str:
        """The run that it starts from; empty where it starts from scratch."""
        return "" if self.preset is None else self.preset["meta"]["init_from"]

    @cached_property
    def name(self) -> str:
        """The run's name, the one given later if there is one: text from strangers."""
        return notes.read(self.reader.path).name or str(self.reader.facts.get("name") or self.reader.id)


@dataclass(frozen=True)
class Arm:
    """Runs that repeat each other with other meta-seeds, in the order in which they were given."""

    label: str
    runs: tuple[ArmRun, ...]

    @property
    def preset(self) -> Preset | None:
        """The preset of the first run; the others' say the same."""
        return self.runs[0].preset

    @property
    def has_penalty(self) -> bool:
        """True if a penalty or a term of the objective weighs something in meta-training, or if nobody knows."""
        return self.preset is None or bool(weighing(self.preset.values))


@dataclass(frozen=True)
class ControlArm:
    """That an arm's meta-training is another arm's but for some penalties and terms of the objective, which it lacks:
    `without` says which, as "penalty.sam".
    """

    label: str
    of: str
    without: tuple[str, ...]

    @property
    def words(self) -> str:
        return f"{self.label} is the control of {self.of}: the same meta-training without {', '.join(self.without)}"


@dataclass(frozen=True)
class SettingsTable:
    """What the arms' presets say: each key that differs with its value in each arm (None where an arm has no such
    key); how many keys are `equal` everywhere; and how many exist in some arms only, and have their `default` there.
    Of a lone arm: what is not the default.
    """

    differing: dict[str, tuple[Any, ...]]
    equal: int
    default: int = 0


def group_arms(readers: Sequence[RunReader]) -> list[Arm]:
    """The arms of these runs, in the order of their first runs. A run that is given twice counts once.

    Never raises for what it finds: a run with a damaged preset is an arm of its own.
    """
    unique: dict[str, RunReader] = {}
    for reader in readers:
        unique.setdefault(os.path.realpath(reader.path), reader)
    groups: dict[str, list[ArmRun]] = {}
    for reader in unique.values():
        run = ArmRun.of(reader)
        identity = f"damaged {reader.path}" if run.preset is None else arm_identity(run.preset.flat())
        groups.setdefault(identity, []).append(run)
    runs = [_tell_apart(group) for group in groups.values()]
    return [Arm(label, group) for label, group in zip(_labels(runs), runs, strict=True)]


def reference_arm(
    arms: Sequence[Arm], reader: RunReader | None = None, evaluated: Collection[str] | None = None
) -> Arm:
    """The arm that the others are compared with: that of the run `reader`, else the first one without penalties,
    else the first one that is another's control, else the first. Of these, those whose labels are in `evaluated`
    (None: all) come before those without any evaluation.
    """
    if reader is not None:
        path = os.path.realpath(reader.path)
        return next(arm for arm in arms if any(os.path.realpath(run.reader.path) == path for run in arm.runs))
    candidates = [arm for arm in arms if evaluated is None or arm.label in evaluated] or arms
    if (plain := next((arm for arm in candidates if not arm.has_penalty), None)) is not None:
        return plain
    named = {control.label for control in controls(candidates).values()}
    return next((arm for arm in candidates if arm.label in named), candidates[0])


def settings_table(arms: Sequence[Arm]) -> SettingsTable:
    """The presets of the arms side by side. Seeds, names and threads are no settings of an arm."""
    changed = [{} if arm.preset is None else preset_differences(arm.preset) for arm in arms]
    if len(arms) == 1:
        return SettingsTable({key: (value,) for key, value in changed[0].items() if key not in NAMES}, 0)
    parents = [", ".join(dict.fromkeys(run.parent for run in arm.runs if run.parent)) for arm in arms]
    both = zip(arms, parents, strict=True)
    flat = [{} if arm.preset is None else {**arm.runs[0].settings, PARENT: parent} for arm, parent in both]
    keys = dict.fromkeys(key for values in flat for key in values)
    differing: dict[str, tuple[Any, ...]] = {}
    equal = 0
    for key in keys:
        values = tuple(of_arm.get(key) for of_arm in flat)
        if len({frozen(value) for value in values}) == 1:
            equal += 1
        elif any(key in of_arm for of_arm in changed) or TELLING.search(key) or all(key in of_arm for of_arm in flat):
            differing[key] = values
    return SettingsTable(differing, equal, len(keys) - equal - len(differing))


def controls(arms: Sequence[Arm]) -> dict[str, ControlArm]:
    """The control of each arm that has one here, by the arm's label; of several the one that lacks the most.

    Its settings are the arm's, and so are those of the penalties and terms that it has; of the meta-seeds that both
    have, both start from the same run.
    """
    presets = {arm.label: arm.preset for arm in arms if arm.preset is not None}
    rest = {
        arm.label: frozen({k: v for k, v in arm.runs[0].settings.items() if k != PARENT and not is_of_member(k)})
        for arm in arms
    }
    terms = {label: weighing(preset.values) for label, preset in presets.items()}
    named: dict[str, ControlArm] = {}
    for arm in (arm for arm in arms if arm.label in presets):
        mine = terms[arm.label]
        fewer = [
            other.label
            for other in arms
            if other.label in presets
            and rest[other.label] == rest[arm.label]
            and len(terms[other.label]) < len(mine)
            and all(mine.get(name) == settings for name, settings in terms[other.label].items())
            and _starts_alike(arm, other)
        ]
        if fewer:
            label = min(fewer, key=lambda label: len(terms[label]))
            named[arm.label] = ControlArm(label, arm.label, tuple(name for name in mine if name not in terms[label]))
    return named


def _starts_alike(arm: Arm, other: Arm) -> bool:
    parents = {run.meta_seed: run.parent for run in other.runs}
    shared = [run for run in arm.runs if run.meta_seed in parents]
    if shared:
        return all(run.parent == parents[run.meta_seed] for run in shared)
    return {bool(run.parent) for run in arm.runs} == {bool(run.parent) for run in other.runs}


def _tell_apart(runs: Sequence[ArmRun]) -> tuple[ArmRun, ...]:
    """Runs of one seed that start from different runs get meta-seeds of their own; true repeats share theirs."""
    seeds = Counter(seed for seed, _ in {(run.meta_seed, run.parent) for run in runs})
    return tuple(
        replace(run, meta_seed=f"{run.meta_seed} from {run.parent}") if seeds[run.meta_seed] > 1 else run
        for run in runs
    )


def _labels(groups: Sequence[Sequence[ArmRun]]) -> list[str]:
    """One label an arm: what its runs' names have in common; where several have that, with what tells them apart."""
    short = [common_name([run.name for run in group]) for group in groups]
    seen = Counter(short)
    labels = [
        label if seen[label] == 1 else group[0].name if len(group) == 1 else _with_settings(label, group, groups)
        for label, group in zip(short, groups, strict=True)
    ]
    again = Counter(labels)
    return [
        label if again[label] == 1 else f"{label} ({group[0].reader.id[-4:]})"
        for label, group in zip(labels, groups, strict=True)
    ]


def _with_settings(label: str, group: Sequence[ArmRun], groups: Sequence[Sequence[ArmRun]]) -> str:
    """The label of an arm of several runs with the settings in which it differs from those that are called so, too."""
    alike = [other for other in (group, *groups) if common_name([run.name for run in other]) == label]
    flat = [other[0].settings for other in alike]
    keys = [key for key, value in flat[0].items() if any(other.get(key) != value for other in flat[1:])]
    words = (f"{'.'.join(key.split('.')[-2:])} {show(flat[0][key])}" for key in keys[:MOST_SETTINGS])
    return " ".join([label, *words])
