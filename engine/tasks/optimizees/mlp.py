"""Multilayer perceptrons: the sigmoid one of Andrychowicz et al. (arXiv:1606.04474), and two with ReLU."""

from __future__ import annotations

import itertools
import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from engine.base.settings import setting
from engine.tasks.optimizees.base import INIT_HELP, INITS, OPTIMIZEES, Optimizee

ACTIVATIONS = {"sigmoid": torch.sigmoid, "relu": torch.relu}
HIDDEN_HELP = "units of each hidden layer; [] is a linear classifier"


class Perceptron(nn.Module):
    """Linear layers with an activation between them."""

    def __init__(self, sizes: tuple[int, ...], activation: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(itertools.starmap(nn.Linear, itertools.pairwise(sizes)))
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        first, *others = self.layers
        x = first(x.flatten(1))
        for layer in others:
            x = layer(self.activation(x))
        return x


@OPTIMIZEES.register("mlp")
class MLP(Optimizee):
    """784-20-10 on MNIST: 15,910 parameters."""

    activation: ClassVar[str] = "sigmoid"

    hidden: tuple[int, ...] = setting((20,), minimum=1, allow_empty=True, help=HIDDEN_HELP)
    init: str = setting("normal", choices=INITS, help=INIT_HELP)

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        return Perceptron((math.prod(input_shape), *self.hidden, outputs), self.activation)


@OPTIMIZEES.register("mlp-relu")
class ReLUMLP(MLP):
    """The same with ReLU, as in "Training Stronger Baselines for Learning to Optimize" (arXiv:2010.09089)."""

    activation: ClassVar[str] = "relu"


@OPTIMIZEES.register("mlp-xh")
class XHMLP(MLP):
    """784-32-10 with ReLU: 25,450 parameters (Xiong & Hsieh, ECCV 2022, official code)."""

    activation: ClassVar[str] = "relu"

    hidden: tuple[int, ...] = setting((32,), minimum=1, allow_empty=True, help=HIDDEN_HELP)
    init: str = setting("uniform", choices=INITS, help=INIT_HELP)
