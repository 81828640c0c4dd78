"""What datasets of a user's own share: a path, a test part where they have none, a description found in the data."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.base.errors import PresetError, Problem
from engine.base.settings import setting
from engine.tasks.criteria import Criterion, CrossEntropy, SquaredError
from engine.tasks.datasets.base import Dataset, RawData

LARGEST = 2**33  # bytes in memory
TEST_SEED = 20261129  # the test part never depends on a run's seed; never change it: results depend on it
CHUNK = 4096  # examples whose statistics are taken at once


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnDataset(Dataset):
    """Examples of the user's. Classes, shape and statistics are known when they have been read."""

    path: str = setting("", is_path=True, help="path of the data")
    test: float = setting(
        0.2, above=0.0, maximum=0.9, help="part held out for testing, where the data have no test part"
    )

    classes: int = 0  # none: the targets are numbers
    numbers: int = 1  # in the targets of an example
    input_shape: tuple[int, ...] = ()
    vocabulary: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    brightest: int = 1  # mean and std are of the numbers as they are
    span: tuple[float, float] = (0.0, 255.0)  # of the training examples, which normalize = "unit" makes 0 to 1

    @property
    def source(self) -> tuple[Hashable, ...]:
        """What `read` goes by."""
        return (self.test, *path_and_time(self.path))

    def described_by(self, data: RawData) -> OwnDataset:
        x, y = data.train_inputs, data.train_targets
        shape = tuple(x.shape[1:])
        classes = 0 if y.is_floating_point() else 1 + int(torch.cat([y, data.test_targets]).max())
        described = dataclasses.replace(self, classes=classes, numbers=y[0].numel(), input_shape=shape)
        if x.dtype == torch.int64:  # tokens, which have no mean
            return dataclasses.replace(described, vocabulary=1 + max(int(x.max()), int(data.test_inputs.max())))
        mean, std = statistics(x)
        return dataclasses.replace(
            described,
            mean=mean,
            std=std,
            span=(float(x.min()), float(x.max())) if x.is_floating_point() else (0.0, 255.0),
        )

    @property
    def criterion(self) -> Criterion:
        return CrossEntropy() if self.classes else SquaredError()

    @property
    def outputs(self) -> int:
        return self.classes or self.numbers

    def to_input(self, inputs: Tensor, dtype: torch.dtype) -> Tensor:
        if inputs.dtype == torch.int64:
            return inputs
        if self.normalize == "standard":
            return super().to_input(inputs, dtype)
        low, high = self.span
        return (inputs.to(dtype) - low) / (high - low or 1.0)

    def split_off(self, x: Tensor, y: Tensor) -> RawData:
        """Hold out a part of x, [N, ...], and y, [N, ...], for testing: at random, but always the same."""
        held_out = round(self.test * len(x))
        if not 0 < held_out < len(x):
            found = f"no {'training' if held_out else 'test'} examples (test = {self.test:g} of {len(x)} examples)"
            raise PresetError([Problem("task.test", found, "a part that leaves examples on both sides")])
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(TEST_SEED))
        test, train = order[:held_out], order[held_out:]
        return RawData(x[train], y[train], x[test], y[test])


def named(path: str) -> Path:
    """The path of a user's data. Raises PresetError where none is given."""
    if not path:
        raise PresetError([Problem("task.path", '""', "the path of the data")])
    return Path(path)


def path_and_time(path: str) -> tuple[Hashable, ...]:
    """A path, and the size and time of what is there: it may be replaced while this process lives."""
    try:
        facts = os.stat(path)
    except (OSError, ValueError):  # reading tells what is wrong with it
        return (path,)
    return (path, facts.st_size, facts.st_mtime_ns)


def statistics(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel of x, [N, C, H, W]."""
    each = x.numel() // x.shape[1]
    mean = sum(chunk.double().sum((0, 2, 3)) for chunk in x.split(CHUNK)) / each  # [C]
    squares = sum((chunk.double() - mean[:, None, None]).square().sum((0, 2, 3)) for chunk in x.split(CHUNK))
    std = (squares / each).sqrt()
    std[std == 0] = 1  # a feature that is the same everywhere says nothing, and must not be divided by nothing
    return tuple(mean.tolist()), tuple(std.tolist())
