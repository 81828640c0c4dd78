"""Study file: TOML that names arms, axes, seeds and transfers; checked as a preset is, all problems at once.

What it resolves to is a StudyPlan, with the preset of every arm in it. Without torch.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.base.errors import MOST_PROBLEMS, PresetError, Problem
from engine.base.settings import UNKNOWN, check_table, did_you_mean, schema_of, setting, show, unknown_key
from engine.presets import catalog as catalogs
from engine.presets import document as documents
from engine.presets.catalog import Catalog
from engine.presets.document import Document
from engine.runs.writer import slug
from engine.study.plan import search
from engine.study.plan.arms import ArmRequest, check_cells, first_plain, named, numbered, resolve
from engine.study.plan.axes import KEYED, read_axes, taken_apart
from engine.study.plan.plan import MOST_CELLS, PICKED_BY, ArmPlan, Axis, Pick, Search, StudyPlan
from engine.study.plan.sources import OF_PRESETS, TABLES, StudyError, find_study, parsed
from engine.study.plan.transfer_table import read_transfer

MOST_ARMS = 1000
LONGEST = 40  # of a study's or an arm's name: both are part of the names of runs


@dataclass(frozen=True)
class StudySettings:
    """The keys at the top of a study file."""

    name: str = setting("", help="what the study is called; empty: the file's name")
    description: str = setting("", help="one line on what the study is for")
    seeds: int | tuple[int, ...] = setting((0,), minimum=0, maximum=2**53, help="meta-seeds, or how many: 0, 1, ...")
    preset: str = setting("", help="base preset: a path beside the study, or a shipped name; empty: the defaults")
    reference: str = setting("", help="arm that the others are compared with; empty: the first without a penalty")


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
    catalog = catalogs.load()
    try:
        document = Document(taken_apart(parsed(path, source)), [])
        document.layers.append((source, document.values))
        problems = documents.override(document, [numbered(text, document.values) for text in overrides], catalog)
        problems = [named(problem, document.values) for problem in problems]
        reader = _Reader(document, source, path, catalog, problems)
        plan = reader.plan(stamp)
    except PresetError as error:
        raise StudyError(error.problems, source, error.more) from None
    except RecursionError:
        raise StudyError([Problem("", "tables nested too deeply", "two or three levels")], source) from None
    if reader.problems or plan is None:
        found = list(dict.fromkeys(reader.problems))
        told = list(map(reader.attributed, found[:MOST_PROBLEMS]))
        raise StudyError(told, source, len(found) - len(told))
    if plan.search is not None:
        search.require()
    return plan


@dataclass
class _Reader:
    """Reads one study, and collects what is wrong with it."""

    document: Document
    source: str
    path: Path
    catalog: Catalog
    problems: list[Problem] = field(default_factory=list)

    def plan(self, stamp: str) -> StudyPlan | None:
        """The plan of what is fine, which is all of it where there are no problems; None where that is no study."""
        values = self.document.values
        top = self.table(values, "", schema_of(StudySettings), TABLES)
        self.search = self.table(self.section("search"), "search", schema_of(Search)) if "search" in values else None
        report = self.table(self.section("report"), "report", schema_of(ReportSettings))
        pick, seeds = self.pick(), self.seeds(top["seeds"])
        name = self.checked_name(top["name"] or self.path.stem, "name")
        wishes = self.wishes(top)
        arms = self.arms(wishes)
        transfer, found = read_transfer(self.section("transfer"), arms, self.catalog)
        self.add(found)
        reference = self.reference(top["reference"], wishes)
        if pick is None or not seeds or not arms:
            return None
        plan = StudyPlan(
            name=name or "study",
            stamp=stamp,
            seeds=seeds,
            arms=arms,
            reference=reference or first_plain(arms),
            description=top["description"],
            pick=Pick(**pick),
            search=Search(**self.search) if self.search is not None else None,
            transfer=transfer if "transfer" in values else None,
            report={key: value for key, value in report.items() if value},
        )
        self.check_whole(plan, wishes)
        return plan

    def arms(self, wishes: Sequence[ArmRequest]) -> tuple[ArmPlan, ...]:
        """Those arms that are fine."""
        named = [wish for wish in wishes if wish.preset is not None]  # else that is a problem already
        arms = []
        for wish in named:
            arm, found = resolve(wish, self.path.parent, self.source, self.catalog)
            self.problems += found
            arms += [arm] if arm is not None else []
            if len(self.problems) > MOST_PROBLEMS:  # the rest would not be told
                break
        return tuple(arms)

    def check_whole(self, plan: StudyPlan, wishes: Sequence[ArmRequest]) -> None:
        """What concerns the cells of those arms that are fine by themselves."""
        places = {(wish.name, axis.key): place for wish in wishes for place, axis in wish.axes}
        self.problems += check_cells(plan, places, self.source)
        if plan.search is not None and not places:
            self.add([Problem("search", "no axes to search in", "[axes], or axes of an [[arm]]")])

    def add(self, problems: Iterable[Problem]) -> None:
        """Problems of the study's own keys."""
        self.problems += [dataclasses.replace(item, source=item.source or self.source) for item in problems]

    def attributed(self, problem: Problem) -> Problem:
        """A problem of the study's own, with who says what stands there: the file, or --set."""
        path = numbered(problem.path, self.document.values)
        said_by = self.document.source_of(path) if problem.source == self.source else ""
        return dataclasses.replace(problem, source=said_by or problem.source)

    def table(
        self, found: Mapping[str, Any], path: str, schema: Sequence[Any], tables: Sequence[str] = ()
    ) -> dict[str, Any]:
        """A table's values; what is neither in the schema nor one of the tables in it is a problem."""
        known = [item.name for item in schema] + list(tables)
        own = {key: value for key, value in found.items() if key not in tables}
        values, problems = check_table({key: own[key] for key in own if key in known}, schema, path)
        self.add(problems)
        for key in (key for key in own if key not in known):
            where = f"{path}.{key}" if path else key
            is_told = len(self.problems) < MOST_PROBLEMS  # of the rest nobody sees more than their number
            problem = unknown_key(where, known) if is_told else Problem(where, UNKNOWN, "")
            belongs = f"keys of the preset go under set: set.{key}" if not path and key in OF_PRESETS else problem.hint
            self.add([dataclasses.replace(problem, hint=belongs)])
        return values

    def section(self, name: str, found: Any = None, path: str = "") -> Mapping[str, Any]:
        found = self.document.values.get(name, {}) if found is None else found
        if isinstance(found, Mapping):
            return found
        self.add([Problem(path or name, show(found), f"a table: [{name}]")])
        return {}

    def seeds(self, found: Any) -> tuple[int, ...]:
        if isinstance(found, int):
            found = tuple(range(found)) if found <= MOST_CELLS else found
        if not found or isinstance(found, int) or len(set(found)) < len(found):
            if found is not None:
                self.add([Problem("seeds", show(found or 0), "different meta-seeds, or how many: a number >= 1")])
            return ()
        return tuple(found)

    def checked_name(self, name: Any, path: str) -> str:
        """A name that can be part of a run's."""
        if not isinstance(name, str):
            return ""
        if not name.strip() or len(name) > LONGEST or not name.isprintable():
            self.add([Problem(path, show(name), f"1 to {LONGEST} printable characters")])
            return ""
        return name

    def pick(self) -> dict[str, Any] | None:
        """The [pick] table. A figure measured on test data is refused: the winner would have seen the test."""
        found = self.section("pick")
        metric = found.get("metric")
        if isinstance(metric, str) and "test" in metric:
            hint = "it is measured on test data, and a winner picked by it would have seen the test"
            self.add([Problem("pick.metric", show(metric), "one of: " + ", ".join(PICKED_BY), hint)])
            return None
        return self.table(found, "pick", schema_of(Pick))

    def wishes(self, top: Mapping[str, Any]) -> list[ArmRequest]:
        """The arms as the file has them; one with the base preset where it has none."""
        lone = slug(Path(top["preset"] or "base").stem)[:LONGEST]
        found = self.document.values.get("arm", [{"name": lone}])
        if not isinstance(found, list) or not found or not all(isinstance(arm, Mapping) for arm in found):
            self.add([Problem("arm", show(found), "tables: [[arm]]")])
            return []
        if len(found) > MOST_ARMS:
            self.add([Problem("arm", f"{len(found)} arms", f"at most {MOST_ARMS} in a study")])
            return []
        common = self.axes(self.section("axes"), "axes")
        wishes = [self.wish(arm, index, top["preset"], common) for index, arm in enumerate(found)]
        slugs: set[str] = set()
        for index, wish in enumerate(wishes):
            before = len(slugs)
            slugs.add(slug(wish.name))
            if len(slugs) == before:
                self.add([Problem(f"arm.{index}.name", show(wish.name), "a name of its own")])
        return wishes

    def wish(
        self, arm: Mapping[str, Any], index: int, base: str | None, common: Sequence[tuple[str, Axis]]
    ) -> ArmRequest:
        own = self.table(arm, f"arm.{index}", schema_of(ArmSettings), KEYED)
        name = self.checked_name(own["name"], f"arm.{index}.name")
        place = f"arm.{name or index}"
        layers = [
            ("set", self.section("set")),
            (f"{place}.set", self.section("set", arm.get("set", {}), f"{place}.set")),
        ]
        axes = {axis.key: (where, axis) for where, axis in common}
        own_axes = self.axes(self.section("axes", arm.get("axes", {}), f"{place}.axes"), f"{place}.axes")
        axes |= {axis.key: (where, axis) for where, axis in own_axes}
        preset, preset_from = (base, "preset") if own["preset"] == "" else (own["preset"], f"{place}.preset")
        return ArmRequest(name, preset, preset_from, tuple(layers), tuple(axes.values()))

    def axes(self, found: Mapping[str, Any], path: str) -> list[tuple[str, Axis]]:
        axes, problems = read_axes(found, path, self.search is not None)
        self.add(problems)
        return [(f"{path}.{axis.key}", axis) for axis in axes]

    def reference(self, name: Any, wishes: Sequence[ArmRequest]) -> str:
        names = [wish.name for wish in wishes]
        if name and name not in names:
            self.add([Problem("reference", show(name), "an arm: " + ", ".join(names), did_you_mean(name, names))])
        return name or ""
