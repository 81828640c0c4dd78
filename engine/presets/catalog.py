"""Catalog: every setting of every section and member, as plain data.

Settings are declared beside the mathematics, in files that import torch, which takes seconds. The catalog lists them
once in a child process and answers from a cache afterwards, so that checking a preset, shell completion and the console
never wait for torch. The cache is keyed by the engine's files, and holds what these alone bring: it cannot be stale.
A process that has torch lists them itself, with the members that it has registered itself, and caches nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from engine.base import plugins, registry
from engine.base.errors import LregError, printable
from engine.base.files import read_limited, write_atomic
from engine.base.settings import Setting
from engine.presets.former import todays

Schema = tuple[Setting, ...]
REFUSAL = "error: "  # begins what the child says of a plug-in that cannot be loaded
PICKS = {"kind": "the learned optimizer", "estimator": "how the meta-gradient is estimated"}  # keys of no schema
KEPT = 8  # cached catalogs: several installations share the folder


def members_picked(value: Any) -> list[Any]:
    """The members that a key's value picks: one, or several to draw from."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def task_label(table: Mapping[str, Any]) -> str:
    """What a [task] table picks: "mnist/mlp", or where it draws "digits|mnist/mlp"; it may be unchecked."""
    picks = (members_picked(table.get(key, "?")) for key in ("dataset", "optimizee"))
    return "/".join("|".join(map(str, members)) for members in picks)


USUAL_ESTIMATOR = "tbptt"
NAMED_TABLES = {"penalty": "penalty", "objective.terms": "term"}
"""Tables in which members stand in tables of their names, [penalty.sam], and what such a member is called."""


