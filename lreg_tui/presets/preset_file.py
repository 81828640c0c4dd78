"""Where presets come from and where they go: taking one up, saving it, and how two of them differ."""

from __future__ import annotations

import difflib
import itertools
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from engine.base.errors import LregError, PresetError, Problem, printable
from engine.base.files import read_limited, write_atomic
from engine.presets import document as documents
from engine.presets.document import shipped
from engine.presets.preset import Preset
from engine.runs.writer import slug
from lreg_tui.presets.toml_edit import EditError, parse, set_value, toml_of
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
