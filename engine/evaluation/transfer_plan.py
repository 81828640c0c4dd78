"""Transfer plan: which optimizers train which optimizees for how long, and how they are measured. Without torch.

A plan is a list of evaluations, each of which ends as one transfer file. It is the document of a transfer job.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from engine.base.draws import is_drawn
from engine.base.errors import PresetError, Problem, RunError
from engine.base.settings import Typed, setting, show
from engine.presets import catalog
from engine.presets.preset import LATER_OF_TASKS, Preset, from_mapping
from engine.runs.reader import CHECKPOINTS, RunReader
from engine.runs.writer import slug

GRID = [
    f"{dataset}/{optimizee}" for dataset in ("mnist", "fmnist", "cifar10") for optimizee in ("mlp", "mlp-relu", "cnn")
]
"""`--to all`: the papers' 3 x 3 grid."""
UNTRAINED = "untrained"
MOST_STEPS = 10**7  # inner steps
BASELINE_NAMES: tuple[str, ...] = ("sgd", "sgdm", "adam", "amsgrad", "rmsprop", "ngdm")
BASELINE_NAMES += ("sam-sgdm", "gsam-sgdm", "gam-sgdm", "sam-adam", "gsam-adam", "gam-adam")


@dataclass(frozen=True)
class TransferSettings:
    """What a transfer evaluation can be asked for beside its tasks; the probes are those of the [evaluation] table."""

    steps: int = setting(
        0, minimum=0, maximum=MOST_STEPS, help="inner steps; 0: as long as the last stage was meta-trained"
    )
    seeds: int = setting(5, minimum=1, maximum=10_000, help="optimizees, numbered 0, 1, ...")
    scales: tuple[float, ...] = setting((1.0,), above=0.0, maximum=1e6, help="factors of the frozen updates")
    weight_decays: tuple[float, ...] = setting(
        (0.0,), minimum=0.0, maximum=1.0, help="constant weight decays of the frozen optimizer, each with every scale"
    )
    sam: tuple[float, ...] = setting(
        (), above=0.0, maximum=1e6, allow_empty=True, help="radii of SAM around the frozen optimizer: two passes a step"
    )
    marks: tuple[int, ...] = setting(
        (), minimum=0, allow_empty=True, help="inner steps at which is measured beside the last; []: a few"
    )
    checkpoint: str = setting("best", choices=CHECKPOINTS, help="which checkpoint of the runs")
    untrained: bool = setting(False, help="evaluate the fresh meta-parameters that the runs began with, too")
    baselines: tuple[str, ...] = setting(
        (), choices=BASELINE_NAMES, allow_empty=True, help="hand-designed optimizers, tuned for every task"
    )


