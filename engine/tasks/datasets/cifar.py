"""CIFAR-10 and CIFAR-100: small colour photographs of ten and of a hundred kinds of things."""

from __future__ import annotations

from pathlib import Path

from engine.tasks.datasets.base import DATASETS, AugmentedDataset, RawData
from engine.tasks.datasets.files import read_cifar


@DATASETS.register("cifar10")
class CIFAR10(AugmentedDataset):
    """50,000 training and 10,000 test images (Krizhevsky, 2009).

    `std` is that of all pixels. The often copied 0.2023, 0.1994, 0.2010 is the mean of the images' own.
    """

    classes = 10
    input_shape = (3, 32, 32)
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)

    def read(self, folder: Path) -> RawData:
        return read_cifar("cifar10", "CIFAR10", folder)


@DATASETS.register("cifar100")
class CIFAR100(AugmentedDataset):
    """50,000 training and 10,000 test images with their fine labels (Krizhevsky, 2009)."""

    classes = 100
    input_shape = (3, 32, 32)
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)

    def read(self, folder: Path) -> RawData:
        return read_cifar("cifar100", "CIFAR100", folder)
