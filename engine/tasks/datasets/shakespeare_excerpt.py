"""Some of Shakespeare, part of the package: works with no download and no network."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

from engine.base.errors import DataError
from engine.tasks.datasets.base import DATASETS
from engine.tasks.datasets.tokens import NextTokenDataset

FILE = Path(__file__).with_name("shakespeare.txt.gz")
SHA256 = "cb98528dd280f103b0e53a70c53a61396d613ec306fce39ab7ac1820912586b1"


@DATASETS.register("shakespeare-excerpt")
class ShakespeareExcerpt(NextTokenDataset):
    """The first 99,843 characters of tiny Shakespeare, which are of Coriolanus: in the public domain."""

    def text(self, folder: Path) -> bytes:
        try:
            content = FILE.read_bytes()
        except OSError as error:
            raise DataError(f"{self.name}: {FILE} cannot be read ({error.strerror}); install lreg again") from None
        if hashlib.sha256(content).hexdigest() != SHA256:
            raise DataError(f"{self.name}: {FILE} is damaged; install lreg again")
        return gzip.decompress(content)
