"""Episodes of the embedded digits: to see few-shot learning run, with no download and no network."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.base.settings import setting
from engine.tasks.datasets.base import DATASETS
from engine.tasks.datasets.digits import Digits
from engine.tasks.datasets.few_shot import WAYS_HELP, FewShotDataset
from engine.tasks.episodes import ImagesByClass

DIGITS = {"train": range(6), "validation": range(6, 8), "test": range(8, 10)}


@DATASETS.register("digits-episodes")
class DigitsEpisodes(FewShotDataset):
    """The 1,797 digits of `digits`: 0 to 5 for training, 6 and 7 for validation, 8 and 9 for testing."""

    ways: int = setting(2, minimum=2, maximum=10_000, help=WAYS_HELP)

    def read_classes(self, folder: Path) -> ImagesByClass:
        digits = Digits()
        x, y, x_test, y_test = digits.read(folder)
        images, labels = torch.cat([x, x_test]), torch.cat([y, y_test])
        bright = (images.long() * 255 // digits.brightest).to(torch.uint8)
        splits = {
            split: {str(digit): (labels == digit).nonzero().flatten() for digit in digits_of_split}
            for split, digits_of_split in DIGITS.items()
        }
        return ImagesByClass(bright, splits)