@dataclass(frozen=True)
class Protocol:
    """What decides an evaluation's figures beside the optimizer and the task."""

    inner_steps: int
    radii: tuple[float, ...]
    examples: int
    restarts: int
    ascent_steps: int
    precision: str
    extended: bool
    marks: tuple[int, ...]
    adaptive_radius: float = 0.5  # plans of before it was measured do not say

    @property
    def middle_radius(self) -> float:
        """Where sharpness is shown when one radius has to do."""
        return self.radii[len(self.radii) // 2]

    @property
    def of_grid(self) -> Protocol:
        """The cheaper probes of a grid's points: what a frontier is read by, at the last inner step, for a tenth of the
        time and less. What is measured is measured as elsewhere.
        """
        return replace(self, radii=(self.middle_radius,), extended=False, marks=(self.inner_steps,))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Protocol:
        fields: dict[str, Any] = {key: _tuple(value) for key, value in values.items()}
        fields["radii"] = tuple(map(_as_typed, fields["radii"]))
        if "adaptive_radius" in fields:
            fields["adaptive_radius"] = _as_typed(fields["adaptive_radius"])
        return cls(**fields)


@dataclass(frozen=True)
class Planned:
    """One evaluation of a plan: a run's learned optimizer from a checkpoint at a scale, or a baseline, on a task.

    `weight_decay` and `sam` (0: none) as in `frozen_unroll`.
    """

    task: dict[str, Any] = field(hash=False)
    protocol: Protocol
    run: str = ""  # path of the run; empty: a baseline
    optimizer: str = ""  # the kind of learned optimizer, or the baseline
    source: str = ""  # best, last, initial or untrained
    scale: float = 1.0
    weight_decay: float = 0.0
    sam: float = 0.0

    @property
    def task_name(self) -> str:
        return f"{self.task['dataset']}/{self.task['optimizee']}"

    @property
    def label(self) -> str:
        if not self.run:
            return self.optimizer
        return " ".join([f"{self.optimizer} ({self.source})", *self._changes(" ")])

    def _changes(self, between: str) -> Iterator[str]:
        """What is done to the learned optimizer, in words."""
        yield from [f"x{self.scale:g}"] if self.scale != 1 else []
        yield from [f"decay{between}{self.weight_decay:g}"] if self.weight_decay else []
        yield from [f"sam{between}{self.sam:g}"] if self.sam else []

    def file_name(self, identity: str) -> str:
        """The transfer file's name: what people look for, and a hash of all that decides the figures."""
        words = "-".join([self.source or self.optimizer, *self._changes("")])
        words += f"-{self.task['dataset']}-{self.task['optimizee']}-{self.protocol.inner_steps}"
        return f"{slug(words)[:40]}-{identity}"

    def identity(self, facts: Any) -> str:
        """A hash of what decides the figures; `facts` stand for the optimizer (its meta-parameters' digest)."""
        task = {key: value for key, value in self.task.items() if LATER_OF_TASKS.get(key) != value}
        decisive = [self.optimizer, self.scale, task, asdict(self.protocol), facts]
        if self.weight_decay or self.sam:  # which came later: what is saved goes by the others
            decisive += [self.weight_decay, self.sam]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Plan:
    """What `lreg transfer` was asked for. `tasks` are resolved [task] tables, `runs` paths."""

    runs: tuple[str, ...]
    optimizers: tuple[str, ...]  # the kind of each run's learned optimizer
    tasks: tuple[dict[str, Any], ...]
    protocol: Protocol
    settings: TransferSettings
    baselines_alone: bool = False  # the runs are only told of them, and evaluated elsewhere

    def evaluations(self) -> Iterator[Planned]:
        """Task by task; the baselines of a task come last."""
        for task in self.tasks:
            for run, kind in zip(self.runs, self.optimizers, strict=True) if not self.baselines_alone else ():
                plain = Planned(task, self.protocol, run, kind, self.settings.checkpoint)
                scales = sorted({1.0, *self.settings.scales}, key=lambda value: (value != 1, value))
                yield from (replace(plain, scale=scale) for scale in scales)
                for decay in sorted({*self.settings.weight_decays} - {0.0}):
                    decayed = replace(plain, protocol=self.protocol.of_grid, weight_decay=decay)
                    yield from (replace(decayed, scale=scale) for scale in scales)
                yield from (replace(plain, sam=radius) for radius in sorted({*self.settings.sam}))
                if self.settings.untrained:
                    yield Planned(task, self.protocol, run, kind, UNTRAINED)
            for name in self.settings.baselines:
                yield Planned(task, self.protocol, optimizer=name)

    def groups(self) -> list[list[Planned]]:
        """The evaluations; together those that are trained side by side, a grid's points under weight decays.

        The others spend their time on their probes, which are lost together when they are interrupted.
        """

        def key(item: Planned) -> Any:
            return (item.task, item.run) if item.weight_decay else item

        return [list(group) for _, group in groupby(self.evaluations(), key)]

    def summary(self) -> dict[str, Any]:
        """What was asked for, for people: by key, as in a preset."""
        return {
            "runs": [Path(run).name for run in self.runs],
            "tasks": [f"{task['dataset']}/{task['optimizee']}" for task in self.tasks],
            **{key: value for key, value in asdict(self.settings).items() if key not in ("steps", "marks")},
            **asdict(self.protocol),
        }

    def dumps(self) -> str:
        """As JSON; radii that were typed in a form of their own are text there."""
        values = asdict(self)
        protocol = values["protocol"]
        protocol["radii"] = [_as_text(radius) for radius in protocol["radii"]]
        protocol["adaptive_radius"] = _as_text(protocol["adaptive_radius"])
        return json.dumps(values, indent=1) + "\n"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """Raises RunError where that is no plan."""
        try:
            settings = {key: _tuple(value) for key, value in values["settings"].items()}
            plan = cls(
                runs=tuple(map(str, values["runs"])),
                optimizers=tuple(map(str, values["optimizers"])),
                tasks=tuple({key: _tuple(value) for key, value in task.items()} for task in values["tasks"]),
                protocol=Protocol.from_json(values["protocol"]),
                settings=TransferSettings(**settings),
                baselines_alone=values.get("baselines_alone") is True,
            )
            list(plan.evaluations())
            return plan
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"plan.json: no plan of a transfer evaluation ({error})") from None