def named_members(values: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The penalties and terms of a preset, which may be unchecked and in a former form, by path: "penalty.sam",
    "objective.terms.sharpness"."""
    members: dict[str, Mapping[str, Any]] = {}
    todays_values = todays(values)
    for section in NAMED_TABLES:
        tables: Any = todays_values
        for key in section.split("."):
            tables = tables.get(key) if isinstance(tables, Mapping) else None
        for name, table in tables.items() if isinstance(tables, Mapping) else ():
            if isinstance(table, Mapping):
                members[f"{section}.{name}"] = table
    return members


def member_name(path: str) -> str:
    """What stands behind the table in a path: "sam" of "penalty.sam"."""
    return path.removeprefix(f"{named_table(path)}.")


def named_table(path: str) -> str:
    """The table in which a member of this path, or of this setting's path, stands; "" for the path of no member."""
    return next((table for table in NAMED_TABLES if path.startswith(f"{table}.")), "")


def weighing(values: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Those penalties and terms of a preset that weigh something, by path."""
    return {path: table for path, table in named_members(values).items() if table.get("weight") != 0}


def is_of_member(key: str) -> bool:
    """Whether a key path is that of a penalty's or term's setting: "penalty.sam.rho"."""
    return bool(table := named_table(key)) and key.count(".") > table.count(".") + 1


def estimator_label(meta: Mapping[str, Any]) -> str:
    """The estimator that a [meta] table picks; it may be unchecked."""
    return "second_order" if meta.get("second_order") is True else str(meta.get("estimator", USUAL_ESTIMATOR))


def trainings(meta: Mapping[str, Any]) -> int:
    """How many times an estimator trains every optimizee, by a [meta] table: es and pes twice for each pair."""
    return 2 * int(meta["pairs"]) if "pairs" in meta else 1


@dataclass(frozen=True)
class Catalog:
    """Schemas by section ("task", "meta", "objective", "evaluation") and by member of each family."""

    sections: dict[str, Schema]
    datasets: dict[str, Schema]
    optimizees: dict[str, Schema]
    learned_optimizers: dict[str, Schema]
    penalties: dict[str, Schema]
    estimators: dict[str, Schema]
    terms: dict[str, Schema]
    unused: dict[str, Schema]  # by dataset, those of [task] that say nothing there

    def selectors(self, table: str) -> list[tuple[str, str, dict[str, Schema]]]:
        """The keys of a table that pick a member: key, default, and the members' schemas."""
        if table == "optimizer":
            return [("kind", "dm", self.learned_optimizers)]
        if table == "meta":
            return [("estimator", USUAL_ESTIMATOR, self.estimators)]
        if table != "task":
            return []
        usual = {item.name: item.default for item in self.sections["task"]}
        families = {"dataset": self.datasets, "optimizee": self.optimizees}
        return [(key, usual[key], members) for key, members in families.items()]

    def named_tables(self) -> dict[str, dict[str, Schema]]:
        """The members that stand in tables of their names (`NAMED_TABLES`), by the table that these are in."""
        return {"penalty": self.penalties, "objective.terms": self.terms}

    def tables(self) -> Iterator[tuple[str, Schema]]:
        """Every table by its path, with settings that may stand in it: its own, those of a member that it may pick."""
        for section in (*self.sections, "optimizer"):
            picks = [schema for _, _, members in self.selectors(section) for schema in members.values()]
            yield from ((section, schema) for schema in (self.sections.get(section, ()), *picks))
        for section, members in self.named_tables().items():
            yield from ((f"{section}.{name}", schema) for name, schema in members.items())

    def schema_of(self, section: str, table: Mapping[str, Any]) -> Schema:
        """A table's own settings and those of the members that it picks, which may be several to draw from."""
        schema = {item.name: item for item in self.sections.get(section, ())}
        for key, default, members in self.selectors(section):
            pick = schema.get(key) or Setting(key, ("str",), default, PICKS[key])
            schema[key] = dataclasses.replace(pick, choices=tuple(members))
            for kind in members_picked(table.get(key, default)):
                schema |= {item.name: item for item in members.get(kind if isinstance(kind, str) else "", ())}
        return tuple(schema.values())

    def to_json(self) -> dict[str, Any]:
        return {
            family: {name: [item.to_json() for item in schema] for name, schema in schemas.items()}
            for family, schemas in vars(self).items()
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Catalog:
        return cls(
            **{
                family: {name: tuple(Setting.from_json(item) for item in schema) for name, schema in schemas.items()}
                for family, schemas in values.items()
            }
        )


def build() -> Catalog:
    """List every setting by importing the engine; takes seconds when torch is not loaded yet."""
    from engine.base.settings import schema_of
    from engine.optimizers.learned.base import LEARNED_OPTIMIZERS
    from engine.penalties.base import PENALTIES
    from engine.presets.tables import ESTIMATORS, EvaluationSettings, MetaSettings, ObjectiveSettings
    from engine.tasks.datasets.base import DATASETS
    from engine.tasks.optimizees.base import OPTIMIZEES
    from engine.tasks.table import TaskSettings
    from engine.terms.base import TERMS

    sections = {
        "task": TaskSettings,
        "meta": MetaSettings,
        "objective": ObjectiveSettings,
        "evaluation": EvaluationSettings,
    }
    return Catalog(
        sections={name: schema_of(cls) for name, cls in sections.items()},
        datasets=DATASETS.schemas(),
        optimizees=OPTIMIZEES.schemas(),
        learned_optimizers=LEARNED_OPTIMIZERS.schemas(),
        penalties=PENALTIES.schemas(),
        estimators=ESTIMATORS.schemas(),
        terms=TERMS.schemas(),
        unused={
            name: tuple(item for item in schema_of(TaskSettings) if item.name in DATASETS[name].unused_settings)
            for name in DATASETS.names()
        },
    )


def load() -> Catalog:
    """The catalog, the cheapest way: listed here if torch is loaded, else cached on disk, else by a child process.

    What plug-ins bring is never cached on disk. Raises LregError where one cannot be loaded.
    """
    if "torch" in sys.modules:
        plugins.load()
        return _listed(registry.registered())
    used = tuple((plugin.name, plugin.sha256()) for plugin in plugins.in_use())
    return _with_plugins(used) if used else _installed()


def added() -> dict[str, list[str]]:
    """The members that plug-ins bring, by their family."""
    if not plugins.in_use():
        return {}
    ours, all_of_them = vars(_installed()), vars(load())
    added = {family: sorted(set(all_of_them[family]) - set(ours[family])) for family in ours if family != "unused"}
    return {family: names for family, names in added.items() if names}


@lru_cache(maxsize=1)
def _with_plugins(used: tuple[tuple[str, str], ...]) -> Catalog:
    """What the engine and the plug-ins of these names and hashes bring."""
    return _ask_child(with_plugins=True)


@lru_cache(maxsize=1)
def _listed(registered: int) -> Catalog:
    """What this process knows, after so many registrations."""
    return build()


@cache
def _installed() -> Catalog:
    """What the engine's own files bring, and nothing that a process has added or changed."""
    fingerprint = _fingerprint()
    path = user_cache_path("lreg") / f"catalog-{fingerprint}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Catalog.from_json(json.loads(read_limited(path)))  # absent, or damaged: built again below
    catalog = _ask_child()
    if _fingerprint() != fingerprint:  # the files were changed meanwhile, so nobody knows which of them it saw
        return catalog
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(catalog.to_json()), durable=False)
        for stale in sorted(path.parent.glob("catalog-*.json"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
            stale.unlink()
    return catalog


def _ask_child(with_plugins: bool = False) -> Catalog:
    """Build it in a process that may import torch, and looks for modules in the very folders that this one does."""
    root = str(Path(__file__).parents[2])
    code = "import sys; sys.path[:] = sys.argv[1:]; import engine; del sys.path[0]; "  # this very one
    code += f"from engine.presets import catalog; catalog.main({with_plugins})"
    child = subprocess.run(
        [sys.executable, "-c", code, root, *(sys.path if root in sys.path else [root, *sys.path])],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
    )
    if child.returncode == LregError.exit_code and child.stderr.startswith(REFUSAL):
        raise LregError(child.stderr.removeprefix(REFUSAL).strip())
    reason = child.stderr.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
    try:
        if child.returncode == 0:
            return Catalog.from_json(json.loads(child.stdout.splitlines()[-1]))
    except (ValueError, IndexError):
        reason = ["it printed something else than its settings"]
    raise LregError(f"the engine cannot be loaded: {printable(reason[0])} (python -m engine.presets.catalog says more)")


def _fingerprint() -> str:
    """Changes whenever a file of the engine or Python does. By content: times may be those of a reproducible build."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256(f"{folder}\n{sys.version}".encode(errors="surrogateescape"))
    for path in sorted(folder.rglob("*.py")):
        with contextlib.suppress(OSError):  # an editor's lock, or just deleted
            content = path.read_bytes()
            digest.update(f"\n{path.relative_to(folder)} {len(content)}\n".encode(errors="surrogateescape") + content)
    return digest.hexdigest()[:16]


def main(with_plugins: bool = True) -> None:
    if not with_plugins:
        plugins.switch_off()
    try:
        text = json.dumps(build().to_json())
    except LregError as error:
        print(f"{REFUSAL}{error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(text)


if __name__ == "__main__":
    main()
