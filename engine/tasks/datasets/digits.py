"""Handwritten digits, 8x8, part of the package: works with no download and no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from engine.tasks.datasets.base import DATASETS, ImageDataset, RawData
from engine.tasks.datasets.files import packaged

FILE = Path(__file__).with_name("digits.csv.gz")
SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
TEST_EXAMPLES = 297
SHUFFLE_SEED = 20240801  # any number, but never another one: results depend on it


@DATASETS.register("digits")
class Digits(ImageDataset):
    """Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, UCI, 1998; CC BY 4.0), its 1797 test digits.

    Pixels count the dark points of a 4x4 block: 0..16. The file is in the order of its writers, so it is shuffled.
    """

    classes = 10
    input_shape = (1, 8, 8)
    mean = (0.3050,)
    std = (0.3758,)
    brightest = 16

    def read(self, folder: Path) -> RawData:
        lines = packaged("digits", FILE, SHA256).decode().splitlines()
        table = torch.from_numpy(np.loadtxt(lines, delimiter=",", dtype=np.uint8))  # [1797, 65]
        table = table[torch.randperm(len(table), generator=torch.Generator().manual_seed(SHUFFLE_SEED))]
        images, labels = table[:, :64].reshape(-1, 1, 8, 8), table[:, 64].long()
        return RawData(images[TEST_EXAMPLES:], labels[TEST_EXAMPLES:], images[:TEST_EXAMPLES], labels[:TEST_EXAMPLES])
