"""Tiny Shakespeare: about a million characters of the plays."""

from __future__ import annotations

from pathlib import Path

from engine.tasks.datasets.base import DATASETS
from engine.tasks.datasets.tokens import NextTokenDataset, read_text, stored


@DATASETS.register("tinyshakespeare")
class TinyShakespeare(NextTokenDataset):
    """1,115,394 characters, 65 different ones (karpathy/char-rnn, 2015); the first 90% are for training, as usual."""

    def text(self, folder: Path) -> bytes:
        (path,) = stored(self.name, folder, ["tinyshakespeare/input.txt"], "github.com/karpathy/char-rnn has it")
        return read_text(self.name, path)
