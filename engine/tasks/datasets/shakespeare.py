"""Shakespeare: about a million characters of the plays, and an excerpt that is part of the package."""

from __future__ import annotations

from pathlib import Path

from engine.tasks.datasets.base import DATASETS
from engine.tasks.datasets.files import packaged
from engine.tasks.datasets.tokens import NextTokenDataset

FILE = Path(__file__).with_name("shakespeare.txt.gz")
SHA256 = "cb98528dd280f103b0e53a70c53a61396d613ec306fce39ab7ac1820912586b1"


@DATASETS.register("tinyshakespeare")
class TinyShakespeare(NextTokenDataset):
    """1,115,394 characters, 65 different ones (karpathy/char-rnn, 2015); the first 90% are for training, as usual."""

    def text(self, folder: Path) -> bytes:
        return self.read_text(
            *self.stored(folder, ["tinyshakespeare/input.txt"], "github.com/karpathy/char-rnn has it")
        )


@DATASETS.register("shakespeare-excerpt")
class ShakespeareExcerpt(NextTokenDataset):
    """The first 99,843 characters of tiny Shakespeare, which are of Coriolanus: in the public domain. Needs no file."""

    def text(self, folder: Path) -> bytes:
        return packaged(self.name, FILE, SHA256)
