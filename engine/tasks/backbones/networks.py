"""Feature networks for few-shot learning: modules with running statistics in batch norm, which optimizees cannot have.

Shape letters: D images, C channels, H and W pixels, F features.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = 4
FILTERS = 64
DEPTH, WIDENING = 28, 10
BASE_WIDTH = 16  # channels before the first group of a wide residual network


class Backbone(nn.Module):
    """Images, [D, C, H, W], to features, [D, F]; in evaluation mode those of an image do not depend on the others."""

    features: int  # F


class FourConvolutions(Backbone):
    """Four blocks of a convolution 3x3, batch norm, ReLU and max-pooling 2x2 (Snell et al., arXiv:1703.05175).

    Images that are too small for four poolings have fewer.
    """

    def __init__(self, input_shape: tuple[int, ...], filters: int = FILTERS) -> None:
        super().__init__()
        channels, *size = input_shape
        layers: list[nn.Module] = []
        for inputs in (channels, *[filters] * (BLOCKS - 1)):
            layers += [nn.Conv2d(inputs, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()]
            if min(size) >= 2:
                layers.append(nn.MaxPool2d(2))
                size = [pixels // 2 for pixels in size]
        self.layers = nn.Sequential(*layers)
        self.features = filters * size[0] * size[1]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).flatten(1)


class WideBlock(nn.Module):
    """Batch norm and ReLU before each of two convolutions 3x3, and the way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.convolution1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.convolution2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.around = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        entered = F.relu(self.norm1(x))
        y = self.convolution2(F.relu(self.norm2(self.convolution1(entered))))
        return y + (x if self.around is None else self.around(entered))


class WideResNet(Backbone):
    """Three groups of blocks at strides 1, 2, 2, and the mean over pixels (Zagoruyko & Komodakis, arXiv:1605.07146)."""

    def __init__(self, input_shape: tuple[int, ...], depth: int = DEPTH, widening: int = WIDENING) -> None:
        super().__init__()
        width, blocks = BASE_WIDTH, (depth - 4) // 6
        layers: list[nn.Module] = [nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False)]
        for group in range(3):
            for block in range(blocks):
                outputs = BASE_WIDTH * widening * 2**group
                layers.append(WideBlock(width, outputs, 2 if group and not block else 1))
                width = outputs
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU())
        self.features = width

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean((2, 3))


BACKBONES: dict[str, Callable[[tuple[int, ...]], Backbone]] = {
    "conv4-64": FourConvolutions,
    "wrn-28-10": WideResNet,
}
