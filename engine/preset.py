"""Preset: the complete description of a run, read from TOML and checked against the catalog.

A preset may extend another, every key has a default, and `--set a.b=value` overrides. All problems are reported at once.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.resources
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli
import tomli_w

from engine import catalog as catalogs
from engine.catalog import Catalog
from engine.errors import PresetError, Problem
from engine.settings import Setting, check_table, did_you_mean, schema_of, setting, show, unknown_key

TABLES = ("task", "optimizer", "meta", "penalty", "evaluation")


@dataclass(frozen=True)
class PresetSettings:
    """The keys at the top of a preset."""

    name: str = setting("", help="what the run is called; empty: the file's name")
    description: str = setting("", help="one line on what the preset is for")
    tags: tuple[str, ...] = setting((), help="words to find the run by", allow_empty=True)
    seed: int = setting(0, minimum=0, maximum=2**53, help="meta-seed: everything random derives from it")
    threads: int = setting(0, minimum=0, maximum=4096, help="CPU threads of the run; 0: what torch chooses")


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
        """One table per task of the distribution."""
        return self.values["task"]

    def __getitem__(self, table: str) -> Any:
        return self.values[table]

    def flat(self) -> dict[str, Any]:
        """Every key by its path ("penalty.sam.rho"), for comparing presets."""
        return dict(_flatten(self.values))

    def with_values(self, **top: Any) -> Preset:
        """A copy with other keys at the top (name, seed); they are checked."""
        return from_mapping({**self.values, **top}, self.source)

    def dumps(self) -> str:
        """TOML that gives this very preset when it is loaded again."""
        return tomli_w.dumps(_plain(self.values))


def load_preset(
    name_or_path: str | os.PathLike[str], overrides: Iterable[str] = (), *, catalog: Catalog | None = None
) -> Preset:
    """Load and check a preset by file path or by the name of a shipped one.

    `overrides` are "key.path=value" texts as for `--set`. Raises PresetError with every problem.
    """
    path = find(name_or_path)
    document = _read(path, ())
    problems: list[Problem] = []
    for text in overrides:
        _override(document, text, problems)
    if problems:
        raise PresetError(problems, "--set")
    document.setdefault("name", path.stem)
    return from_mapping(document, str(name_or_path), catalog=catalog)


def shipped() -> dict[str, Path]:
    """The presets in the installed package, by name."""
    folder = Path(str(importlib.resources.files("presets")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a preset: a path that exists, else a shipped preset's name."""
    text = os.fspath(name_or_path)
    path = Path(text)
    try:
        if path.is_file():
            return path
    except (OSError, ValueError):  # too long for a path, or holds a null character
        pass
    presets = shipped()
    if text.removesuffix(".toml") in presets and os.sep not in text:
        return presets[text.removesuffix(".toml")]
    allowed = "a TOML file, or one of: " + ", ".join(presets)
    found = "a folder" if _is_folder(path) else "no such file and no shipped preset of that name"
    raise PresetError([Problem("", found, allowed, did_you_mean(text, presets))], show(text).strip('"'))


def from_mapping(document: Mapping[str, Any], source: str = "", *, catalog: Catalog | None = None) -> Preset:
    """Check a nested mapping as a preset: fill in defaults, collect every problem, raise PresetError if there is one."""
    catalog = catalog or catalogs.load()
    problems: list[Problem] = []
    top = {key: value for key, value in document.items() if key not in TABLES}
    values, found = check_table(top, schema_of(PresetSettings))
    problems += [_elsewhere(problem, catalog) for problem in found]
    values["task"] = [
        _check_task(table, path, catalog, problems) for path, table in _task_tables(document.get("task", {}), problems)
    ]
    values["optimizer"] = _check_member(
        _table(document, "optimizer", problems), "optimizer", "kind", "dm", catalog.learned_optimizers, problems
    )
    for section in ("meta", "evaluation"):
        values[section], found = check_table(_table(document, section, problems), catalog.sections[section], section)
        problems += found
    values["penalty"] = _check_penalties(_table(document, "penalty", problems), catalog, problems)
    if not problems:
        problems += _rules(values)
    if problems:
        raise PresetError(problems, source)
    return Preset(values, source)


