"""Study plan: everything that a study is, resolved and checked, as its folder keeps it. Without torch.

A study file names arms, axes and seeds (`engine.study.plan.document` reads it). The plan holds the presets themselves,
so a study goes on as it began, whatever happens to the files that it was made of.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.base.errors import PresetError, Problem, RunError
from engine.base.settings import LARGEST, Setting, check_table, schema_of, setting, show
from engine.evaluation.transfer_plan import BASELINE_NAMES, GRID
from engine.presets import catalog as catalogs
from engine.presets.document import Document, put
from engine.presets.former import TERMS, todays, todays_path
from engine.presets.preset import Preset
from engine.runs.writer import slug

Point = dict[str, Any]
"""A value for each axis, by key path ("penalty.sam.rho")."""
SPEAKING = ("name", "description", "tags", "threads")  # keys that change no figure
PICKED_BY: tuple[str, ...] = ("best_validation_loss", "validation_loss")
PICKED_BY += ("best_validation_mean_loss", "validation_mean_loss")
SAMPLERS = ("tpe", "random")
LONGEST_NAME = 80  # of a preset
MOST_CELLS = 10_000
RANGE = (
    Setting("from", ("float",), None, "the least value"),
    Setting("to", ("float",), None, "the greatest value"),
    Setting("points", ("int",), None, "how many values, both ends included", minimum=2, maximum=10_000),
    Setting("linear", ("bool",), False, "equal differences instead of equal ratios"),
    Setting("integer", ("bool",), False, "whole numbers only"),
)
KEYED = ("set", "axes")  # tables of a study and of its arms whose keys are key paths of a preset
DIGITS = 6  # significant ones of a grid's points
ALLOWED = "a list of values, or { from = ..., to = ..., points = ... }"


@dataclass(frozen=True)
class StudyAxis:
    """A preset key and what is tried for it: values; or, for a search, a range."""

    key: str
    values: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    log: bool = True
    integer: bool = False


@dataclass(frozen=True)
class ArmPlan:
    """An arm: the values of its preset, and its axes."""

    name: str
    preset: dict[str, Any] = field(hash=False)
    axes: tuple[StudyAxis, ...] = ()

    def grid(self) -> list[Point]:
        """Every point; one without axes."""
        keys = [axis.key for axis in self.axes]
        return [dict(zip(keys, values, strict=True)) for values in itertools.product(*(a.values for a in self.axes))]


@dataclass(frozen=True)
class SelectionRule:
    """How the best point of an arm is chosen: a metric of validation, mean over the meta-seeds; less is better."""

    metric: str = setting("best_validation_loss", choices=PICKED_BY, help="metric by which winners are picked")


@dataclass(frozen=True)
class Search:
    """Points asked for one after another instead of a grid, by Optuna."""

    sampler: str = setting("tpe", choices=SAMPLERS, help="how the next point is chosen")
    trials: int = setting(20, minimum=1, maximum=10_000, help="points for each arm with axes")
    seed: int = setting(0, minimum=0, maximum=2**53, help="of what is random in the search")


@dataclass(frozen=True)
class TransferSpec:
    """The transfer evaluations, as the [transfer] table asks for them: which runs get them, and which controls."""

    of: str = setting("winners", choices=("winners", "all"), help="which runs: those of each arm's winner, or all")
    to: tuple[str, ...] = setting((), allow_empty=True, help="DATASET/OPTIMIZEE, or all; []: as meta-trained")
    settings: dict[str, Any] = field(default_factory=dict, hash=False)  # of TransferSettings, as they are passed on
    evaluation: dict[str, Any] = field(default_factory=dict, hash=False)  # over the [evaluation] table
    scales: tuple[float, ...] = setting(
        (), above=0.0, maximum=1e6, allow_empty=True, help="factors of the reference arm's updates: its scale frontier"
    )
    weight_decays: tuple[float, ...] = setting(
        (), minimum=0.0, maximum=1.0, allow_empty=True, help="of the reference arm, each with every scale: a grid"
    )
    sam: tuple[float, ...] = setting(
        (), above=0.0, maximum=1e6, allow_empty=True, help="radii of SAM around the reference arm's: headroom"
    )
    untrained: bool = setting(True, help="evaluate the meta-parameters that the reference arm began with, too")
    baselines: tuple[str, ...] = setting(
        (), choices=BASELINE_NAMES, allow_empty=True, help="hand-designed optimizers, once for the study"
    )

    @property
    def names(self) -> list[str]:
        """The targets, each once; "all" stands for the papers' grid."""
        return list(dict.fromkeys(name for target in self.to for name in (GRID if target == "all" else [target])))


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
        decisive = self.preset.decisive(without=SPEAKING)
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
    pick: SelectionRule = SelectionRule()
    search: Search | None = None
    transfer: TransferSpec | None = None
    report: dict[str, Any] = field(default_factory=dict, hash=False)  # what the report shows beside the usual

    def cells_of(self, arm: ArmPlan, points: Sequence[Point]) -> Iterator[Cell]:
        """The runs of an arm at these points, one for each meta-seed. Raises PresetError where a point does not fit."""
        for point in points:
            for seed in self.seeds:
                yield Cell(arm.name, point, seed, self._preset(arm, point, seed))

    @property
    def least_cells(self) -> int:
        """How many runs there are; of a search, those of what it does not search."""
        points = (math.prod(len(axis.values) for axis in arm.axes) for arm in self.arms)
        return len(self.seeds) * (len(self.arms) if self.search is not None else sum(points))

    def grid(self) -> list[Cell]:
        """Every cell of a study without a search, arm by arm."""
        return [cell for arm in self.arms for cell in self.cells_of(arm, arm.grid())]

    def _preset(self, arm: ArmPlan, point: Point, seed: int) -> Preset:
        from engine.presets.preset import from_mapping

        catalog = catalogs.load()
        values = {**arm.preset, "task": _lone(arm.preset.get("task", {}))}
        document = Document(json.loads(json.dumps(values, default=list)), [])
        problems = put(document, point.items(), "", catalog)
        if problems:
            raise PresetError(problems, self.name)
        tags = dict.fromkeys([*document.values.get("tags", ()), f"study:{self.name}"])
        name, ending = "-".join([self.name, arm.name, *(_word(*item) for item in point.items())]), f"-s{seed}"
        of_cell = {"name": name[: LONGEST_NAME - len(ending)] + ending, "seed": seed, "tags": list(tags)}
        return from_mapping({**document.values, **of_cell}, self.name, catalog=catalog)

    def dumps(self) -> str:
        return json.dumps(asdict(self), indent=1, default=list) + "\n"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StudyPlan:
        """Raises RunError where that is no study."""
        try:
            search, transfer = values.get("search"), values.get("transfer")
            if not re.fullmatch(r"[\w-]{1,64}", str(values["stamp"]), re.ASCII):  # it becomes part of folders' names
                raise ValueError("no stamp")
            plan = cls(
                name=str(values["name"]),
                stamp=str(values["stamp"]),
                seeds=tuple(map(int, values["seeds"])),
                arms=tuple(map(_arm, values["arms"])),
                reference=str(values["reference"]),
                description=str(values.get("description", "")),
                pick=SelectionRule(**_checked(values["pick"], SelectionRule, "pick")),
                search=Search(**_checked(search, Search, "search")) if search else None,
                transfer=_transfer(transfer) if transfer else None,
                report=dict(values.get("report", {})),
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"study.json: no study ({error})") from None
        if (cells := plan.least_cells) > MOST_CELLS:  # before they are made: strangers may ask for any number
            raise RunError(f"study.json: found {cells} runs; allowed: at most {MOST_CELLS}")
        return plan


