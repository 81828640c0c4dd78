"""Notes on a run: the name that people gave it later, tags, and whether it is pinned. A file beside the run's own.

Like scale.json and landscape/, it is written not by the run's process but by whoever looks at the run: whole each time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.base.files import read_json, write_atomic

FILE = "notes.json"
LONGEST_NAME = 80
MOST_TAGS = 50


@dataclass(frozen=True)
class Notes:
    """`name` is empty where the run keeps its preset's."""

    name: str = ""
    tags: tuple[str, ...] = ()
    pinned: bool = False

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Notes:
        """Take what fits: the file may come from anybody."""
        name, tags, pinned = values.get("name"), values.get("tags"), values.get("pinned")
        texts = [tag[:LONGEST_NAME] for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
        return cls(
            name=name[:LONGEST_NAME] if isinstance(name, str) else "",
            tags=tuple(dict.fromkeys(texts))[:MOST_TAGS],
            pinned=pinned is True,
        )


def read(run_path: Path) -> Notes:
    return Notes.from_json(read_json(run_path / FILE, below=run_path))


def write(run_path: Path, notes: Notes) -> None:
    """Replace the notes. Raises OSError where the folder cannot be written."""
    write_atomic(run_path / FILE, json.dumps(asdict(notes), indent=1) + "\n")
