"""Study files: where they are found, those that are shipped, and what is none but a preset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from engine.base.errors import PresetError, Problem, SettingsError
from engine.base.settings import did_you_mean, show
from engine.presets import document as documents

TABLES = ("set", "axes", "arm", "search", "pick", "transfer", "report")
OF_PRESETS = ("task", "optimizer", "meta", "objective", "penalty", "evaluation", "extends", "threads")


class StudyError(SettingsError):
    """A study that cannot be used; `source` names the file."""


def shipped_studies() -> dict[str, Path]:
    """The studies in the installed package, by name."""
    folder = documents.FOLDER / "studies"
    return {path.stem: path for path in sorted(folder.glob("*.toml"), key=lambda path: path.stem)}


def find_study(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a study: a path that exists, else a shipped study's name. Raises StudyError."""
    text = os.fspath(name_or_path)
    studies, name = shipped_studies(), text.removesuffix(".toml")
    if documents.is_file(Path(text)):
        return Path(text)
    if name in studies:
        return studies[name]
    allowed = "a TOML file, or one of: " + ", ".join(studies)
    hint = f"that is a preset: lreg run {name}" if name in documents.shipped() else did_you_mean(name, studies)
    problem = Problem("", documents.instead_of_file(Path(text), "study"), allowed, hint)
    raise StudyError([problem], show(text)[1:-1] or '""')


def parsed(path: Path, source: str) -> dict[str, Any]:
    """The tables of a study file. Raises PresetError where it is none that can be read, or a preset."""
    values = documents.parse(path, source)
    if values.keys() & set(OF_PRESETS) and not values.keys() & set(TABLES):
        raise PresetError([Problem("", "a preset", "a study", f"lreg run {source} does one run of it")], source)
    return values
