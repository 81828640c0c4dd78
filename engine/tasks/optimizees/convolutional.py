"""Convolutional networks: LeNet and conv3 of Xiong & Hsieh (ECCV 2022, official code); conv4 of few-shot learning."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from engine.base.settings import setting
from engine.tasks.optimizees.base import ACTIVATION_HELP, ACTIVATIONS, OPTIMIZEES, Optimizee, dropped

HIDDEN = 50  # units of LeNet
CHANNELS = 32  # of conv3
# pixels of height or width that convolutions without padding, and their pooling, leave something of
SMALLEST_LENET, SMALLEST_CONV3 = 16, 19
BLOCKS = 4  # of conv4
EPS = 1e-3  # of its batch norm, as in public code of Meta-LSTM


class ConvolutionsAndPools(nn.Module):
    """Convolutions 5x5 of 10 and 20 channels, each max-pooled 2x2; 50 units with dropout; the output."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int, dropout: float, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        channels, *size = input_shape
        padding = 0 if min(size) >= SMALLEST_LENET else 2
        self.first = nn.Conv2d(channels, 10, 5, padding=padding)
        self.second = nn.Conv2d(10, 20, 5, padding=padding)
        for _ in range(2):
            size = [(pixels + 2 * padding - 4) // 2 for pixels in size]
        self.hidden = nn.Linear(20 * size[0] * size[1], HIDDEN)
        self.output = nn.Linear(HIDDEN, outputs)
        self.dropout = dropout

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        x = self.activation(F.max_pool2d(self.first(x), 2))
        x = self.activation(F.max_pool2d(self.second(x), 2))
        x = self.activation(self.hidden(x.flatten(1)))
        return self.output(dropped(x, noise, self.dropout))


@OPTIMIZEES.register("lenet")
class LeNet(Optimizee):
    """21,840 parameters on MNIST. Images below 16 pixels are padded by 2 in both convolutions."""

    form = "numbers"

    dropout: float = setting(
        0.0, minimum=0.0, maximum=0.9, help="part of the 50 hidden units that is dropped; paper: 0.5"
    )

    activation: str = setting("relu", choices=ACTIVATIONS, help=ACTIVATION_HELP)

    @property
    def noise_size(self) -> int:
        return HIDDEN if self.dropout > 0 else 0

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        return ConvolutionsAndPools(input_shape, outputs, self.dropout, self.activation)


class ThreeConvolutions(nn.Module):
    """Convolutions 3x3 with strides 2, 2, 1, average pooling 2x2, one linear layer."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        channels, *size = input_shape
        padding = 0 if min(size) >= SMALLEST_CONV3 else 1
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, CHANNELS, 3, stride, padding)
            for inputs, stride in ((channels, 2), (CHANNELS, 2), (CHANNELS, 1))
        )
        for stride in (2, 2, 1):
            size = [(pixels + 2 * padding - 3) // stride + 1 for pixels in size]
        self.output = nn.Linear(CHANNELS * (size[0] // 2) * (size[1] // 2), outputs)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        for convolution in self.convolutions:
            x = self.activation(convolution(x))
        return self.output(F.avg_pool2d(x, 2).flatten(1))


@OPTIMIZEES.register("conv3")
class Conv3(Optimizee):
    """20,682 parameters on CIFAR-10. Images below 19 pixels are padded by 1 in every convolution."""

    form = "numbers"

    activation: str = setting("relu", choices=ACTIVATIONS, help=ACTIVATION_HELP)

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        return ThreeConvolutions(input_shape, outputs, self.activation)


@OPTIMIZEES.register("cnn")
class CNN(Conv3):
    """The CNN of "Learning Regularizers", whose text does not state its layers: conv3 stands in for it."""


class FourBlocks(nn.Module):
    """Blocks of a convolution 3x3, batch norm, ReLU and max-pooling 2x2; one linear layer."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int, filters: int) -> None:
        super().__init__()
        channels, *size = input_shape
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, filters, 3, padding=1) for inputs in (channels, *[filters] * (BLOCKS - 1))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(filters, EPS, track_running_stats=False) for _ in range(BLOCKS))
        self.pools = 0
        while self.pools < BLOCKS and min(size) >= 2:  # where nothing would be left, none
            size = [pixels // 2 for pixels in size]
            self.pools += 1
        self.output = nn.Linear(filters * size[0] * size[1], outputs)

    def features(self, x: Tensor) -> Tensor:
        """What the linear layer is given, [D, F]."""
        for block, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = F.relu(norm(convolution(x)))
            if block < self.pools:
                x = F.max_pool2d(x, 2)
        return x.flatten(1)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.output(self.features(x))


@OPTIMIZEES.register("conv4")
class Conv4(Optimizee):
    """28,485 parameters for 5 classes of Omniglot at 28 pixels, 32,901 for mini-ImageNet at 84.

    The loss of an example depends on its batch, through batch norm. Small images are pooled less: 8x8 three times.
    """

    form = "numbers"

    filters: int = setting(32, minimum=1, maximum=1024, help="of each convolution; 64 for the backbone of SIB")

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        return FourBlocks(input_shape, outputs, self.filters)
