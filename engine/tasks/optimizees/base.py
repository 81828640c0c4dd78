"""Optimizee: a network that is trained by the optimizer under study, and the registry of the members."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from engine.base.registry import Registry
from engine.base.settings import setting

INITS = ("normal", "uniform")
INIT_HELP = "start of the parameters; normal: N(0, 0.01^2); uniform: U(-1, 1)/sqrt(fan-in), as PyTorch does"
NORMAL_STD = 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class Optimizee:
    """Builds a network for a dataset and draws where its training starts.

    The network's forward is `forward(x [D, C, H, W], noise [D, K] or None) -> logits [D, classes]`, a pure function of
    its inputs and parameters: no buffers, no global random numbers. Dropout masks are made from `noise`, uniform in
    [0, 1), so that a clean and a perturbed pass share one mask. None or K = 0 is evaluation mode.
    """

    name: ClassVar[str]

    init: str = setting("uniform", choices=INITS, help=INIT_HELP)

    @property
    def noise_size(self) -> int:
        """K, the uniform random numbers that one example needs in training mode."""
        return 0

    def build(self, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Return the network for inputs of shape (C, H, W). The values of its parameters do not matter."""
        raise NotImplementedError

    def init_theta(self, module: nn.Module, generator: torch.Generator) -> Tensor:
        """Draw initial parameters, shape [P], in the order of `module.named_parameters()`.

        With a generator of the CPU every device starts from equal numbers. Scales and shifts of normalisation layers
        start at 1 and 0.
        """
        pieces = []
        for layer in module.modules():
            for key, parameter in layer.named_parameters(recurse=False):
                if isinstance(layer, nn.modules.batchnorm._NormBase):
                    values = torch.full(parameter.shape, float(key == "weight"))
                elif self.init == "normal":
                    values = NORMAL_STD * torch.randn(parameter.shape, generator=generator)
                else:
                    values = self.draw(layer, key, generator)
                pieces.append(values.flatten())
        return torch.cat(pieces)

    def draw(self, layer: nn.Module, key: str, generator: torch.Generator) -> Tensor:
        """Draw one parameter of a linear or convolution layer for init = uniform: PyTorch's own distribution."""
        bound = 1 / math.sqrt(layer.get_parameter("weight")[0].numel())  # fan-in: inputs of one output
        return bound * (2 * torch.rand(layer.get_parameter(key).shape, generator=generator) - 1)


OPTIMIZEES = Registry[Optimizee]("optimizee", "engine.tasks.optimizees")


def dropped(x: Tensor, noise: Tensor | None, rate: float) -> Tensor:
    """Dropout of x, shape [D, K], by the mask `noise >= rate`; unchanged where there is no noise or no rate."""
    if noise is None or rate == 0 or noise.shape[-1] == 0:
        return x
    return x * (noise >= rate).to(x.dtype) / (1 - rate)
