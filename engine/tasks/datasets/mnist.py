"""MNIST and Fashion-MNIST: handwritten digits, and pieces of clothing, 28x28."""

from __future__ import annotations

from pathlib import Path

from engine.tasks.datasets.base import DATASETS, ImageDataset, RawData
from engine.tasks.datasets.files import read_mnist

MD5 = (
    "6bbc9ace898e44ae57da46a324031adb",
    "a25bea736e30d166cdddb491f175f624",
    "2646ac647ad5339dbf082846283269ea",
    "27ae3e4e09519cfbb04c329615203637",
)
FASHION_MD5 = (
    "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "9018921c3c673c538a1fc5bad174d6f9",
    "8181f5470baa50b63fa0f6fddb340f0a",
    "15d484375f8d13e6eb1aabb0c3f46965",
)


@DATASETS.register("mnist")
class MNIST(ImageDataset):
    """60,000 training and 10,000 test images (LeCun, Bottou, Bengio and Haffner, 1998)."""

    classes = 10
    input_shape = (1, 28, 28)
    mean = (0.1307,)
    std = (0.3081,)

    def read(self, folder: Path) -> RawData:
        return read_mnist("mnist", "MNIST", MD5, folder)


@DATASETS.register("fmnist")
class FashionMNIST(ImageDataset):
    """60,000 training and 10,000 test images (Xiao, Rasul and Vollgraf, arXiv:1708.07747; MIT licence)."""

    classes = 10
    input_shape = (1, 28, 28)
    mean = (0.2860,)
    std = (0.3530,)

    def read(self, folder: Path) -> RawData:
        return read_mnist("fmnist", "FashionMNIST", FASHION_MD5, folder)
