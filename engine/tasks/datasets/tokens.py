"""What datasets of text share: reading UTF-8, numbering tokens, and texts of which the next token is to be told.

Tokens are stored as small integers; a batch becomes int64 when it is used. Of numbers there are as many as the training
part has different tokens: what it does not know is one more.
"""

from __future__ import annotations

import codecs
import dataclasses
import errno
import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from engine.base.files import read_limited
from engine.base.settings import setting
from engine.tasks.criteria import NextToken
from engine.tasks.datasets.base import Dataset, RawData

LARGEST = 2**30  # bytes of a file that is read whole
CODE_POINTS = 0x110000  # of Unicode
BYTES = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenDataset(Dataset):
    """A dataset whose inputs are tokens, stored as integers of any size."""

    normalize: ClassVar[str] = ""  # type: ignore[misc]  # no setting: tokens are no numbers
    input_shape: tuple[int, ...] = ()  # known, as the vocabulary, when the data have been read
    vocabulary: int = 0

    def to_input(self, inputs: Tensor, dtype: torch.dtype) -> Tensor:
        return inputs.long()

    def stored(self, folder: Path, files: Sequence[str], contents: str) -> list[Path]:
        """The files of a dataset that is never downloaded. Raises DataError that says what to put where."""
        missing = [file for file in files if not os.path.isfile(folder / file)]
        if missing:
            raise self.not_there(folder, f"{', '.join(missing)} ({contents})")
        return [folder / file for file in files]

    def read_text(self, path: Path) -> bytes:
        """A file's text in UTF-8, without a byte order mark. Raises DataError where it is none, or too large."""
        try:
            content = read_limited(path, LARGEST).removeprefix(codecs.BOM_UTF8)
            content.decode()
        except (OSError, ValueError) as error:  # of UnicodeDecodeError, and of a path that can be no file's
            found = _found(error)
        else:
            if content:
                return content
            found = "0 bytes"
        raise self.error(found, f"a text in UTF-8, up to {LARGEST} bytes", path)


@dataclass(frozen=True, kw_only=True, eq=False)
class NextTokenDataset(TokenDataset):
    """A text of characters or bytes, each to be told from those before it. A member gives `text`.

    The first part of the text is for training, of which `validation` is the end, and the rest for testing. An example
    is a window of length + 1 tokens, all of one part: its inputs are the first ones, its targets the next one of each.
    Characters that the training text lacks count as one and the same.
    """

    tokens: str = setting("characters", choices=("characters", "bytes"), help="what a text is taken apart into")
    length: int = setting(64, minimum=1, maximum=65_536, help="tokens of an example, each with the next as its target")

    test: float = 0.1  # the last part of the text
    classes: int = 0
    window: int = 0  # known as these

    def text(self, folder: Path) -> bytes:
        """The whole text, in UTF-8. Raises DataError where it cannot be read."""
        raise NotImplementedError

    @property
    def source(self) -> tuple[Hashable, ...]:
        return (self.tokens, self.test)

    @property
    def criterion(self) -> NextToken:
        return NextToken()

    @property
    def outputs(self) -> int:
        return self.vocabulary

    def read(self, folder: Path) -> RawData:
        content = self.text(folder)
        if self.tokens == "bytes":
            whole = np.frombuffer(content, np.uint8)
        else:
            whole = np.frombuffer(content.decode().encode("utf-32-le"), "<u4")
        training = len(whole) - round(self.test * len(whole))
        if not 1 < training < len(whole) - 1:
            raise self.error(f"{len(whole)} {self.tokens}", "a text that leaves some for training and for testing")
        stream = whole.copy() if self.tokens == "bytes" else _numbered(whole, training)
        train, test = torch.from_numpy(stream).tensor_split([training])
        return RawData(train[:-1], train[1:], test[:-1], test[1:])

    def described_by(self, data: RawData) -> NextTokenDataset:
        for part, inputs in (("training", data.train_inputs), ("test", data.test_inputs)):
            if len(inputs) < self.length:
                found = f"{len(inputs) + 1} {self.tokens} in the {part} part"
                raise self.error(found, f"more than task.length = {self.length}")
        vocabulary = BYTES if self.tokens == "bytes" else 1 + max(int(part.max()) for part in data)
        return dataclasses.replace(self, input_shape=(self.length,), vocabulary=vocabulary, window=self.length)


def _numbered(code_points: np.ndarray, training: int) -> np.ndarray:
    """Characters, [N], numbered in the order of Unicode as the first `training` have them; one more for all others."""
    in_training = np.zeros(CODE_POINTS, bool)
    in_training[code_points[:training]] = True
    numbers = np.full(CODE_POINTS, in_training.sum(), np.int32)
    numbers[in_training] = np.arange(in_training.sum())
    return numbers.astype(smallest(int(in_training.sum()) + 1))[code_points]


def smallest(count: int) -> type[np.generic]:
    """The smallest kind of integers that has `count` of them, from 0."""
    kinds = (np.uint8, np.int16, np.int32)
    return next(kind for kind in kinds if count - 1 <= np.iinfo(kind).max)


def _found(error: OSError | ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte 0x{error.object[error.start]:02x} at {error.start}, which is not UTF-8"
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return f"more than {LARGEST} bytes"
    return (isinstance(error, OSError) and error.strerror) or str(error)
