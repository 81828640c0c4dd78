"""ResNet-18 for small images (He et al., arXiv:1512.03385): stem of one 3x3 convolution, no max-pooling."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.tasks.optimizees.base import OPTIMIZEES, Optimizee

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # channels, stride of the first of two blocks


def convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """By the batch's own statistics, always: running ones would be memory hidden from the loss."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.first_norm = convolution(inputs, outputs, 3, stride), batch_norm(outputs)
        self.second, self.second_norm = convolution(outputs, outputs, 3, 1), batch_norm(outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else nn.Sequential(convolution(inputs, outputs, 1, stride), batch_norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """Stem, four stages of two blocks, mean over the image, linear layer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        width = STAGES[0][0]
        self.stem, self.stem_norm = convolution(channels, width, 3, 1), batch_norm(width)
        blocks = []
        for outputs, stride in STAGES:
            blocks += [BasicBlock(width, outputs, stride), BasicBlock(outputs, outputs, 1)]
            width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.output = nn.Linear(width, classes)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        return self.output(self.blocks(x).mean((2, 3)))


@OPTIMIZEES.register("resnet18")
class ResNet18(Optimizee):
    """11,173,962 parameters on CIFAR-10. The loss of an example depends on its batch, through batch norm.

    init = uniform is the usual one here: He's normal distribution for convolutions, PyTorch's for the linear layer.
    """

    form = "numbers"

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        return ResNet(input_shape[0], outputs)

    def draw(self, layer: nn.Module, key: str, generator: torch.Generator) -> Tensor:
        if not isinstance(layer, nn.Conv2d):
            return super().draw(layer, key, generator)
        fan_out = layer.out_channels * math.prod(layer.kernel_size)
        return math.sqrt(2 / fan_out) * torch.randn(layer.weight.shape, generator=generator)
