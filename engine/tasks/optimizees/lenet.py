"""LeNet: two convolutions and two linear layers, as in Xiong & Hsieh (ECCV 2022, official code)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from engine.base.settings import setting
from engine.tasks.optimizees.base import ACTIVATION_HELP, ACTIVATIONS, OPTIMIZEES, Optimizee, dropped

HIDDEN = 50
SMALLEST = 16  # pixels of height or width that two 5x5 convolutions without padding, each pooled, leave something of


class ConvolutionsAndPools(nn.Module):
    """Convolutions 5x5 of 10 and 20 channels, each max-pooled 2x2; 50 units with dropout; the output."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int, dropout: float, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        channels, *size = input_shape
        padding = 0 if min(size) >= SMALLEST else 2
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
