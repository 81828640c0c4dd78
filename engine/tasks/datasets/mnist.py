"""MNIST: handwritten digits, 28x28."""

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


@DATASETS.register("mnist")
class MNIST(ImageDataset):
    """60,000 training and 10,000 test images (LeCun, Bottou, Bengio and Haffner, 1998)."""

    classes = 10
    input_shape = (1, 28, 28)
    mean = (0.1307,)
    std = (0.3081,)

    def read(self, folder: Path) -> RawData:
        return read_mnist("mnist", "MNIST", MD5, folder)
