"""Handwritten digits, 8x8, part of the package, and episodes of them: work with no download and no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from engine.base.settings import setting
from engine.tasks.datasets.base import DATASETS, ImageDataset, RawData
from engine.tasks.datasets.few_shot import WAYS_HELP, FewShotDataset
from engine.tasks.datasets.files import packaged
from engine.tasks.episodes import ImagesByClass

FILE = Path(__file__).with_name("digits.csv.gz")
SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
TEST_EXAMPLES = 297
SPLITS = {"train": range(6), "validation": range(6, 8), "test": range(8, 10)}  # of episodes
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


@DATASETS.register("digits-episodes")
class DigitsEpisodes(FewShotDataset):
    """To see few-shot learning run: of `digits` 0 to 5 for training, 6 and 7 for validation, 8 and 9 for testing."""

    ways: int = setting(2, minimum=2, maximum=10_000, help=WAYS_HELP)

    def read_classes(self, folder: Path) -> ImagesByClass:
        digits = Digits()
        x, y, x_test, y_test = digits.read(folder)
        images, labels = torch.cat([x, x_test]), torch.cat([y, y_test])
        bright = (images.long() * 255 // digits.brightest).to(torch.uint8)
        splits = {
            split: {str(digit): (labels == digit).nonzero().flatten() for digit in digits_of_split}
            for split, digits_of_split in SPLITS.items()
        }
        return ImagesByClass(bright, splits)
