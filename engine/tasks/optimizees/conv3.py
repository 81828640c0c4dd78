"""Three convolutions, for colour images: the CNN of Xiong & Hsieh (ECCV 2022, official code)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from engine.base.settings import setting
from engine.tasks.optimizees.base import ACTIVATION_HELP, ACTIVATIONS, OPTIMIZEES, Optimizee

CHANNELS = 32
SMALLEST = 19  # pixels of height or width that three convolutions without padding and the pooling leave something of


class ThreeConvolutions(nn.Module):
    """Convolutions 3x3 with strides 2, 2, 1, average pooling 2x2, one linear layer."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        channels, *size = input_shape
        padding = 0 if min(size) >= SMALLEST else 1
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
