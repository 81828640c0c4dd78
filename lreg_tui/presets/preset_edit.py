"""A preset while it is edited: where it comes from and goes to; its text, what that says, and what is wrong with it.

The checks of a text are pure functions, those of `lreg preset check`. Nothing here knows the screen.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import tomli

from engine.base.draws import drawable
from engine.base.errors import LregError, PresetError, Problem, printable
from engine.base.files import read_limited, write_atomic
from engine.base.settings import Setting, schema_of, show
from engine.presets import document as documents
from engine.presets.catalog import Catalog, named_table
from engine.presets.document import Document, shipped
from engine.presets.former import LOSS, TERMS, todays
from engine.presets.preset import Preset, PresetSettings, from_mapping
from engine.presets.tables import ON_FRESH_BATCHES
from engine.runs.writer import slug
from lreg_tui.presets.toml_edit import EditError, at, first_right, number, parse, remove, set_value, toml_of
from lreg_tui.text import present
from lreg_tui.text.present import LARGEST, LONGEST_LINE

ABSENT = object()  # in place of a value that one of two presets does not have


@dataclass(frozen=True)
class Draft:
    """A preset that is taken up for editing.

    `path` decides its name and what `extends` finds, `file` is where it is saved (None: nowhere of its own yet).
    """

    text: str
    path: Path
    file: Path | None
    taken_from: str  # for people: "lo-sam (shipped)"

    @property
    def title(self) -> str:
        """What it is called as long as it does not say so itself."""
        return self.path.parent.name if is_of_run(self.path) else self.path.stem


def take_up(reference: str) -> Draft:
    """Open a shipped preset by name, or a file. Raises PresetError where it cannot be read as text."""
    path = documents.find(reference)

    def refusal(found: str, allowed: str) -> PresetError:
        return PresetError([Problem("", found, allowed)], label_of(path))

    try:
        text = read_limited(path, documents.LARGEST_FILE).decode("utf-8-sig")
    except OSError as error:
        raise refusal(error.strerror or str(error), "a readable file") from None
    except UnicodeDecodeError:
        raise refusal("bytes that are not UTF-8", "a TOML file in UTF-8") from None
    if len(text) > LARGEST or max(map(len, text.splitlines()), default=0) > LONGEST_LINE:
        raise refusal("a larger file", f"a preset of at most {LARGEST} characters, in lines of at most {LONGEST_LINE}")
    kind = "shipped" if is_shipped(path) else "run" if is_of_run(path) else ""
    name = path.parent.name if kind == "run" else label_of(path)
    return Draft(text, path, None if kind else path, f"{name} ({kind})" if kind else name)


def is_shipped(path: Path) -> bool:
    return path.resolve() in _shipped_paths()


@cache
def _shipped_paths() -> frozenset[Path]:
    return frozenset(path.resolve() for path in shipped().values())


def is_of_run(path: Path) -> bool:
    """True for the preset of a run folder, which its process writes and nobody else."""
    is_beside_run = any(os.path.exists(path.parent / name) for name in ("run.json", "status.json"))
    return path.name == "preset.toml" and is_beside_run


def label_of(path: Path) -> str:
    """A preset as people call it: a shipped one by its name, a file by its own."""
    return path.stem if is_shipped(path) else path.name


def changed_settings(before: Preset | None, after: Preset | None) -> list[tuple[str, Any, Any]]:
    """Keys whose values differ between two presets, with both; ABSENT where one does not have the key."""
    if before is None or after is None:
        return []
    old, new = before.flat(), after.flat()
    keys = [key for key in dict.fromkeys([*new, *old]) if key != "description"]
    pairs = [(key, old.get(key, ABSENT), new.get(key, ABSENT)) for key in keys]
    return [pair for pair in pairs if pair[1] != pair[2]]


def unified(before: str, after: str, names: tuple[str, str]) -> list[str]:
    """The lines of a unified difference; none for equal texts."""
    return list(difflib.unified_diff(before.splitlines(), after.splitlines(), *names, lineterm=""))


def moved(text: str, old: Path, new: Path) -> str:
    """The text as it must be at another place, so that a relative `extends` still means the same preset."""

    def parent(place: Path) -> Path | None:
        try:
            return documents.parent_of(parse(text).get("extends"), place).absolute()
        except LregError:
            return None

    before, after = parent(old), parent(new)
    if before is None or (after is not None and after.resolve() == before.resolve()):
        return text
    extends = before.stem if is_shipped(before) else os.path.relpath(before, new.parent)
    return set_value(text, "extends", toml_of(extends))


def target(name: str) -> Path:
    """The file that somebody means by a name; the ending may be left out."""
    path = Path(os.path.expanduser(name.strip()))
    return path if path.suffix or not path.name else path.with_name(f"{path.name}.toml")


def refusal(path: Path) -> str:
    """Why nothing may be saved at a path; empty if it may."""
    if not path.name.strip(". ") or not path.name.isprintable():
        return "not a file's name"
    if os.path.isdir(path):  # which is never an error: names may be too long, or in folders that are closed to us
        return "a folder"
    if is_shipped(path):
        return "a shipped preset: save under another name"
    if is_of_run(path):
        return "a run's own preset: save under another name"
    return "" if os.path.isdir(path.parent) else "no such folder"


def save(text: str, path: Path) -> None:
    """Replace or make a preset's file, whole. Raises LregError where it cannot be written, or must not be."""
    reason = refusal(path)
    if reason:
        raise LregError(f"{printable(str(path))}: {reason}")
    try:
        write_atomic(path, text)
    except OSError as error:
        raise LregError(f"{printable(str(path))}: cannot be written: {error.strerror or error}") from None