def key_of(point: Point) -> str:
    """Equal for equal points, wherever they come from."""
    return json.dumps(point, sort_keys=True, default=list)


def weighing(values: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The penalties of a preset that weigh something, by name; such terms by path ("objective.terms.sharpness")."""
    return {path.removeprefix("penalty."): table for path, table in catalogs.weighing(values).items()}


def as_tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table from JSON as settings have it."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


# what follows raises what `from_json` understands


def _checked(values: Mapping[str, Any], schema: type, name: str) -> dict[str, Any]:
    checked, problems = check_table(dict(values), schema_of(schema), name)
    if problems:
        raise ValueError(str(problems[0]))
    return checked


def _transfer(values: Mapping[str, Any]) -> TransferSpec:
    request = TransferSpec(**as_tuples(values))
    texts, tables = (request.of, *request.to, *request.baselines), (request.settings, request.evaluation)
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(table, dict) for table in tables):
        raise TypeError("transfer: targets and baselines are texts, settings and evaluation tables")
    return request


def _arm(values: Mapping[str, Any]) -> ArmPlan:
    axes = tuple(StudyAxis(**as_tuples(axis)) for axis in values["axes"])
    is_sound = all(isinstance(axis.key, str) and isinstance(axis.values, tuple) for axis in axes)
    if not is_sound or not isinstance(values["preset"], dict):
        raise TypeError("an arm has a preset, a table, and axes, each with a key and a list of values")
    preset = todays(values["preset"])
    if isinstance(preset.get("objective"), dict):
        preset["objective"].setdefault(TERMS, {})  # as presets have it since they stand there
    return ArmPlan(str(values["name"]), preset, axes)


def _lone(tasks: Any) -> Any:
    """A task distribution of one as that one, as people write it, so that key paths are the same."""
    return tasks[0] if isinstance(tasks, (list, tuple)) and len(tasks) == 1 else tasks


def _word(key: str, value: Any) -> str:
    """A coordinate of a point as part of a name: "rho0.05"."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    return key.split(".")[-1] + "+".join(f"{part:.4g}" if isinstance(part, float) else str(part) for part in parts)


def leaves(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of nested or dotted tables by their full path; an empty table and a range are values."""
    for key, value in table.items():
        key_path = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping) and value and not any(item.name in value for item in RANGE):
            yield from leaves(value, key_path)
        else:
            yield key_path, value


def flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """The values of nested or dotted tables by their full path, the last word last; parts of a range come together."""
    values: dict[str, Any] = {}
    for dotted, value in leaves(table):
        path = dotted.removesuffix(".")
        before = values.pop(path, None)
        together = isinstance(value, Mapping) and isinstance(before, Mapping)
        values[path] = {**before, **value} if together else value
    return values


def taken_apart(values: Mapping[str, Any]) -> dict[str, Any]:
    """A study file's tables, `set` and `axes` by full paths, those of its arms as well: so --set has the last word."""

    def apart(key: str, value: Any) -> Any:
        if key == "arm" and isinstance(value, list):
            return [taken_apart(arm) if isinstance(arm, Mapping) else arm for arm in value]
        if key not in KEYED or not isinstance(value, Mapping):
            return value
        # An empty table takes away what is there: --set must not write into it, so "penalty" is "penalty." here.
        return {path if leaf != {} or "." in path else f"{path}.": leaf for path, leaf in flat(value).items()}

    return {key: apart(key, value) for key, value in values.items()}


def read_axes(table: Mapping[str, Any], path: str, searched: bool) -> tuple[list[StudyAxis], list[Problem]]:
    """The axes of a table, and what is wrong with them. `searched`: a range is one to search in, without points."""
    axes, problems = [], []
    for written, value in flat(table).items():
        axis = read_axis(todays_path(written), value, f"{path}.{written}", searched)
        axes += [axis] if isinstance(axis, StudyAxis) else []
        problems += axis if isinstance(axis, list) else []
    return axes, problems


def read_axis(key: str, value: Any, path: str, searched: bool) -> StudyAxis | list[Problem]:
    """One axis, or what is wrong with it."""
    if key == "seed":
        return [Problem(path, "an axis over the meta-seed", "seeds = [...], for all arms")]
    if key in SPEAKING:
        return [Problem(path, f"an axis over {key}", "a key that changes a run's figures")]
    if isinstance(value, Mapping):
        return _range(key, value, path, searched)
    if not isinstance(value, list) or not value:
        return [Problem(path, show(value), ALLOWED, "it is empty" if value == [] else f"write [{show(value)}]")]
    odd = [item for item in value if not _is_value(item)]
    if odd:
        return [Problem(path, show(value), ALLOWED, f"{show(odd[0])} does not fit")]
    if len({json.dumps(float(item) if type(item) is int else item) for item in value}) < len(value):
        return [Problem(path, show(value), "different values")]
    return StudyAxis(key, tuple(value))


def _range(key: str, table: Mapping[str, Any], path: str, searched: bool) -> StudyAxis | list[Problem]:
    values, problems = check_table(table, RANGE, path)
    low, high, log, integer = values["from"], values["to"], not values["linear"], values["integer"]
    if not problems:
        needed = [item for item in RANGE[: 2 if searched else 3] if item.name not in table]
        problems = [Problem(f"{path}.{item.name}", "nothing", item.describe()) for item in needed]
        if searched and "points" in table:
            allowed = "from and to only, as the study has a [search]"
            problems.append(Problem(f"{path}.points", show(table["points"]), allowed))
    if problems:
        return problems
    if log and low <= 0:
        problems.append(Problem(f"{path}.from", show(low), "a number > 0", "linear = true allows others"))
    if high <= low:
        problems.append(Problem(f"{path}.to", show(high), f"a number > {show(low)}, which is from"))
    if integer and not (low.is_integer() and high.is_integer() and max(abs(low), abs(high)) < LARGEST):
        problems.append(Problem(path, show([low, high]), "whole numbers from and to, as integer = true"))
    if problems:
        return problems
    if searched:
        return StudyAxis(key, (), low, high, log, integer)
    return StudyAxis(key, tuple(grid(low, high, values["points"], log=log, integer=integer)))


def grid(low: float, high: float, points: int, *, log: bool, integer: bool) -> list[Any]:
    """Values from low to high, both included, with equal ratios (log) or differences."""
    values = []
    for index in range(points):
        share = index / (points - 1)
        value = low * (high / low) ** share if log else low + (high - low) * share
        value = low if index == 0 else high if index == points - 1 else float(f"{value:.{DIGITS}g}")
        values.append(round(value) if integer else value)
    return list(dict.fromkeys(values))


def ends(axis: StudyAxis) -> tuple[Any, ...]:
    """The values between which, or among which, an axis is searched; all of a grid's."""
    if axis.low is None or axis.high is None:
        return axis.values
    both = (axis.low, axis.high)
    return tuple(map(round, both)) if axis.integer else both


def _is_value(item: Any) -> bool:
    if isinstance(item, list):
        return bool(item) and all(_is_value(part) and not isinstance(part, list) for part in item)
    return math.isfinite(item) if isinstance(item, float) else isinstance(item, (bool, int, str))