def defaults(catalog: Catalog | None = None) -> Preset:
    return from_mapping({"name": "default"}, catalog=catalog)


def _read(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    """Parse a file and what it extends; tables merge key by key, everything else is replaced."""
    source = str(path)
    if path.resolve() in below:
        raise PresetError([Problem("extends", "a circle of presets", "a preset that does not extend this one")], source)
    try:
        document = tomli.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise PresetError([Problem("", f"{error.strerror}", "a readable file")], source) from None
    except UnicodeDecodeError:
        raise PresetError([Problem("", "bytes that are not UTF-8", "a TOML file in UTF-8")], source) from None
    except (tomli.TOMLDecodeError, RecursionError) as error:
        raise PresetError([Problem("", f"no valid TOML: {error}", "TOML")], source) from None
    if "extends" not in document:
        return document
    parent = document.pop("extends")
    if not isinstance(parent, str):
        raise PresetError(
            [Problem("extends", show(parent), "a string: a file's path or a shipped preset's name")], source
        )
    beside = path.parent / parent
    base = _read(beside if beside.is_file() else _find_parent(parent, source), (*below, path.resolve()))
    base.pop("name", None)  # a child is called after its own file unless it says otherwise
    return merge(base, document)


def _find_parent(parent: str, source: str) -> Path:
    try:
        return find(parent)
    except PresetError as error:
        raise PresetError([dataclasses.replace(error.problems[0], path="extends")], source) from None


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge of nested tables; lists and scalars of `over` replace those of `base`."""
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = (
            merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else copy.deepcopy(value)
        )
    return merged


def _override(document: dict[str, Any], text: str, problems: list[Problem]) -> None:
    """Apply one "a.b=value". The value is TOML; a bare word is a string. A task of several is "task.0.dataset"."""
    path, equals, raw = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        problems.append(Problem("", show(text), "key.path=value", "as in --set meta.epochs=5"))
        return
    try:
        value = tomli.loads(f"value = {raw}")["value"]
    except tomli.TOMLDecodeError:
        value = raw.strip()
    table: Any = document
    for position, key in enumerate(keys):
        if isinstance(table, list) and key.isdigit() and int(key) < len(table):
            table_key: Any = int(key)
        elif isinstance(table, dict):
            table_key = key
        else:
            problems.append(Problem(path, f"no table at {'.'.join(keys[:position]) or 'the top'}", "the path of a key"))
            return
        if position == len(keys) - 1:
            table[table_key] = value
        else:
            table = table.setdefault(table_key, {}) if isinstance(table, dict) else table[table_key]


def _table(document: Mapping[str, Any], key: str, problems: list[Problem]) -> Mapping[str, Any]:
    table = document.get(key, {})
    if not isinstance(table, Mapping):
        problems.append(Problem(key, show(table), f"a table: [{key}]"))
        return {}
    return table


def _task_tables(found: Any, problems: list[Problem]) -> list[tuple[str, Mapping[str, Any]]]:
    if isinstance(found, Mapping):
        return [("task", found)]
    if isinstance(found, (list, tuple)) and found and all(isinstance(item, Mapping) for item in found):
        return [("task", found[0])] if len(found) == 1 else [(f"task.{i}", item) for i, item in enumerate(found)]
    problems.append(Problem("task", show(found), "a table [task], or several [[task]]"))
    return []


def _check_task(table: Mapping[str, Any], path: str, catalog: Catalog, problems: list[Problem]) -> dict[str, Any]:
    """A task's keys are the section's own, and those of its dataset and its optimizee."""
    schema = {item.name: item for item in catalog.sections["task"]}
    for key, members in (("dataset", catalog.datasets), ("optimizee", catalog.optimizees)):
        schema[key] = dataclasses.replace(schema[key], choices=tuple(members))
        chosen = table.get(key, schema[key].default)
        for item in members.get(chosen, ()) if isinstance(chosen, str) else ():
            schema[item.name] = item
    values, found = check_table(table, schema.values(), path)
    problems += found
    return values


def _check_member(
    table: Mapping[str, Any],
    path: str,
    key: str,
    default: str,
    members: Mapping[str, tuple[Setting, ...]],
    problems: list[Problem],
) -> dict[str, Any]:
    """A table whose `key` names a member; the other keys are the member's settings."""
    kind = Setting(key, ("str",), default, "which one", choices=tuple(members))
    chosen = table.get(key, default)
    if not isinstance(chosen, str) or chosen not in members:
        found = kind.check(chosen)[1]
        assert found is not None
        problems.append(dataclasses.replace(found, path=f"{path}.{key}"))
        return {}
    values, found_here = check_table(table, (kind, *members[chosen]), path)
    problems += found_here
    return values


def _check_penalties(table: Mapping[str, Any], catalog: Catalog, problems: list[Problem]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, settings in table.items():
        path = f"penalty.{name}"
        if name not in catalog.penalties:
            problems.append(unknown_key(path, catalog.penalties))
        elif not isinstance(settings, Mapping):
            problems.append(Problem(path, show(settings), f"a table: [{path}]"))
        else:
            values[name], found = check_table(settings, catalog.penalties[name], path)
            problems += found
    return values


def _elsewhere(problem: Problem, catalog: Catalog) -> Problem:
    """A key at the top that belongs into a table: say which."""
    if problem.found != "an unknown key" or problem.hint:
        return problem
    sections: dict[str, Iterable[str]] = {
        name: [item.name for item in items] for name, items in catalog.sections.items()
    }
    sections["penalty"] = catalog.penalties
    homes = [f"{section}.{problem.path}" for section, names in sections.items() if problem.path in names]
    hint = f"did you mean {homes[0]}?" if homes else did_you_mean(problem.path, TABLES)
    allowed = f"{problem.allowed}, extends; tables: {', '.join(TABLES)}"
    return dataclasses.replace(problem, hint=hint, allowed=allowed)


def _rules(values: Mapping[str, Any]) -> list[Problem]:
    """What concerns more than one key."""
    problems = []
    meta = values["meta"]
    stages = meta["inner_steps"] if isinstance(meta["inner_steps"], tuple) else (meta["inner_steps"],)
    if any(later <= earlier for earlier, later in zip(stages, stages[1:], strict=False)):
        problems.append(Problem("meta.inner_steps", show(stages), "a growing list: the curriculum's stages"))
    if meta["truncation"] > min(stages):
        allowed = f"at most {min(stages)}, the shortest of meta.inner_steps"
        problems.append(Problem("meta.truncation", show(meta["truncation"]), allowed))
    if any(not character.isprintable() for character in values["name"]) or len(values["name"]) > 80:
        problems.append(Problem("name", show(values["name"]), "at most 80 printable characters"))
    for index, task in enumerate(values["task"]):
        path = "task" if len(values["task"]) == 1 else f"task.{index}"
        if task["classes"] and (len(set(task["classes"])) < max(2, len(task["classes"]))):
            problems.append(Problem(f"{path}.classes", show(task["classes"]), "two or more different classes"))
    return problems


def _flatten(values: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    tables = values.items() if isinstance(values, Mapping) else enumerate(values)
    for key, value in tables:
        here = f"{path}.{key}" if path else str(key)
        is_tasks = path == "" and key == "task"
        if isinstance(value, Mapping) or is_tasks:
            yield from _flatten(value[0] if is_tasks and len(value) == 1 else value, here)
        else:
            yield here, value


def _plain(values: Any) -> Any:
    """Tuples as lists, and a lone task as a plain [task] table, as people write them."""
    if isinstance(values, Mapping):
        return {
            key: _plain(value[0] if key == "task" and isinstance(value, list) and len(value) == 1 else value)
            for key, value in values.items()
        }
    return [_plain(item) for item in values] if isinstance(values, (list, tuple)) else values


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