def on_disk(path: Path | None) -> str | None:
    """What a preset's file holds now; None if it cannot be read."""
    try:
        return None if path is None else read_limited(path, documents.LARGEST_FILE).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None


def free_name(draft: Draft, text: str, folder: Path) -> str:
    """A file name in a folder that nobody uses, nor a shipped preset: lo-sam-2.toml."""
    stem = draft.path.stem
    if is_of_run(draft.path):
        try:
            stem = slug(str(parse(text).get("name", "")))
        except EditError:
            pass
    names = (f"{stem}-{number}.toml" if number > 1 else f"{stem}.toml" for number in itertools.count(1))
    return next(name for name in names if name[:-5] not in shipped() and not (folder / name).exists())


HERE = "here"  # who says what stands in the text itself


@dataclass(frozen=True)
class Checked:
    """What a text says: merged tables as far as they can be read, who says what, and every problem."""

    text: str
    path: Path
    document: Document
    problems: tuple[Problem, ...] = ()
    preset: Preset | None = None
    parses: bool = True

    def value(self, path: str) -> Any:
        """What the merged tables say at a key path; None where they say nothing."""
        return at(self.document.values, [int(key) if key.isdecimal() else key for key in path.split(".")])

    def origin(self, path: str) -> str:
        """HERE, the preset that it is inherited from, or "" for a default."""
        if self.value(path) is None:
            return ""
        source = self.document.source_of(path)
        return source if source in ("", HERE) else label_of(Path(source))


@dataclass(frozen=True)
class FormRow:
    """One setting as the form shows it. `value` is as found, so it may be of any type."""

    path: str
    setting: Setting
    value: Any
    origin: str
    problem: Problem | None = None


@dataclass(frozen=True)
class FormTable:
    """One table of the form. `path` is empty for the keys at the top."""

    path: str
    rows: tuple[FormRow, ...]
    origin: str = ""
    problems: tuple[Problem, ...] = ()

    @property
    def is_member(self) -> bool:
        """Whether it is a penalty's or a term's, which may be added and taken away."""
        return bool(named_table(self.path))


def check(text: str, path: Path, catalog: Catalog) -> Checked:
    """Check a text as `lreg preset check` would, if it were the file at `path`."""
    tables: dict[str, Any] = {}
    try:
        tables = parse(text)
        document = documents.layered(documents.tables(text), path, HERE, catalog)
    except EditError as error:
        problem = Problem("", str(error), "TOML")
        return Checked(text, path, Document({}, []), (problem,), parses=False)
    except PresetError as error:  # of the chain of presets that it extends
        tables = todays(tables)
        readable = Document({key: value for key, value in tables.items() if key != "extends"}, [(HERE, tables)])
        return Checked(text, path, readable, tuple(error.problems))
    except RecursionError:
        return Checked(text, path, Document({}, []), (Problem("", "tables nested too deeply", "two or three levels"),))
    if document.values.get("name", "") == "":
        named = path.parent.name if is_of_run(path) else path.stem
        document = Document({**document.values, "name": named}, document.layers)  # which nobody has said
    try:
        return Checked(text, path, document, preset=from_mapping(document.values, label_of(path), catalog=catalog))
    except PresetError as error:
        problems = [dataclasses.replace(item, source=document.source_of(item.path)) for item in error.problems]
        return Checked(text, path, document, tuple(problems))


def words_of(problem: Problem) -> str:
    """A problem as it is told where its key is in view: found and allowed."""
    return str(dataclasses.replace(problem, path=""))


# -- edits of the text -------------------------------------------------------------------------------------------------


def with_value(text: str, path: str, raw: str) -> str:
    """The text with another value, as TOML, at a key path; `batches` goes with the losses that it means something for,
    for beside loss = "last" it is a former form of another loss."""
    if path == "objective.loss" and parse(f"loss = {raw}")["loss"] not in ON_FRESH_BATCHES:
        text = remove(text, "objective.batches")
    return set_value(text, path, raw)


