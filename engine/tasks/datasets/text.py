"""A user's own text."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

from engine.base.settings import setting
from engine.tasks.datasets.base import DATASETS
from engine.tasks.datasets.own import named, path_and_time
from engine.tasks.datasets.tokens import NextTokenDataset


@DATASETS.register("text")
class Text(NextTokenDataset):
    """A file in UTF-8, as it is."""

    path: str = setting("", is_path=True, help="a text file in UTF-8")
    test: float = setting(0.1, above=0.0, maximum=0.9, help="last part of the text, held out for testing")

    def text(self, folder: Path) -> bytes:
        return self.read_text(named(self.path))

    @property
    def source(self) -> tuple[Hashable, ...]:
        return (*super().source, *path_and_time(self.path))
