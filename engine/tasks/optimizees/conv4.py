"""Four blocks of convolutions, the usual learner of few-shot learning (Vinyals et al., arXiv:1606.04080)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from engine.base.settings import setting
from engine.tasks.optimizees.base import OPTIMIZEES, Optimizee

BLOCKS = 4
EPS = 1e-3  # of batch norm, as in public code of Meta-LSTM


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
