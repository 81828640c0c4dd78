"""What few-shot datasets share: classes in three splits, of which episodes are drawn, and how large these are."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from engine.base.errors import PresetError, Problem
from engine.base.settings import setting
from engine.tasks.base import Task
from engine.tasks.datasets.base import Dataset
from engine.tasks.episodes import EpisodeTask, ImagesByClass
from engine.tasks.optimizees.base import Optimizee

WAYS_HELP = "N: classes of an episode, and outputs of the optimizee"


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
        data = _load(self, folder, device)
        if problems := list(self._problems(data)):
            raise PresetError(problems[:1])
        mean, std = data.mean_and_std
        described = dataclasses.replace(self, input_shape=tuple(data.images.shape[1:]), mean=mean, std=std)
        return EpisodeTask(values, described, data, optimizee, device, dtype)

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


_in_memory: dict[tuple[Hashable, ...], ImagesByClass] = {}


def _load(dataset: FewShotDataset, folder: Path, device: torch.device) -> ImagesByClass:
    """A dataset in memory, once per process."""
    key = (dataset.name, dataset.source, folder, device)
    if key not in _in_memory:
        _in_memory[key] = dataset.read_classes(folder).to(device)
    return _in_memory[key]
