"""CIFAR-100: small colour photographs of a hundred kinds of things."""

from __future__ import annotations

from pathlib import Path

from engine.tasks.datasets.base import DATASETS, AugmentedDataset, RawData
from engine.tasks.datasets.files import read_cifar


@DATASETS.register("cifar100")
class CIFAR100(AugmentedDataset):
    """50,000 training and 10,000 test images with their fine labels (Krizhevsky, 2009)."""

    classes = 100
    input_shape = (3, 32, 32)
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)

    def read(self, folder: Path) -> RawData:
        return read_cifar("cifar100", "CIFAR100", folder)
