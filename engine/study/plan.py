"""Study plan: everything that a study is, resolved and checked, as its folder keeps it. Without torch.

A study file names arms, axes and seeds (engine.study.document reads it). The plan holds the presets themselves, so a
study goes on as it began, whatever happens to the files that it was made of.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.errors import RunError
from engine.preset import Preset
from engine.writer import slug

Point = dict[str, Any]
"""A value for each axis, by key path ("penalty.sam.rho")."""

SPEAKING = ("name", "description", "tags", "threads")  # keys that change no figure


@dataclass(frozen=True)
class Axis:
    """A preset key and what is tried for it: values; or, for a search, a range."""

    key: str
    values: tuple[Any, ...] = ()
    low: float = math.nan
    high: float = math.nan
    log: bool = True
    integer: bool = False


@dataclass(frozen=True)
class ArmPlan:
    """An arm: the values of its preset, and its axes."""

    name: str
    preset: dict[str, Any] = field(hash=False)
    axes: tuple[Axis, ...] = ()

    def grid(self) -> list[Point]:
        """Every point; one without axes."""
        keys = [axis.key for axis in self.axes]
        return [dict(zip(keys, values, strict=True)) for values in itertools.product(*(a.values for a in self.axes))]


@dataclass(frozen=True)
class Pick:
    """How the best point of an arm is chosen: a metric of validation, mean over the meta-seeds; less is better."""

    metric: str = "best_validation_loss"


@dataclass(frozen=True)
class Search:
    """Points asked for one after another instead of a grid, by Optuna."""

    sampler: str = "tpe"
    trials: int = 20
    seed: int = 0


@dataclass(frozen=True)
class TransferRequest:
    """The transfer evaluations: keys of `lreg transfer`, and which runs get them."""

    of: str = "winners"  # or all
    to: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict, hash=False)  # TransferSettings: steps, seeds, checkpoint, ...
    evaluation: dict[str, Any] = field(default_factory=dict, hash=False)  # over the [evaluation] table
    scales: tuple[float, ...] = ()  # beside 1, for the reference arm: its scale frontier
    untrained: bool = True  # for the reference arm
    baselines: tuple[str, ...] = ()  # once for the study


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    arm: str
    point: Point = field(hash=False)
    seed: int
    preset: Preset = field(hash=False)

    @property
    def identity(self) -> str:
        """A hash of what decides the run's figures: equal cells are one run."""
        decisive = {key: value for key, value in self.preset.values.items() if key not in SPEAKING}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=list).encode()).hexdigest()[:8]

    def run_id(self, stamp: str) -> str:
        """The name of the run's folder: the same whenever the study asks for it, so no cell is ever run twice."""
        return f"{stamp}-{slug(self.preset.name)}-{self.identity}"


@dataclass(frozen=True)
class StudyPlan:
    """A resolved study. `stamp` is when it was started, as run ids begin ("20261120-211500")."""

    name: str
    stamp: str
    seeds: tuple[int, ...]
    arms: tuple[ArmPlan, ...]
    reference: str  # the arm that the others are compared with
    description: str = ""
    pick: Pick = Pick()
    search: Search | None = None
    transfer: TransferRequest | None = None
    report: dict[str, Any] = field(default_factory=dict, hash=False)  # what the report shows beside the usual

    def cells_of(self, arm: ArmPlan, points: Sequence[Point]) -> Iterator[Cell]:
        """The runs of an arm at these points, one for each meta-seed. Raises PresetError where a point does not fit."""
        for point in points:
            for seed in self.seeds:
                yield Cell(arm.name, point, seed, self._preset(arm, point, seed))

    def grid(self) -> list[Cell]:
        """Every cell of a study without a search, arm by arm."""
        return [cell for arm in self.arms for cell in self.cells_of(arm, arm.grid())]

    def _preset(self, arm: ArmPlan, point: Point, seed: int) -> Preset:
        from engine.preset import from_mapping

        name = f"{self.name}-{arm.name}" + "".join(f"-{key.split('.')[-1]}{value}" for key, value in point.items())
        values = json.loads(json.dumps(arm.preset, default=list))
        for key, value in point.items():
            _put(values, key, value)
        tags = dict.fromkeys([*values.get("tags", ()), f"study:{self.name}"])
        return from_mapping({**values, "name": f"{name}-s{seed}", "seed": seed, "tags": list(tags)}, self.name)

    def dumps(self) -> str:
        return json.dumps(asdict(self), indent=1, default=list) + "\n"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StudyPlan:
        """Raises RunError where that is no study."""
        try:
            arms = tuple(
                ArmPlan(arm["name"], arm["preset"], tuple(Axis(**_tuples(axis)) for axis in arm["axes"]))
                for arm in values["arms"]
            )
            search, transfer = values.get("search"), values.get("transfer")
            return cls(
                name=str(values["name"]),
                stamp=str(values["stamp"]),
                seeds=tuple(map(int, values["seeds"])),
                arms=arms,
                reference=str(values["reference"]),
                description=str(values.get("description", "")),
                pick=Pick(**values["pick"]),
                search=Search(**search) if search else None,
                transfer=TransferRequest(**_tuples(transfer)) if transfer else None,
                report=dict(values.get("report", {})),
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"study.json: no study ({error})") from None


def _put(tables: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    node: Any = tables
    for part in path:
        node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        if isinstance(node, list) and len(node) == 1:
            node = node[0]  # a lone task
    node[last] = value


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
