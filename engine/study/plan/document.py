"""Study file: TOML that names arms, axes, seeds and transfers; checked as a preset is, all problems at once.

What it resolves to is a StudyPlan, with the preset of every arm in it. Without torch.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tomli

from engine.base.errors import MOST_PROBLEMS, PresetError, Problem
from engine.base.metrics import metric as metric_of
from engine.base.settings import UNKNOWN, check_table, did_you_mean, schema_of, setting, show, unknown_key
from engine.presets import catalog as catalogs
from engine.presets import document as documents
from engine.presets.catalog import Catalog, named_members
from engine.presets.document import Document
from engine.presets.preset import from_mapping
from engine.runs.writer import slug
from engine.study.plan import search
from engine.study.plan.plan import (
    KEYED,
    MOST_CELLS,
    PICKED_BY,
    ArmPlan,
    Point,
    Search,
    SelectionRule,
    StudyAxis,
    StudyPlan,
    ends,
    flat,
    read_axes,
    taken_apart,
)
from engine.study.plan.sources import OF_PRESETS, TABLES, StudyError, find_study, parsed
from engine.study.plan.transfers import read_transfer

MOST_ARMS = 1000
LONGEST = 40  # of a study's or an arm's name: both are part of the names of runs
OWN_KEYS = {"seed": "seeds = [...]", "name": "no name: runs are called after study, arm and point"}
Placed = dict[str, tuple[str, StudyAxis]]
"""Axes by key, each with the key path where it stands in the file."""


@dataclass(frozen=True)
class StudySettings:
    """The keys at the top of a study file."""

    name: str = setting("", help="what the study is called; empty: the file's name")
    description: str = setting("", help="one line on what the study is for")
    seeds: int | tuple[int, ...] = setting((0,), minimum=0, maximum=2**53, help="meta-seeds, or how many: 0, 1, ...")
    preset: str = setting("", help="base preset: a path beside the study, or a shipped name; empty: the defaults")
    reference: str = setting(
        "", help="arm that the others are compared with; empty: the first without a penalty or term"
    )


@dataclass(frozen=True)
class ArmSettings:
    """The keys of an [[arm]] beside its tables."""

    name: str = setting("", help="what the arm is called")
    preset: str = setting("", help="preset in place of the base")


@dataclass(frozen=True)
class ReportSettings:
    """The [report] table."""

    paper: str = setting("", choices=("", "lr", "xh"), help="whose claims or numbers the report looks at; empty: none")


def load_study(name_or_path: str | os.PathLike[str], overrides: Iterable[str] = (), stamp: str = "") -> StudyPlan:
    """Read, resolve and check a study by file path or shipped name, and the preset of every one of its runs.

    `overrides` are "key.path=value" texts: seeds=[0], set.meta.epochs=5, arm.NAME.preset="lo", transfer.steps=100.
    `stamp` is when the study is started, as run ids begin. Raises StudyError with every problem; LregError where a
    search lacks Optuna.
    """
    path, source = find_study(name_or_path), os.fspath(name_or_path)
    try:
        document = Document(taken_apart(parsed(path, source)), [])
        document.layers.append((source, document.values))
        reader = _StudyReader(document, source, path, catalogs.load())
        reader.override(overrides)
        plan = reader.plan(stamp)
    except PresetError as error:
        raise StudyError(error.problems, source, error.more) from None
    except RecursionError:
        raise StudyError([Problem("", "tables nested too deeply", "two or three levels")], source) from None
    if reader.problems or plan is None:
        problems = list(dict.fromkeys(reader.problems))
        told = [reader.attributed(problem) for problem in problems[:MOST_PROBLEMS]]
        raise StudyError(told, source, len(problems) - len(told))
    if plan.search is not None:
        search.require()
    return plan


@dataclass
class _StudyReader:
    """Reads one study, and collects what is wrong with it."""

    document: Document
    source: str
    path: Path
    catalog: Catalog
    problems: list[Problem] = field(default_factory=list)

    # -- problems, and where they stand ------------------------------------------------------------------------------

    def add(self, *problems: Problem) -> None:
        """Problems of the study's own keys, unless they say whose they are."""
        self.problems += [problem if problem.source else replace(problem, source=self.source) for problem in problems]

    def attributed(self, problem: Problem) -> Problem:
        """A problem of the study's own, with who says what stands there: the file, or --set."""
        said_by = self.document.source_of(self.numbered(problem.path)) if problem.source == self.source else ""
        return replace(problem, source=said_by or problem.source)

    @property
    def arm_names(self) -> list[str]:
        """What the arms are called, in order; empty for what has no name."""
        arms = self.document.values.get("arm")
        names = [
            arm.get("name") if isinstance(arm, Mapping) else "" for arm in (arms if isinstance(arms, list) else ())
        ]
        return [name if isinstance(name, str) else "" for name in names]

    def numbered(self, path: str) -> str:
        """A key path in which an arm goes by its name, with the arm's number instead."""
        for index, name in enumerate(self.arm_names):
            if name and path.startswith(f"arm.{name}."):
                return f"arm.{index}." + path.removeprefix(f"arm.{name}.")
        return path

    def override(self, texts: Iterable[str]) -> None:
        """Apply "key.path=value" texts; where the arm of one is not there, the arms are named."""
        names = list(filter(None, self.arm_names))
        for problem in documents.override(self.document, list(map(self.numbered, texts)), self.catalog):
            _, is_missing, missing = problem.found.partition("no arm.")
            if is_missing and names:
                problem = replace(problem, allowed="an arm: " + ", ".join(names), hint=did_you_mean(missing, names))
            self.add(problem)

    # -- tables ------------------------------------------------------------------------------------------------------

    def plan(self, stamp: str) -> StudyPlan | None:
        """The plan of what is fine, which is all of it where there are no problems; None where that is no study."""
        values = self.document.values
        top = self.table(values, "", schema_of(StudySettings), TABLES)
        searched = self.table(self.section("search"), "search", schema_of(Search)) if "search" in values else None
        report = self.table(self.section("report"), "report", schema_of(ReportSettings))
        pick, seeds = self.pick(), self.seeds(top["seeds"])
        name = self.checked_name(top["name"] or self.path.stem, "name")
        names, arms, axes = self.arms(top["preset"], searched is not None)
        transfer, problems = read_transfer(self.section("transfer"), arms, self.catalog)
        reference = top["reference"]
        if reference and reference not in names:
            hint = did_you_mean(reference, names)
            problems.append(Problem("reference", show(reference), "an arm: " + ", ".join(names), hint))
        self.add(*problems)
        if pick is None or not seeds or not arms:
            return None
        first_plain = next((arm.name for arm in arms if not named_members(arm.preset)), arms[0].name)
        plan = StudyPlan(
            name=name or "study",
            stamp=stamp,
            seeds=seeds,
            arms=tuple(arms),
            reference=reference or first_plain,
            description=top["description"],
            pick=SelectionRule(**pick),
            search=Search(**searched) if searched is not None else None,
            transfer=transfer if "transfer" in values else None,
            report={key: value for key, value in report.items() if value},
        )
        self.check_cells(plan, axes)
        if searched is not None and not any(axes.values()):
            self.add(Problem("search", "no axes to search in", "[axes], or axes of an [[arm]]"))
        return plan

    def table(
        self, values: Mapping[str, Any], path: str, schema: Sequence[Any], tables: Sequence[str] = ()
    ) -> dict[str, Any]:
        """A table's values; what is neither in the schema nor one of the tables in it is a problem."""
        allowed = [item.name for item in schema] + list(tables)
        fitting = {key: value for key, value in values.items() if key in allowed and key not in tables}
        checked, problems = check_table(fitting, schema, path)
        self.add(*problems)
        for key in (key for key in values if key not in allowed):
            where = f"{path}.{key}" if path else key
            is_told = len(self.problems) < MOST_PROBLEMS  # of the rest nobody sees more than their number
            problem = unknown_key(where, allowed) if is_told else Problem(where, UNKNOWN, "")
            belongs = f"keys of the preset go under set: set.{key}" if not path and key in OF_PRESETS else problem.hint
            self.add(replace(problem, hint=belongs))
        return checked

    def section(self, name: str, values: Any = None, path: str = "") -> Mapping[str, Any]:
        values = self.document.values.get(name, {}) if values is None else values
        if isinstance(values, Mapping):
            return values
        self.add(Problem(path or name, show(values), f"a table: [{name}]"))
        return {}

    def seeds(self, seeds: Any) -> tuple[int, ...]:
        if isinstance(seeds, int) and seeds <= MOST_CELLS:
            seeds = tuple(range(seeds))
        if not seeds or isinstance(seeds, int) or len(set(seeds)) < len(seeds):
            if seeds is not None:
                self.add(Problem("seeds", show(seeds or 0), "different meta-seeds, or how many: a number >= 1"))
            return ()
        return tuple(seeds)

    def checked_name(self, name: Any, path: str) -> str:
        """A name that can be part of a run's."""
        if not isinstance(name, str):
            return ""
        if not name.strip() or len(name) > LONGEST or not name.isprintable():
            self.add(Problem(path, show(name), f"1 to {LONGEST} printable characters"))
            return ""
        return name

    def pick(self) -> dict[str, Any] | None:
        """The [pick] table. What is measured on test data is refused: the winner would have seen the test."""
        table = self.section("pick")
        metric = table.get("metric")
        if isinstance(metric, str) and metric_of(metric.removeprefix("best_")).split == "test":
            hint = "it is measured on test data, and a winner picked by it would have seen the test"
            self.add(Problem("pick.metric", show(metric), "one of: " + ", ".join(PICKED_BY), hint))
            return None
        return self.table(table, "pick", schema_of(SelectionRule))

    # -- arms --------------------------------------------------------------------------------------------------------

    def arms(self, base: str | None, searched: bool) -> tuple[list[str], list[ArmPlan], dict[str, Placed]]:
        """The names of all arms, those arms that are fine, and the axes of each; one with the base preset where the
        file has none.
        """
        lone = slug(Path(base or "base").stem)[:LONGEST]
        tables = self.document.values.get("arm", [{"name": lone}])
        names: list[str] = []
        arms: list[ArmPlan] = []
        axes: dict[str, Placed] = {}
        if not isinstance(tables, list) or not tables or not all(isinstance(arm, Mapping) for arm in tables):
            self.add(Problem("arm", show(tables), "tables: [[arm]]"))
            return names, arms, axes
        if len(tables) > MOST_ARMS:
            self.add(Problem("arm", f"{len(tables)} arms", f"at most {MOST_ARMS} in a study"))
            return names, arms, axes
        common = self.axes(self.section("axes"), "axes", searched)
        slugs: set[str] = set()
        for index, table in enumerate(tables):
            values = self.table(table, f"arm.{index}", schema_of(ArmSettings), KEYED)
            name = self.checked_name(values["name"], f"arm.{index}.name")
            if slug(name) in slugs:
                self.add(Problem(f"arm.{index}.name", show(name), "a name of its own"))
            slugs.add(slug(name))
            names.append(name)
            path = f"arm.{name or index}"
            of_arm = self.section("axes", table.get("axes", {}), f"{path}.axes")
            axes[name] = {**common, **self.axes(of_arm, f"{path}.axes", searched)}
            preset, named_by = (values["preset"], f"{path}.preset") if values["preset"] != "" else (base, "preset")
            layers = {"set": self.section("set")}
            layers[f"{path}.set"] = self.section("set", table.get("set", {}), f"{path}.set")
            # a preset that is none is a problem already; of too many problems the rest would not be told
            if preset is not None and len(self.problems) <= MOST_PROBLEMS:
                arms += self.arm(name, preset, named_by, layers, axes[name])
        return names, arms, axes

    def axes(self, table: Mapping[str, Any], path: str, searched: bool) -> Placed:
        axes, problems = read_axes(table, path, searched)
        self.add(*problems)
        return {axis.key: (f"{path}.{axis.key}", axis) for axis in axes}

    def arm(
        self, name: str, preset: str, named_by: str, layers: Mapping[str, Mapping[str, Any]], axes: Placed
    ) -> Iterable[ArmPlan]:
        """The arm with its whole preset, if it is fine. `layers`: what is set over it, by where that stands."""
        before = len(self.problems)
        try:
            document = self.base(preset, named_by)
            for layer, table in layers.items():
                values = flat(table)
                for key in OWN_KEYS.keys() & values.keys():
                    self.add(Problem(f"{layer}.{key}", "a key that the study gives itself", OWN_KEYS[key]))
                pairs = [(key, value) for key, value in values.items() if key not in OWN_KEYS]
                for problem in documents.put(document, pairs, layer, self.catalog):
                    self.add(replace(problem, path=f"{layer}.{problem.path}", source=self.source))
        except PresetError as error:
            self.add(*error.problems)
            return []
        try:
            checked = from_mapping(document.values, catalog=self.catalog)
        except PresetError as error:
            for problem in error.problems:  # in the study's tables, else in the preset's own files
                said_by = document.source_of(problem.path)
                if said_by in layers:
                    self.add(replace(problem, path=f"{said_by}.{problem.path}", source=self.source))
                else:
                    files = [source for source, _ in document.layers[-1:]]
                    self.add(replace(problem, source=said_by or next(iter(files), self.source)))
            return []
        keys = checked.flat()
        for path, axis in axes.values():
            if axis.key not in keys:
                is_told = len(self.problems) - before < MOST_PROBLEMS  # of the rest nobody sees any
                beside = [key for key in keys if key.startswith(axis.key.rsplit(".", 1)[0] + ".")]
                allowed = ", ".join(beside) or "a key of its preset, as meta.epochs"
                hint = did_you_mean(axis.key, keys, 0.8) if is_told else ""
                self.add(Problem(path, f'a key that the preset of arm "{name}" does not have', allowed, hint))
        if len(self.problems) > before:
            return []
        return [ArmPlan(name, tomli.loads(checked.dumps()), tuple(axis for _, axis in axes.values()))]

    def base(self, preset: str, named_by: str) -> Document:
        """The tables of an arm's preset file: one beside the study, else a shipped one. Raises PresetError."""
        if not preset:
            return Document({"name": "default"}, [])
        shipped, beside = documents.shipped(), self.path.parent / preset
        path = beside if documents.is_file(beside) else shipped.get(preset.removesuffix(".toml"))
        if path is None:
            allowed = "a TOML file beside the study, or one of: " + ", ".join(shipped)
            instead = f"{show(preset)}, {documents.instead_of_file(beside, 'preset')}"
            raise PresetError([Problem(named_by, instead, allowed, did_you_mean(Path(preset).stem, shipped))])
        document = documents.read(path, preset, self.catalog)
        document.values.setdefault("name", path.stem)
        return document

    # -- runs --------------------------------------------------------------------------------------------------------

    def check_cells(self, plan: StudyPlan, axes: Mapping[str, Placed]) -> None:
        """The runs of a study: every point of a grid, or the ends of what is searched."""
        runs = sum(math.prod(len(axis.values) or 2 for axis in arm.axes) for arm in plan.arms) * len(plan.seeds)
        if runs > MOST_CELLS:
            self.add(Problem("axes", f"{runs} runs", f"at most {MOST_CELLS} in a study"))
            return
        one_seed = replace(plan, seeds=plan.seeds[:1])  # the meta-seed fits every preset
        problems: dict[tuple[str, str, str], Problem] = {}
        for arm in plan.arms:
            keys = [axis.key for axis in arm.axes]
            for values in itertools.product(*map(ends, arm.axes)):
                point = dict(zip(keys, values, strict=True))
                try:
                    list(one_seed.cells_of(arm, [point]))
                except PresetError as error:
                    for problem in (_at_point(problem, arm.name, point, axes[arm.name]) for problem in error.problems):
                        problems.setdefault((problem.path, problem.found, problem.allowed), problem)
        self.add(*problems.values())


def _at_point(problem: Problem, arm: str, point: Point, axes: Placed) -> Problem:
    """A problem of one run, at the axis that makes it; else at the arm, with the point in the hint."""
    path, axis = axes.get(problem.path, (f"arm.{arm}.{problem.path}", None))
    hint = problem.hint
    if axis is not None and isinstance(point[axis.key], float) and "an integer" in problem.allowed:
        hint = "in a range, integer = true gives whole numbers"
    elif axis is None or len(point) > 1:
        hint = hint or "at " + ", ".join(f"{key} = {show(value)}" for key, value in point.items())
    return replace(problem, path=path, hint=hint, source="")
