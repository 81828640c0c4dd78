"""ViT: a transformer over the patches of an image (Dosovitskiy et al. 2021, arXiv:2010.11929)."""

from __future__ import annotations

from torch import Tensor, nn

from engine.base.errors import PresetError, Problem
from engine.base.settings import setting
from engine.tasks.optimizees.base import OPTIMIZEES
from engine.tasks.optimizees.transformer import Transformer


class PatchTransformer(nn.Module):
    """A linear layer for each patch, embeddings of their positions, blocks, a norm, the mean over patches, the output.

    The mean in place of a class token, as in Beyer et al. 2022 (arXiv:2205.01580).
    """

    def __init__(self, input_shape: tuple[int, ...], patch: int, width: int, blocks: nn.Module, outputs: int) -> None:
        super().__init__()
        channels, height, columns = input_shape
        self.patch = patch
        self.patches = nn.Linear(channels * patch * patch, width)
        self.positions = nn.Embedding((height // patch) * (columns // patch), width)
        self.blocks, self.norm = blocks, nn.LayerNorm(width)
        self.output = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        examples, channels, height, columns = x.shape
        size = self.patch
        x = x.reshape(examples, channels, height // size, size, columns // size, size)
        x = self.patches(x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2))  # [D, L, W]
        return self.output(self.norm(self.blocks(x + self.positions.weight)).mean(1))


@OPTIMIZEES.register("vit")
class ViT(Transformer):
    """27,914 parameters on MNIST by default, 29,418 on CIFAR-10; no dropout."""

    form = "numbers"

    patch: int = setting(
        4, minimum=1, maximum=1024, help="pixels of a patch's height and width, a divisor of the image's"
    )

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        _, height, columns = input_shape
        if height % self.patch or columns % self.patch:
            allowed = f"a divisor of the height and width of images, {height}x{columns}"
            raise PresetError([Problem("task.patch", str(self.patch), allowed)])
        return PatchTransformer(input_shape, self.patch, self.width, self.blocks(causal=False), outputs)
