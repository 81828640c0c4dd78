"""Preset: the complete description of a run, read from TOML and checked against the catalog.

A preset may extend another, every key has a default, `--set a.b=value` overrides, and all problems come at once.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.base import toml_text
from engine.base.arguments import named, texts
from engine.base.arguments import path as path_text
from engine.base.draws import HELD_OUT_DRAWS, draw, held_out_seed, is_drawn
from engine.base.errors import PresetError, Problem
from engine.presets import catalog as catalogs
from engine.presets import document as documents
from engine.presets.catalog import Catalog
from engine.presets.checking import TABLES, PresetSettings, check
from engine.presets.document import find, merge, shipped
from engine.presets.former import todays
from engine.presets.repeats import flatten

__all__ = [
    "TABLES",
    "Preset",
    "PresetSettings",
    "defaults",
    "find",
    "from_mapping",
    "load_preset",
    "merge",
    "shipped",
]

LATER: dict[str, dict[str, Any]] = {
    "optimizer": {"features": (), "step_scale": "none", "base_width": 32, "sparse_rows": True},
    "meta": {
        "random_scaling_of": "coordinate",
        "estimator": "tbptt",
        "staggered": 1,
        "average": 0.0,
        "learn_start": False,
    },
    "objective": {"loss": "mean", "log": False, "terms": {}},
    "evaluation": {"adaptive_radius": 0.5},
}
"""Settings that came after runs were first named by what decides them, by table: at these defaults they decide nothing,
so that a study of before goes on with the runs that it has."""
LATER_OF_TASKS: dict[str, Any] = {"micro_batch": 0, "flip": False, "crop": 0}
"""The same of [task]."""
LATER_OF_OPTIMIZEES = ("activation", "depth")
"""The same of [task], where each optimizee has its own defaults."""


@dataclass(frozen=True)
class Preset:
    """A checked preset. `values` holds every key with its value, nested as in TOML; `source` is for messages."""

    values: dict[str, Any]
    source: str = ""

    @property
    def name(self) -> str:
        return self.values["name"]

    @property
    def seed(self) -> int:
        return self.values["seed"]

    @property
    def tasks(self) -> list[dict[str, Any]]:
        """One table per task of the distribution; a table may draw from ranges and choices."""
        return self.values["task"]

    def fixed_tasks(self) -> list[dict[str, Any]]:
        """The tasks, fixed, each once: a table that draws stands for its first held-out draws, whatever the seed."""
        fixed: list[dict[str, Any]] = []
        for table in self.tasks:
            draws = [table]
            if is_drawn(table):
                families = {key: members for key, _, members in catalogs.load().selectors("task")}
                drawn = [draw(table, held_out_seed(number), families) for number in range(HELD_OUT_DRAWS)]
                draws = [from_mapping({"task": values}).tasks[0] for values in drawn]
            fixed += draws
        return [values for index, values in enumerate(fixed) if values not in fixed[:index]]

    def __getitem__(self, table: str) -> Any:
        return self.values[table]

    def flat(self) -> dict[str, Any]:
        """Every key by its path ("penalty.sam.rho"), for comparing presets."""
        return dict(flatten(self.values))

    def with_values(self, **top: Any) -> Preset:
        """A copy with other keys at the top (name, seed); they are checked."""
        return from_mapping({**self.values, **top}, self.source)

    def decisive(self, without: Iterable[str] = ()) -> dict[str, Any]:
        """The values that decide what a run gives, but for some keys at the top: see `LATER`."""
        values = {key: value for key, value in self.values.items() if key not in set(without)}
        for table, later in LATER.items():
            values[table] = {k: v for k, v in values[table].items() if k not in later or v != later[k]}
        values["penalty"] = {
            name: {k: v for k, v in penalty.items() if (k, v) != ("every_step", False)}
            for name, penalty in values["penalty"].items()
        }
        if not values["objective"]:
            del values["objective"]
        values["task"] = [_decisive_of_task(task) for task in values["task"]]
        return values

    def dumps(self) -> str:
        """TOML that gives this very preset when it is loaded again."""
        return toml_text.dumps(_plain(self.values))


def _decisive_of_task(task: Mapping[str, Any]) -> dict[str, Any]:
    members = catalogs.load().optimizees
    picked = [members[name] for name in catalogs.members_picked(task["optimizee"]) if name in members]
    usual = [(item.name, item.default) for schema in picked for item in schema if item.name in LATER_OF_OPTIMIZEES]
    usual += LATER_OF_TASKS.items()
    return {key: value for key, value in task.items() if (key, value) not in usual}


@named
def load_preset(
    name_or_path: str | os.PathLike[str], overrides: Iterable[str] = (), *, catalog: Catalog | None = None
) -> Preset:
    """Load and check a preset by file path or by the name of a shipped one.

    `overrides` are "key.path=value" texts as for `--set`. Raises PresetError with every problem, ArgumentError for
    arguments of another type.
    """
    source = path_text("name_or_path", name_or_path)
    path, overrides = find(source), texts("overrides", overrides)
    catalog = catalog or catalogs.load()
    try:
        document = documents.read(path, source, catalog)
        problems = documents.override(document, overrides, catalog)
        if document.values.get("name", "") == "":
            document.values["name"] = path.stem
        values, value_problems = check(document.values, catalog)
    except RecursionError:
        raise PresetError([Problem("", "tables nested too deeply", "two or three levels")], source) from None
    problems += [dataclasses.replace(problem, source=document.source_of(problem.path)) for problem in value_problems]
    if problems:
        raise PresetError(problems, source)
    return Preset(values, source)


def from_mapping(document: Mapping[str, Any], source: str = "", *, catalog: Catalog | None = None) -> Preset:
    """Check a nested mapping as a preset and fill in the defaults. Raises PresetError with every problem."""
    values, problems = check(todays(document), catalog or catalogs.load())
    if problems:
        raise PresetError(problems, source)
    return Preset(values, source)


def defaults(catalog: Catalog | None = None) -> Preset:
    return from_mapping({"name": "default"}, catalog=catalog)


def _plain(values: Any) -> Any:
    """Tuples as lists, and a lone task as a plain [task] table, as people write them."""
    if isinstance(values, Mapping):
        return {
            key: _plain(value[0] if key == "task" and isinstance(value, list) and len(value) == 1 else value)
            for key, value in values.items()
        }
    return [_plain(item) for item in values] if isinstance(values, (list, tuple)) else values
