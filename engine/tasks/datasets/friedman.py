"""Friedman #1: numbers to be learned from ten features, five of which say nothing; made, with nothing to download."""

from __future__ import annotations

import math
from collections.abc import Hashable
from pathlib import Path

import torch
from torch import Tensor

from engine.base.settings import setting
from engine.tasks.criteria import Criterion, Regression
from engine.tasks.datasets.base import DATASETS, Dataset, RawData

FEATURES = 10
SEED = 20261201  # never change it: results depend on it


@DATASETS.register("friedman")
class Friedman(Dataset):
    """y = 10 sin(π x₁x₂) + 20 (x₃ - 1/2)² + 10 x₄ + 5 x₅ + e (Friedman 1991, Annals of Statistics 19, eq. 56).

    x uniform in [0, 1]^10, e ~ N(0, noise²). The numbers are learned by the squared error after they were standardised
    by the training examples: a loss of 1 is that of their mean.
    """

    examples: int = setting(2000, minimum=10, maximum=1_000_000, help="examples, a fifth of them to test with")
    noise: float = setting(1.0, minimum=0.0, maximum=1e3, help="standard deviation of the noise on a number")

    classes = 0
    outputs = 1
    input_shape = (FEATURES, 1, 1)
    mean = (0.5,) * FEATURES
    std = (12**-0.5,) * FEATURES
    brightest = 1

    @property
    def criterion(self) -> Criterion:
        return Regression()

    @property
    def source(self) -> tuple[Hashable, ...]:
        return (self.examples, self.noise)

    def read(self, folder: Path) -> RawData:
        generator = torch.Generator().manual_seed(SEED)
        numbers = torch.rand(self.examples, FEATURES, generator=generator, dtype=torch.float64)
        noise = torch.randn(self.examples, generator=generator, dtype=torch.float64)
        y = friedman(numbers) + self.noise * noise
        test = self.examples // 5
        y = (y - y[test:].mean()) / y[test:].std(correction=0)
        x, y = numbers.float()[:, :, None, None], y.float()
        return RawData(x[test:], y[test:], x[:test], y[:test])


def friedman(x: Tensor) -> Tensor:
    """The function without noise, [N], of x, [N, 10]."""
    first, second, third, fourth, fifth = x.unbind(-1)[:5]
    return 10 * (math.pi * first * second).sin() + 20 * (third - 0.5) ** 2 + 10 * fourth + 5 * fifth