def make(
    runs: Sequence[RunReader],
    targets: Sequence[str],
    settings: TransferSettings,
    changes: Mapping[str, Any] | None = None,
) -> Plan:
    """Plan the evaluation of runs on targets ("fmnist/cnn", "all"; none: what the first run was meta-trained on).

    `changes` are tables that go over the first run's [task] and [evaluation]. Raises PresetError or RunError.
    """
    presets = [reader.preset() for reader in runs]
    changes = changes or {}
    # What is said of [task] is said of the targets, which may be of another kind than what the run was trained on.
    checked = _with_changes(presets[0], {**changes, "task": {}} if targets else changes)
    names = [name for given in targets for name in (GRID if given == "all" else [given])]
    tasks = [target(name, checked, changes) for name in dict.fromkeys(names)] or checked.fixed_tasks()
    for reader in runs:
        _has_checkpoint(reader, settings.checkpoint)
    horizon = checked["meta"]["inner_steps"]
    steps = settings.steps or (horizon[-1] if isinstance(horizon, tuple) else horizon)
    evaluation = checked["evaluation"]
    protocol = Protocol(
        inner_steps=steps,
        radii=tuple(evaluation["radii"]),
        examples=evaluation["examples"],
        restarts=evaluation["restarts"],
        ascent_steps=evaluation["ascent_steps"],
        precision=evaluation["precision"],
        extended=evaluation["extended"],
        marks=marks_within(steps, settings.marks),
        adaptive_radius=evaluation["adaptive_radius"],
    )
    kinds = tuple(preset["optimizer"]["kind"] for preset in presets)
    return Plan(tuple(str(reader.path) for reader in runs), kinds, tuple(tasks), protocol, settings)


def marks_within(steps: int, requested: Sequence[int] = ()) -> tuple[int, ...]:
    """The inner steps at which is measured: those wanted, or 1, 2, 5, 10, ... from a twentieth of the steps on."""
    if requested:
        late = [mark for mark in requested if mark > steps]
        if late:
            raise PresetError([Problem("--marks", show(late[0]), f"inner steps from 0 to {steps}")])
        return tuple(sorted({*requested, steps}))
    points = {base * 10**power for power in range(len(str(steps))) for base in (1, 2, 5)}
    return tuple(sorted({point for point in points if steps <= 20 * point and point <= steps} | {steps}))


def _with_changes(preset: Preset, changes: Mapping[str, Any]) -> Preset:
    evaluation = {**preset["evaluation"], **changes.get("evaluation", {})}
    tasks = [{**task, **changes.get("task", {})} for task in preset.tasks]
    return from_mapping({**preset.values, "task": tasks, "evaluation": evaluation})


def target(name: str, preset: Preset, changes: Mapping[str, Any], option: str = "--to") -> dict[str, Any]:
    """A resolved [task] table for "dataset/optimizee"; batch size and held-out part as in the run's first task.

    Where that draws these, as in its first held-out draw; episodes have neither. Raises PresetError, as of `option`.
    """
    dataset, slash, optimizee = name.partition("/")
    if not slash or not dataset or not optimizee:
        allowed = 'DATASET/OPTIMIZEE, as "fmnist/cnn"' + (", or all" if option == "--to" else "")
        raise PresetError([Problem(option, show(name), allowed)])
    unused = {item.name for item in catalog.load().unused.get(dataset, ())}
    shared = {key: preset.fixed_tasks()[0][key] for key in ("batch_size", "validation") if key not in unused}
    table = {**shared, **changes.get("task", {}), "dataset": dataset, "optimizee": optimizee}
    try:
        values = from_mapping({"task": table}).tasks[0]
    except PresetError as error:
        raise PresetError(error.problems, f"{option} {name}", error.more) from None
    if is_drawn(values):
        drawn = {key: value for key, value in values.items() if is_drawn({key: value})}
        problems = [
            Problem(f"task.{key}", show(value), "one value: a target is one task") for key, value in drawn.items()
        ]
        raise PresetError(problems, f"{option} {name}")
    return values


def _has_checkpoint(reader: RunReader, checkpoint: str) -> None:
    saved = reader.checkpoints()
    if checkpoint not in saved:
        has = f"it has {', '.join(saved)}" if saved else "it has none: it stopped before the first was written"
        raise RunError(f"{reader.path}: no checkpoint {checkpoint}; {has}")


def _as_typed(radius: Any) -> Any:
    return Typed(radius) if isinstance(radius, str) else radius


def _as_text(radius: float) -> Any:
    return radius.text if isinstance(radius, Typed) else radius


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
