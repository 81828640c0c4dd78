"""Document: what a preset's files and `--set` say together, before anybody checks it.

It remembers which of them says what, so that a problem can be reported where it stands.
"""

from __future__ import annotations

import copy
import dataclasses
import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli

from engine.base.errors import PresetError, Problem
from engine.base.files import read_limited
from engine.base.settings import Typed, did_you_mean, show
from engine.presets.catalog import Catalog, members_picked
from engine.presets.former import todays, todays_pairs
from engine.presets.tables import ON_FRESH_BATCHES

FOLDER = Path(__file__).parents[2] / "presets"  # beside this very engine, whatever else is called presets
LARGEST_FILE = 1 << 20  # bytes; whoever names a checkpoint by mistake should not wait for its end
LONGEST_CHAIN = 20  # of presets that extend each other


@dataclass
class Document:
    """Merged tables, and the layers that they come from: the source and tables of each, the last word first.

    All of them in today's form (`engine.presets.former`).
    """

    values: dict[str, Any]
    layers: list[tuple[str, Mapping[str, Any]]]

    def source_of(self, path: str) -> str:
        """Who says what stands at a key path; "" for what nobody says."""
        return next((source for source, tables in self.layers if _at(tables, path) is not None), "")


def shipped() -> dict[str, Path]:
    """The presets in the installed package, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def find(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a preset: a path that exists, else a shipped preset's name."""
    text = os.fspath(name_or_path)
    try:
        return _file_or_shipped(Path(text), text, "a TOML file")
    except PresetError as error:
        raise PresetError(error.problems, show(text)[1:-1] or '""') from None


def _file_or_shipped(path: Path, name: str, allowed: str, found: str = "") -> Path:
    """A path that is a file's, else the shipped preset of a name. `found`: what to say before what is there instead."""
    presets = shipped()
    if is_file(path):
        return path
    if name.removesuffix(".toml") in presets:
        return presets[name.removesuffix(".toml")]
    allowed += ", or one of: " + ", ".join(presets)
    problem = Problem("", found + instead_of_file(path, "preset"), allowed, did_you_mean(Path(name).stem, presets))
    raise PresetError([problem])


def read(path: Path, source: str, catalog: Catalog, below: tuple[Path, ...] = ()) -> Document:
    """Parse a file and what it extends; tables merge key by key, everything else is replaced."""
    return layered(parse(path, source), path, source, catalog, below)