def in_todays_form(text: str, checked: Checked | None = None) -> str:
    """The text with a table [objective] of a former form written as it is today; else just as it is.

    `checked` says what it means where that depends on what it extends. Raises EditError for a text that is no TOML, or
    whose table is written in one line.
    """
    tables = parse(text)
    before = tables.get("objective")
    layers = checked.document.layers if checked is not None and checked.text == text else []
    todays_tables = next((tables for source, tables in layers if source == HERE), todays(tables))
    after = todays_tables.get("objective")
    if before == after or not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return text
    return first_right({**tables, "objective": after}, [lambda: _renamed(text, before, after)], "objective")


def _renamed(text: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Keys and headers where they stand, with the comments about them."""
    for name in after.get(TERMS, ()):
        text = re.sub(rf"(?m)^(\s*\[\s*objective\s*\.)(?=\s*{re.escape(name)}\s*\])", rf"\1{TERMS}.", text)
    text = re.sub(r"(?m)^(\s*)at_loss(?=\s*=)", r"\1at", text)
    for key in LOSS:
        if key in before and key not in after:
            text = remove(text, f"objective.{key}")
        elif before.get(key) != after.get(key):
            text = set_value(text, f"objective.{key}", toml_of(after[key]))
    return text


# -- the form ----------------------------------------------------------------------------------------------------------


def tables_of(checked: Checked, catalog: Catalog) -> list[FormTable]:
    """Every setting that the text may have, by table, with its value; what it picks decides which there are."""
    values = checked.document.values
    schemas: dict[str, Sequence[Setting]] = {"": schema_of(PresetSettings)}
    tasks = values.get("task")
    listed = {f"task.{index}": task for index, task in enumerate(tasks)} if isinstance(tasks, list) else {"task": tasks}
    schemas |= {path: _picked("task", task, catalog) for path, task in listed.items()}
    schemas["optimizer"] = _picked("optimizer", values.get("optimizer"), catalog)
    schemas |= _named("penalty", values, catalog)
    is_on_fresh = checked.value("objective.loss") in ON_FRESH_BATCHES
    schemas["objective"] = [s for s in catalog.sections["objective"] if is_on_fresh or s.name != "batches"]
    schemas |= _named("objective.terms", values, catalog)
    schemas |= {"meta": _picked("meta", values.get("meta"), catalog), "evaluation": catalog.sections["evaluation"]}
    return [_table(checked, path, schema) for path, schema in schemas.items()]


def addable(checked: Checked, catalog: Catalog) -> dict[str, list[str]]:
    """The penalties and terms that the text does not have yet, by the table that they go into."""
    values = checked.document.values
    return {
        section: [name for name in members if at(values, [*section.split("."), name]) is None]
        for section, members in catalog.named_tables().items()
    }


def _named(section: str, values: Mapping[str, Any], catalog: Catalog) -> dict[str, Sequence[Setting]]:
    """The schemas of the members that stand in tables of their names, by path."""
    tables, members = at(values, section.split(".")), catalog.named_tables()[section]
    names = tables if isinstance(tables, Mapping) else ()
    return {f"{section}.{name}": members[name] for name in names if name in members}


def _picked(table: str, value: Any, catalog: Catalog) -> Sequence[Setting]:
    """A table's own settings and those of the members that it picks; those of a task may be drawn from."""
    settings = value if isinstance(value, Mapping) else {}
    schema = catalog.schema_of(table, settings)
    return drawable(schema, settings) if table == "task" else schema


def _table(checked: Checked, path: str, schema: Sequence[Setting]) -> FormTable:
    problems = {problem.path: problem for problem in checked.problems}
    rows = []
    for item in schema:
        key = f"{path}.{item.name}" if path else item.name
        value = checked.value(key)
        rows.append(
            FormRow(key, item, item.default if value is None else value, checked.origin(key), problems.get(key))
        )
    about = tuple(problem for problem in checked.problems if path and problem.path == path)
    return FormTable(path, tuple(rows), checked.origin(path) if path else HERE, about)


def shown(value: Any) -> str:
    """A value as the form shows it: as TOML, but words without quotes and lists without brackets."""
    if isinstance(value, str):
        return present.clean(value, 200)
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, (int, float, str)) for item in value):
        return present.clean(", ".join(shown(item) for item in value[:100]), 200)
    return present.clean(show(value), 200)


def typed(setting: Setting, text: str) -> tuple[str, Problem | None]:
    """What somebody typed for a setting as TOML, and the problem with it.

    Quotes and brackets may be left out, and numbers be spelt as people write them: 1, .5 and 5.
    """
    text = text.strip()
    items = [item.strip().strip("\"'") for item in text.removeprefix("[").removesuffix("]").split(",")]
    items = [item for item in items if item]
    values = (number(text), [number(item) for item in items], text, items)
    raws = [raw for raw in (text, *map(toml_of, values)) if _value(raw) is not None]
    fitting = next((raw for raw in raws if setting.check(_value(raw))[1] is None), raws[0])
    return fitting, setting.check(_value(fitting))[1]


def _value(raw: str) -> Any:
    """A value that is spelt as TOML; None where it is none."""
    try:
        return tomli.loads(f"x = {raw}")["x"]
    except (ValueError, RecursionError):
        return None
