"""A classifier by cosines, for features: the one that SIB trains."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from engine.tasks.optimizees.base import OPTIMIZEES, Optimizee

SCALE = 10.0  # at the start
EPS = 1e-12  # added to squared norms


def of_length_one(x: Tensor) -> Tensor:
    """x, [..., F], over its norm along the last dimension; zeros stay."""
    return x * (x.square().sum(-1, keepdim=True) + EPS).rsqrt()


class CosineClassifier(nn.Module):
    """s_k = scale (cos(x, weight_k) + bias)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.scale = nn.Parameter(torch.empty(()))
        self.bias = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.weight, -1 / math.sqrt(self.weight.shape[1]), 1 / math.sqrt(self.weight.shape[1]))
        nn.init.constant_(self.scale, SCALE)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        cosines = of_length_one(x.flatten(1)) @ of_length_one(self.weight).T
        return self.scale * (cosines + self.bias)


@OPTIMIZEES.register("cosine")
class Cosine(Optimizee):
    """One weight vector for each class, a scale and a bias that all classes share; scores are scaled cosines.

    The classifier of Hu et al. 2020 (arXiv:2004.12696). 1,282 parameters for 5 classes of 256 features.
    """

    form = "numbers"

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        return CosineClassifier(math.prod(input_shape), outputs)

    def init_theta(self, module: nn.Module, generator: torch.Generator) -> Tensor:
        theta = super().init_theta(module, generator)
        theta[-2:] = torch.tensor([SCALE, 0.0])  # whatever `init` says of the weights
        return theta
