"""Transformers: pre-norm blocks of attention and a small network, over the tokens of a text or the patches of an image.

Shape letters: D examples, L tokens or patches, W width, H heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.base.errors import PresetError, Problem
from engine.base.settings import setting
from engine.tasks.optimizees.base import INIT_HELP, INITS, OPTIMIZEES, Optimizee

GPT2_STD = 0.02
GPT2_HELP = f"gpt2: N(0, {GPT2_STD}^2), of what is added to the residual stream by 1/sqrt(2 layers), biases of 0"


class Residual(nn.Linear):
    """A linear layer whose outputs are added to the residual stream."""


class Attention(nn.Module):
    """Self-attention of several heads (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

    Written out: what torch has for it lacks second derivatives, or draws random numbers. `causal`: a token sees those
    before it and itself.
    """

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = Residual(width, width)

    def forward(self, x: Tensor) -> Tensor:
        examples, length, width = x.shape
        parts = self.query_key_value(x).view(examples, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # [D, H, L, W / H] each
        scores = (query / math.sqrt(width // self.heads)) @ key.transpose(-2, -1)
        if self.causal:
            scores = scores + torch.full((length, length), -math.inf, dtype=x.dtype, device=x.device).triu(1)
        mixed = scores.softmax(-1) @ value
        return self.output(mixed.transpose(1, 2).reshape(examples, length, width))


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + network(norm(x)), of 4 W GELU units."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width, heads, causal)
        self.network_norm, self.hidden, self.output = (
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            Residual(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.output(F.gelu(self.hidden(self.network_norm(x))))


@dataclass(frozen=True, kw_only=True, eq=False)
class Transformer(Optimizee):
    """The settings and the start of a transformer."""

    layers: int = setting(2, minimum=1, maximum=100, help="blocks of attention and a small network")
    heads: int = setting(2, minimum=1, maximum=256, help="heads of attention; they share the width evenly")
    width: int = setting(32, minimum=1, maximum=65_536, help="numbers for each token or patch")
    init: str = setting("gpt2", choices=(*INITS, "gpt2"), help=f"{INIT_HELP}; {GPT2_HELP}")

    def blocks(self, causal: bool) -> nn.Sequential:
        """Raises PresetError where the width cannot be shared among the heads."""
        if self.width % self.heads:
            raise PresetError(
                [Problem("task.heads", str(self.heads), f"a divisor of task.width, which is {self.width}")]
            )
        return nn.Sequential(*(TransformerBlock(self.width, self.heads, causal) for _ in range(self.layers)))

    def draw(self, layer: nn.Module, key: str, generator: torch.Generator) -> Tensor:
        """As GPT-2 (Radford et al. 2019, section 2.3, and its code), or as `Optimizee` has it."""
        if self.init != "gpt2":
            return super().draw(layer, key, generator)
        shape = layer.get_parameter(key).shape
        if key == "bias":
            return torch.zeros(shape)
        std = GPT2_STD / math.sqrt(2 * self.layers) if isinstance(layer, Residual) else GPT2_STD
        return std * torch.randn(shape, generator=generator)


class CausalTransformer(nn.Module):
    """Embeddings of token and position, blocks, a norm, and a matrix that gives the logits of the next token."""

    def __init__(self, vocabulary: int, length: int, width: int, blocks: nn.Module, tied: bool) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks, self.norm = blocks, nn.LayerNorm(width)
        self.output = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.output.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        """[D, L], of no more than `length` tokens, to [D, L, vocabulary]."""
        x = self.tokens(x) + self.positions.weight[: x.shape[1]]
        return self.output(self.norm(self.blocks(x)))


@OPTIMIZEES.register("gpt")
class GPT(Transformer):
    """A causal transformer that tells the next token at every place of a text (Radford et al. 2019).

    31,424 parameters on shakespeare-excerpt by default; no dropout.
    """

    form = "text"

    tied: bool = setting(False, help="let the embedding of tokens be the matrix of the logits, too")

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        (length,) = input_shape
        return CausalTransformer(outputs, length, self.width, self.blocks(causal=True), self.tied)


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
    """A transformer over the patches of an image (Dosovitskiy et al. 2021, arXiv:2010.11929).

    27,914 parameters on MNIST by default, 29,418 on CIFAR-10; no dropout.
    """

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
