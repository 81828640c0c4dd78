"""What few-shot datasets share: classes in three splits, of which episodes are drawn, and how large these are."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from engine.base.errors import PresetError, Problem
from engine.base.settings import setting
from engine.tasks.backbones.kept import BackboneFile, features_of_kept, file_of
from engine.tasks.backbones.networks import BACKBONES
from engine.tasks.base import Task
from engine.tasks.datasets.base import Dataset, once_in_memory
from engine.tasks.episodes import EpisodeTask, ImagesByClass
from engine.tasks.optimizees.base import Optimizee

CHUNK = 4096  # images whose pixels are counted at once
WAYS_HELP = "N: classes of an episode, and outputs of the optimizee"

Channels = tuple[float, ...]
Label = TypeVar("Label", bound=Hashable)


@dataclass(frozen=True, kw_only=True, eq=False)
class FewShotDataset(Dataset):
    """Classes to learn from a few examples. A member gives `read_classes`; the rest is here.

    Inputs are standardised by the images of the training classes.
    """

    unused_settings: ClassVar[tuple[str, ...]] = ("batch_size", "validation", "classes")

    ways: int = setting(5, minimum=2, maximum=10_000, help=WAYS_HELP)
    shots: int = setting(1, minimum=1, maximum=10_000, help="K: training images of each class of an episode")
    queries: int = setting(15, minimum=1, maximum=10_000, help="Q: images of each class that an optimizee is judged on")

    batch_norm: str = setting(
        "running",
        choices=("running", "transductive"),
        help="statistics with which batch norm sees the query set when it is measured: those of the support set, or "
        "its own (which knows the other queries, as meta-training does)",
    )

    backbone: str = setting(
        "none",
        choices=("none", *BACKBONES),
        help="inputs are the features of the images by this network, which `lreg backbone` trains; none: the images",
    )

    input_shape: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def read_classes(self, folder: Path) -> ImagesByClass:
        """Read all classes from a data folder, on the CPU. Raises DataError where that fails."""
        raise NotImplementedError

    @property
    def outputs(self) -> int:
        return self.ways

    def make_task(
        self, folder: Path, values: Mapping[str, Any], optimizee: Optimizee, device: torch.device, dtype: torch.dtype
    ) -> Task:
        described, images = self.images(folder, device)
        data = images
        if self.backbone != "none":
            file = described.backbone_file(images, folder)
            to_input = functools.partial(described.to_input, dtype=torch.float32)
            how = (self.backbone, images, to_input, self.name)
            data = once_in_memory((file, device), lambda: features_of_kept(file, *how))
        return described.task_on(data, values, optimizee, dtype)

    def images(self, folder: Path, device: torch.device) -> tuple[FewShotDataset, ImagesByClass]:
        """The dataset as its images describe it, and these. Raises PresetError where the settings do not fit them."""
        key = (self.name, self.source, folder, device)
        data, (mean, std) = once_in_memory(key, lambda: self._read(folder, device))
        if problems := list(self._problems(data)):
            raise PresetError(problems[:1])
        return dataclasses.replace(self, input_shape=tuple(data.images.shape[1:]), mean=mean, std=std), data

    def _read(self, folder: Path, device: torch.device) -> tuple[ImagesByClass, tuple[Channels, Channels]]:
        data = self.read_classes(folder)
        return data.to(device), _mean_and_std(data)

    def task_on(
        self, data: ImagesByClass, values: Mapping[str, Any], optimizee: Optimizee, dtype: torch.dtype
    ) -> EpisodeTask:
        """The task of the dataset's images, or of features in their place; the dataset is described by its images."""
        described = dataclasses.replace(self, input_shape=tuple(data.images.shape[1:]))
        return EpisodeTask(values, described, optimizee, data, data.images.device, dtype)

    def backbone_file(self, data: ImagesByClass, folder: Path) -> BackboneFile:
        """Where the backbone of these images is kept."""
        return file_of(self.backbone, self.name, self.normalize, data, folder)

    def to_input(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """As for any images; features, which are no whole numbers, stay as they are."""
        return images.to(dtype) if images.is_floating_point() else super().to_input(images, dtype)

    def _problems(self, data: ImagesByClass) -> Iterator[Problem]:
        """What of the settings asks for more than the data have."""
        for split, classes in data.splits.items():
            if len(classes) < self.ways:
                allowed = f"at most {len(classes)}, the {split} classes of {self.name}"
                yield Problem("task.ways", str(self.ways), allowed)
        images, fewest = min((len(rows), name) for classes in data.splits.values() for name, rows in classes.items())
        if images < self.shots + self.queries:
            allowed = f"at most {images} together, the images of class {fewest}"
            yield Problem("task.queries", f"{self.shots} shots and {self.queries} queries", allowed)


def positions_of(labels: Sequence[Label]) -> dict[Label, Tensor]:
    """Where in a list each label stands: int64, by label, in the order of their first."""
    positions: dict[Label, list[int]] = {}
    for position, label in enumerate(labels):
        positions.setdefault(label, []).append(position)
    return {label: torch.tensor(where) for label, where in positions.items()}


def _mean_and_std(data: ImagesByClass) -> tuple[Channels, Channels]:
    """Of the training classes' images, per channel, with pixels scaled to 0..1."""
    training = torch.cat(list(data.splits["train"].values()))
    counts = torch.zeros(data.images.shape[1], 256, dtype=torch.float64)  # how often a channel has a value
    for positions in training.split(CHUNK):
        pixels = data.images[positions].transpose(0, 1).flatten(1)
        counts += torch.stack([channel.bincount(minlength=256) for channel in pixels])
    levels = torch.arange(256, dtype=torch.float64) / 255
    shares = counts / counts.sum(1, keepdim=True)
    mean = shares @ levels
    std = (shares * (levels - mean[:, None]).square()).sum(1).sqrt()
    std[std == 0] = 1  # a channel that is the same everywhere must not be divided by nothing
    return tuple(mean.tolist()), tuple(std.tolist())
