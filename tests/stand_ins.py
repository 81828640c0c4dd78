"""The embedded digits in place of datasets whose files must be downloaded: for tests that need shapes, not files."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor
from torch.nn import functional as F

from engine.tasks.datasets.base import DATASETS, Dataset, RawData

OTHERS = ("digits", "folder", "friedman", "tensors", "tiny-imagenet")  # in the package, or described by their data
BY_FILES = tuple(name for name in DATASETS.names() if name not in OTHERS)


def put_digits_in_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the test is over, every dataset of files reads as the digits, as large and as bright as its own images."""
    monkeypatch.setenv("LREG_DATA_DIR", "enlarged-digits")  # datasets are kept by their folder: not for a real one
    for name in BY_FILES:
        monkeypatch.setattr(DATASETS[name], "read", _enlarged_digits)


def _enlarged_digits(dataset: Dataset, folder: Path) -> RawData:
    digits = DATASETS.create("digits")
    train, train_labels, test, test_labels = digits.read(folder)

    def enlarged(images: Tensor) -> Tensor:
        channels, *size = dataset.input_shape
        bright = images.float() * (dataset.brightest / digits.brightest)
        return F.interpolate(bright, size).to(images.dtype).expand(-1, channels, -1, -1).contiguous()

    return RawData(enlarged(train), train_labels, enlarged(test), test_labels)
