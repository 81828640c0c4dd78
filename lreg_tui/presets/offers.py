"""What the console offers to start with: presets and studies, shipped, of a folder, or of a run.

Reads files: not for the console's loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli

from engine.base.files import read_limited
from engine.presets import document as documents
from lreg_tui.text.present import age

if TYPE_CHECKING:
    from lreg_tui.runs.feed import RunRow

SHIPPED = "shipped"
MOST_RUNS = 100
STUDY_TABLES = ("arm", "axes", "transfer", "search", "pick")  # one of which a study has, and no preset


@dataclass(frozen=True)
class Offer:
    """A preset or a study. `reference` is what opens it; the rest may have been written by strangers."""

    group: str
    reference: str
    name: str
    path: Path
    about: str = ""


def presets(folder: Path, rows: Sequence[RunRow]) -> Iterator[Offer]:
    """The shipped presets, those in a folder, and those of runs, the newest first."""
    for offer in _files(documents.shipped(), "quickstart", folder):
        yield replace(offer, about=_about_preset(offer.path))
    dated = sorted(rows, key=lambda row: row.created or 0.0, reverse=True)
    for row in [row for row in dated if "edit" in row.kind.actions][:MOST_RUNS]:
        path = row.path / "preset.toml"
        yield Offer("of a run", str(path), row.name, path, f"{row.id}, {age(row.created)} ago")


def studies(folder: Path) -> Iterator[Offer]:
    """The shipped studies, small ones first, and those in a folder."""
    from engine.study.plan.sources import shipped_studies

    for offer in _files(shipped_studies(), "smoke", folder):
        values = _values(offer.path) or {}
        if offer.group == SHIPPED or any(table in values for table in STUDY_TABLES):
            yield replace(offer, about=str(values.get("description", "")))


def _files(shipped: Mapping[str, Path], first: str, folder: Path) -> Iterator[Offer]:
    """What is shipped, `first` before the rest, and the TOML files of a folder."""
    for name, path in sorted(shipped.items(), key=lambda item: (item[0] != first, item[0])):
        yield Offer(SHIPPED, name, name, path)
    for path in sorted(folder.glob("*.toml")):
        if path.name != "pyproject.toml":
            yield Offer("in this folder", str(path), path.name, path)


def _about_preset(path: Path) -> str:
    """What a preset says about itself."""
    if (values := _values(path)) is None:
        return "cannot be read"
    extends = values.get("extends")
    return str(values.get("description", "")) or (f"extends {extends}" if extends else "")


def _values(path: Path) -> dict[str, Any] | None:
    """A TOML file as it stands; None where it cannot be read."""
    try:
        return tomli.loads(read_limited(path, documents.LARGEST_FILE).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