def layered(
    values: dict[str, Any], path: Path, source: str, catalog: Catalog, below: tuple[Path, ...] = ()
) -> Document:
    """The tables of a file at `path`, which need not be there, with what they extend."""
    if "extends" not in values:
        values = todays(values)
        return Document(values, [(source, values)])
    try:
        parent = parent_of(values.pop("extends"), path, below)
    except PresetError as error:
        raise PresetError([dataclasses.replace(error.problems[0], path="extends", source="")], source) from None
    base = read(parent, str(parent), catalog, (*below, path.resolve()))
    base.values.pop("name", None)  # a child is called after its own file unless it says otherwise
    values = todays(values, base.values)
    merged = merge(base.values, values)
    _leave_behind(base.values, merged, values, catalog)
    return Document(merged, [(source, values), *base.layers])


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge of nested tables; lists and scalars of `over` replace those of `base`."""
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = (
            merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else copy.deepcopy(value)
        )
    return merged


def override(document: Document, texts: Iterable[str], catalog: Catalog) -> list[Problem]:
    """Apply "a.b=value" texts, in place: a TOML value, or a bare word as a string. Of several tasks: "task.0.dataset".

    Returns what is wrong with them.
    """
    pairs: list[tuple[str, Any]] = []
    problems = []
    for text in texts:
        path, equals, raw = text.partition("=")
        keys, value = [key.strip() for key in path.split(".")], None
        if not equals or not all(keys):
            problem: Problem | None = Problem("", show(text), "key.path=value", "as in --set meta.epochs=5")
        elif keys == ["extends"]:
            problem = Problem(
                "extends", "an override", "extends in a file", "lreg preset new NAME --from PRESET makes one"
            )
        else:
            value, problem = _value(path.strip(), raw)
        if problem is None:
            pairs.append((".".join(keys), value))
        else:
            problems.append(dataclasses.replace(problem, source="--set"))
    return problems + put(document, pairs, "--set", catalog)


def put(document: Document, pairs: Iterable[tuple[str, Any]], source: str, catalog: Catalog) -> list[Problem]:
    """Set values at key paths, in place, as a layer of that source over the others. Returns what is wrong with them.

    A lone task is the first one: "task.0.dataset" is its "task.dataset".
    """
    before = copy.deepcopy(document.values)
    layer: dict[str, Any] = {}
    problems = []
    for path, value in todays_pairs(pairs, before):
        keys = path.split(".")
        if keys[:2] == ["task", "0"] and not isinstance(document.values.get("task"), list):
            del keys[1]
        problem = _assign(document.values, keys, copy.deepcopy(value))
        if problem is None:
            _assign(layer, keys, copy.deepcopy(value))
        else:
            problems.append(dataclasses.replace(problem, source=source))
    _leave_behind(before, document.values, layer, catalog)
    document.layers.insert(0, (source, layer))
    return problems


def tables(text: str) -> dict[str, Any]:
    """Of a TOML text, numbers as they are typed. Raises TOMLDecodeError or RecursionError."""
    values = tomli.loads(text, parse_float=Typed)
    match values.get("task"):
        case [dict(lone)]:
            values["task"] = lone
    return values


def parse(path: Path, source: str) -> dict[str, Any]:
    """The tables of a TOML file. Raises PresetError where it is none that can be read."""
    try:
        content = read_limited(path, LARGEST_FILE)
        # some editors begin a file with a byte order mark
        return tables(content.decode("utf-8-sig"))
    except OSError as error:
        is_large = error.errno == errno.EFBIG
        found, allowed = ("more than a megabyte", "a preset or study, in TOML") if is_large else ("", "a readable file")
        problem = Problem("", found or error.strerror or str(error), allowed)
    except UnicodeDecodeError:
        problem = Problem("", "bytes that are not UTF-8", "a TOML file in UTF-8")
    except (tomli.TOMLDecodeError, RecursionError) as error:
        problem = Problem("", f"no valid TOML: {error}", "TOML")
    except ValueError:  # Python refuses to read it
        problem = Problem("", "no valid TOML: a number of thousands of digits", "TOML")
    raise PresetError([problem], source)


def parent_of(extends: Any, path: Path, below: tuple[Path, ...] = ()) -> Path:
    """The file that `extends` names: one beside this one, else a shipped preset. Raises PresetError for none."""
    if not isinstance(extends, str):
        raise PresetError([Problem("", show(extends), "a string: a file's path or a shipped preset's name")])
    parent = _file_or_shipped(path.parent / extends, extends, "a TOML file beside this one", f"{show(extends)}, ")
    name = extends.removesuffix(".toml")
    if parent.resolve() in (*below, path.resolve()):
        hint = f'extends = "{name}" is the shipped one' if name in shipped() and extends != name else ""
        raise PresetError([Problem("", "a circle of presets", "a preset that does not extend this one", hint)])
    if len(below) >= LONGEST_CHAIN:
        raise PresetError([Problem("", "too long a chain of presets", f"at most {LONGEST_CHAIN} of them")])
    if sum(map(_size, (parent, path, *below))) > LARGEST_FILE:
        raise PresetError(
            [Problem("", "a chain of presets of more than a megabyte", "at most a megabyte in all of them")]
        )
    return parent


def _size(path: Path) -> int:
    """Bytes of a file; of one that has gone none: who reads it will tell."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _leave_behind(before: Mapping[str, Any], after: dict[str, Any], layer: Mapping[str, Any], catalog: Catalog) -> None:
    """A table of `after` that now picks another member does not inherit the settings that only the old member has.

    So `--set optimizer.kind=simple` works on a preset that gives the number of LSTM layers. What `layer` gives stays.
    """
    tasks = after.get("task")
    tables = [f"task.{index}" for index in range(len(tasks))] if isinstance(tasks, list) else ["task"]
    for path in ["optimizer", "meta", *tables]:
        old, new, added = _at(before, path), _at(after, path), _at(layer, path)
        if not all(isinstance(table, Mapping) for table in (old, new, added)):
            continue
        for selector, default, members in catalog.selectors(path.split(".")[0]):
            was, now = old.get(selector, default), new.get(selector, default)
            before_kinds, now_kinds = members_picked(was), members_picked(now)
            if was != now and all(isinstance(kind, str) and kind in members for kind in before_kinds + now_kinds):
                names = [{item.name for kind in kinds for item in members[kind]} for kinds in (before_kinds, now_kinds)]
                gone = names[0] - names[1]
                for key in gone - set(added):
                    new.pop(key, None)
    objective, added = _at(after, "objective"), _at(layer, "objective")
    if isinstance(objective, dict) and isinstance(added, Mapping) and "loss" in added and "batches" not in added:
        if added["loss"] not in ON_FRESH_BATCHES:  # where they mean nothing; beside "last" they would be a former form
            objective.pop("batches", None)


