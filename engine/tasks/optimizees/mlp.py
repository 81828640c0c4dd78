"""Multilayer perceptrons: the sigmoid one of Andrychowicz et al. (arXiv:1606.04474), and others by default."""

from __future__ import annotations

import itertools
import math

from torch import Tensor, nn

from engine.base.settings import setting
from engine.tasks.optimizees.base import ACTIVATION_HELP, ACTIVATIONS, INIT_HELP, INITS, OPTIMIZEES, Optimizee

HIDDEN_HELP = (
    "units of each hidden layer; [] is a linear classifier; [low, high] is a range to draw from where depth is given, "
    "or another key of the table is drawn from"
)
DEPTH_HELP = "hidden layers, each of as many units as hidden says; 0: hidden lists them"


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

    form = "numbers"

    hidden: tuple[int, ...] = setting((20,), minimum=1, allow_empty=True, range_beside="depth", help=HIDDEN_HELP)
    depth: int = setting(0, minimum=0, maximum=100, help=DEPTH_HELP)
    activation: str = setting("sigmoid", choices=ACTIVATIONS, help=ACTIVATION_HELP)
    init: str = setting("normal", choices=INITS, help=INIT_HELP)

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        hidden = self.hidden * max(self.depth, 1)
        return Perceptron((math.prod(input_shape), *hidden, outputs), self.activation)


@OPTIMIZEES.register("mlp-relu")
class ReLUMLP(MLP):
    """The same with ReLU, as in "Training Stronger Baselines for Learning to Optimize" (arXiv:2010.09089)."""

    activation: str = setting("relu", choices=ACTIVATIONS, help=ACTIVATION_HELP)


@OPTIMIZEES.register("mlp-tanh")
class TanhMLP(MLP):
    """The same with tanh."""

    activation: str = setting("tanh", choices=ACTIVATIONS, help=ACTIVATION_HELP)


@OPTIMIZEES.register("mlp-gelu")
class GELUMLP(MLP):
    """The same with GELU: to transfer to an activation that no shipped preset is meta-trained on."""

    activation: str = setting("gelu", choices=ACTIVATIONS, help=ACTIVATION_HELP)


@OPTIMIZEES.register("mlp-xh")
class XHMLP(MLP):
    """784-32-10 with ReLU: 25,450 parameters (Xiong & Hsieh, ECCV 2022, official code)."""

    hidden: tuple[int, ...] = setting((32,), minimum=1, allow_empty=True, range_beside="depth", help=HIDDEN_HELP)
    activation: str = setting("relu", choices=ACTIVATIONS, help=ACTIVATION_HELP)
    init: str = setting("uniform", choices=INITS, help=INIT_HELP)
