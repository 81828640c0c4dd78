"""A convolutional autoencoder: images in, the same images out, through a narrow code."""

from __future__ import annotations

from torch import Tensor, nn

from engine.base.settings import setting
from engine.tasks.criteria import Criterion, SquaredError
from engine.tasks.optimizees.base import ACTIVATION_HELP, ACTIVATIONS, OPTIMIZEES, Optimizee


class ConvolutionsAndBack(nn.Module):
    """Two convolutions 3x3 of stride 2 and a linear layer to the code, and the same way back."""

    def __init__(self, input_shape: tuple[int, ...], width: int, code: int, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        channels, *size = input_shape
        half = [(pixels + 1) // 2 for pixels in size]
        quarter = [(pixels + 1) // 2 for pixels in half]
        self.shape = (2 * width, *quarter)
        numbers = 2 * width * quarter[0] * quarter[1]
        self.first = nn.Conv2d(channels, width, 3, 2, 1)
        self.second = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.encode, self.decode = nn.Linear(numbers, code), nn.Linear(code, numbers)
        self.third = nn.ConvTranspose2d(2 * width, width, 3, 2, 1, _lacking(quarter, half))
        self.fourth = nn.ConvTranspose2d(width, channels, 3, 2, 1, _lacking(half, size))

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        act = self.activation
        x = act(self.second(act(self.first(x))))
        x = act(self.decode(act(self.encode(x.flatten(1)))))
        return self.fourth(act(self.third(x.unflatten(1, self.shape)))).flatten(1)


def _lacking(small: list[int], large: list[int]) -> tuple[int, int]:
    """Pixels that a transposed convolution of stride 2 leaves out where the larger size is even."""
    return large[0] - (2 * small[0] - 1), large[1] - (2 * small[1] - 1)


@OPTIMIZEES.register("autoencoder")
class Autoencoder(Optimizee):
    """Learns its inputs by the mean squared error, whatever the dataset's targets are (Hinton and Salakhutdinov 2006).

    28,369 parameters on MNIST with the default width and code. The error is in units of the inputs (`normalize`).
    """

    form = "numbers"

    width: int = setting(
        8, minimum=1, maximum=1024, help="channels of the first convolution; the second has twice as many"
    )
    code: int = setting(16, minimum=1, maximum=65_536, help="numbers that an image is reduced to")
    activation: str = setting("relu", choices=ACTIVATIONS, help=ACTIVATION_HELP)

    @property
    def criterion(self) -> Criterion:
        return SquaredError()

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        if len(input_shape) != 3:
            raise ValueError("images alone: it gives back what it is shown")
        return ConvolutionsAndBack(input_shape, self.width, self.code, self.activation)
