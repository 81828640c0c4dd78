"""A user's own text."""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path

from engine.base.errors import DataError, PresetError, Problem
from engine.base.settings import setting
from engine.tasks.datasets.base import DATASETS
from engine.tasks.datasets.tokens import NextTokenDataset, read_text


@DATASETS.register("text")
class Text(NextTokenDataset):
    """A file in UTF-8, as it is."""

    path: str = setting("", is_path=True, help="a text file in UTF-8")
    test: float = setting(0.1, above=0.0, maximum=0.9, help="last part of the text, held out for testing")

    def text(self, folder: Path) -> bytes:
        if not self.path:
            raise PresetError([Problem("task.path", '""', "the path of a text file")])
        return read_text(self.name, Path(self.path))

    def error(self, found: str, allowed: str) -> DataError:
        return DataError(f"{self.name}: {self.path}: found {found}; allowed: {allowed}")

    @property
    def source(self) -> tuple[Hashable, ...]:
        """What `read` goes by, and the file's size and time: it may be replaced while this process lives."""
        try:
            facts = os.stat(self.path)
        except (OSError, ValueError):  # reading tells what is wrong with it
            return (*super().source, self.path)
        return (*super().source, self.path, facts.st_size, facts.st_mtime_ns)
