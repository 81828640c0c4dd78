"""Dataset: inputs and targets as they are stored, how they become an optimizee's, and the registry of the members.

Images stay uint8 on the device (CIFAR-10: 184 MB instead of 737); a batch becomes floats when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.base.errors import DataError
from engine.base.registry import Registry
from engine.base.settings import setting
from engine.tasks.base import Task
from engine.tasks.criteria import Criterion, CrossEntropy
from engine.tasks.optimizees.base import Form, Optimizee

Made = TypeVar("Made")
PADDING = 4  # pixels around an image that is cropped at random, as everywhere for CIFAR


class RawData(NamedTuple):
    """A dataset as it is stored: inputs and targets, [N, ...] each, of the training and of the test part.

    Of images uint8 [N, C, H, W] and int64 [N]. Inputs may be anything, and so may the targets: floats where these are
    numbers.
    """

    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor

    def to(self, device: torch.device) -> RawData:
        return RawData(*(tensor.to(device) for tensor in self))


class Description:
    """What networks and their inputs need to know of a dataset. A member's class states it, or its data tell it.

    `mean` and `std` are those of the training images, per channel, with pixels scaled to 0..1.
    """

    classes: int
    input_shape: tuple[int, ...]  # of images C, H, W
    mean: tuple[float, ...]
    std: tuple[float, ...]
    brightest: int = 255  # the largest pixel value
    vocabulary: int = 0  # how many different tokens there are, 0 to vocabulary - 1; 0: inputs are numbers
    window: int = 0  # the inputs are a row of tokens, targets the next ones, and so many at a place are an example


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset(Description):
    """Images of `classes` kinds. A member states its constants and how it is read; the rest is here."""

    name: ClassVar[str]
    unused_settings: ClassVar[tuple[str, ...]] = ()  # keys of [task] that say nothing here: they keep their defaults

    normalize: str = setting(
        "standard",
        choices=("standard", "unit"),
        help="standard: zero mean, unit variance per channel; unit: 0 to 1",
    )

    def read(self, folder: Path) -> RawData:
        """Read the whole dataset from a data folder, on the CPU. Raises DataError where that fails."""
        raise NotImplementedError

    def error(self, found: str, allowed: str, path: Path | str = "") -> DataError:
        """What is wrong with the data at a path, else at the one that the user has named, as one line."""
        where = path or getattr(self, "path", "")
        return DataError(f"{self.name}: {f'{where}: ' if where else ''}found {found}; allowed: {allowed}")

    def not_there(self, folder: Path, contents: str) -> DataError:
        """The data are not in the data folder: what to put there."""
        return DataError(
            f"{self.name}: not in {folder}; put there: {contents}; or name the folder that has it in LREG_DATA_DIR"
        )

    @property
    def form(self) -> Form:
        """What its examples are, so that only optimizees for these are trained on them."""
        return "text" if self.window else "tokens" if self.vocabulary else "numbers"

    @property
    def criterion(self) -> Criterion:
        """What an optimizee's outputs are judged by."""
        return CrossEntropy()

    @property
    def outputs(self) -> int:
        """How many numbers an optimizee gives for an example."""
        return self.classes

    def make_task(
        self, folder: Path, values: Mapping[str, Any], optimizee: Optimizee, device: torch.device, dtype: torch.dtype
    ) -> Task | None:
        """A task of the dataset's own, where it is not one of examples and an optimizee: then `read` is not asked.

        `values`: the resolved [task] table, `optimizee`: the member that it names.
        """
        return None

    def described_by(self, data: RawData) -> Dataset:
        """The dataset with its description, where only the data that were read tell it."""
        return self

    @property
    def source(self) -> tuple[Hashable, ...]:
        """What decides, beside the data folder, what `read` gives: what was read for it is kept in memory."""
        return ()

    def to_input(self, inputs: Tensor, dtype: torch.dtype) -> Tensor:
        """Turn inputs as they are stored, of images uint8 [..., C, H, W], into an optimizee's of the same shape."""
        if self.normalize == "unit":
            return inputs.to(dtype).mul_(1 / self.brightest)
        shift, scale = _affine(self.mean, self.std, self.brightest, dtype, inputs.device)
        return torch.addcmul(shift, inputs.to(dtype), scale)

    @property
    def augmentation_size(self) -> int:
        """Uniform random numbers per example that `augmented` needs; 0: training images stay as they are."""
        return 0

    def augmented(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Vary training images, uint8 [M, C, H, W], by numbers in [0, 1), shape [M, augmentation_size]."""
        return images


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageDataset(Dataset):
    """Images, which may be varied at random in training."""

    flip: bool = setting(False, help="every second training image is mirrored left to right, on average")
    crop: int = setting(
        0, minimum=0, maximum=64, help="black pixels around training images, out of which they are cropped at random"
    )

    augment: ClassVar[bool] = False  # a setting of `AugmentedDataset`

    @property
    def augmentation_size(self) -> int:
        return 3 if self.flip or self.crop or self.augment else 0

    def augmented(self, images: Tensor, numbers: Tensor) -> Tensor:
        padding = self.crop or (PADDING if self.augment else 0)
        return crop_and_flip(images, numbers, padding, self.flip or self.augment)


@dataclass(frozen=True, kw_only=True, eq=False)
class AugmentedDataset(ImageDataset):
    """Images for which both have a name together, as everywhere for CIFAR."""

    augment: bool = setting(False, help="flip = true and, unless it is given, crop = 4")  # type: ignore[misc]


DATASETS = Registry[Dataset]("dataset", "engine.tasks.datasets", Dataset)


def crop_and_flip(images: Tensor, numbers: Tensor, padding: int = PADDING, flip: bool = True) -> Tensor:
    """Crop each image out of itself with so much black around, and mirror every second one, on average.

    images: [M, C, H, W]; numbers in [0, 1): [M, 3], for the row, the column and the flip.
    """
    channels, height, width = images.shape[1:]
    padded = F.pad(images, (padding,) * 4)
    corner = (numbers[:, :2] * (2 * padding + 1)).long()  # [M, 2]
    rows = corner[:, :1] + torch.arange(height, device=images.device)  # [M, H]
    columns = torch.arange(width, device=images.device).expand(len(images), width)
    if flip:
        columns = torch.where(numbers[:, 2:] < 0.5, columns, width - 1 - columns)
    columns = columns + corner[:, 1:2]  # [M, W]
    example = torch.arange(len(images), device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    return padded[example, channel, rows[:, None, :, None], columns[:, None, None, :]]


_in_memory: dict[Hashable, Any] = {}


def once_in_memory(key: Hashable, make: Callable[[], Made]) -> Made:
    """What is made for a key, once in a process."""
    if key not in _in_memory:
        _in_memory[key] = make()
    return _in_memory[key]


@lru_cache(maxsize=64)
def _affine(
    mean: tuple[float, ...], std: tuple[float, ...], brightest: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Shift and scale, shape [C, 1, 1], with which pixels of 0..brightest become standardised."""
    m = torch.tensor(mean, dtype=torch.float64)
    s = torch.tensor(std, dtype=torch.float64)
    shift, scale = -m / s, 1 / (brightest * s)
    return shift.to(device, dtype)[:, None, None], scale.to(device, dtype)[:, None, None]