def _value(path: str, raw: str) -> tuple[Any, Problem | None]:
    """The value of an override: TOML, or a string where it is none."""
    try:
        parsed = tomli.loads(f"value = {raw}", parse_float=Typed)
        if list(parsed) != ["value"]:
            raise ValueError("more than a value")
        return parsed["value"], None
    except (ValueError, RecursionError) as error:
        if raw.strip()[:1] in ("[", "{", '"', "'"):
            reason = str(error).split(" (at ")[0]  # the place would be one in a line that nobody wrote
            return None, Problem(path, show(raw.strip()), "a TOML value", reason[:1].lower() + reason[1:])
    return raw.strip(), None


def _assign(tables: dict[str, Any], keys: list[str], value: Any) -> Problem | None:
    """Put a value at a key path, making tables on the way."""
    node: Any = tables
    for position, key in enumerate(keys):
        slot = _slot(node, key)
        if slot is None:
            parent_path, path = ".".join(keys[:position]), ".".join(keys)
            if isinstance(node, list) and node:
                return Problem(path, f"no {parent_path}.{key}", f"{parent_path}.0 to {parent_path}.{len(node) - 1}")
            return Problem(path, f"no table at {parent_path}, but {show(node)}", "the path of a key")
        node, index = slot
        if position == len(keys) - 1:
            node[index] = value
        else:
            node = node.setdefault(index, {}) if isinstance(node, dict) else node[index]
    return None


def _slot(node: Any, key: str) -> tuple[Any, Any] | None:
    """Where `key` stands in a table or list: the container and the place in it."""
    if isinstance(node, list):
        if key.isdecimal() and len(key) < 6 and int(key) < len(node):
            return node, int(key)
        return None
    return (node, key) if isinstance(node, dict) else None


def _at(tables: Any, path: str) -> Any:
    """What stands at a key path, or None."""
    for key in path.split("."):
        slot = _slot(tables, key)
        if slot is None:
            return None
        node, index = slot
        tables = node.get(index) if isinstance(node, dict) else node[index]
    return tables


def is_file(path: Path) -> bool:
    """True for an ordinary file, whatever the path may be."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a path, or holds a null character
        return False


def instead_of_file(path: Path, kind: str) -> str:
    """What is there in place of the file of a preset or a study."""
    try:
        if path.is_dir():
            return "a folder"
        if path.exists():
            return "no ordinary file"
    except (OSError, ValueError):
        pass
    return f"no such file and no shipped {kind} of that name"
