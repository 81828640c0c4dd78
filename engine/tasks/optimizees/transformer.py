"""What the transformers share: pre-norm blocks of attention and a small network, their settings and their start.

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
from engine.tasks.optimizees.base import INIT_HELP, INITS, Optimizee

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


class Block(nn.Module):
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
        return nn.Sequential(*(Block(self.width, self.heads, causal) for _ in range(self.layers)))

    def draw(self, layer: nn.Module, key: str, generator: torch.Generator) -> Tensor:
        """As GPT-2 (Radford et al. 2019, section 2.3, and its code), or as `Optimizee` has it."""
        if self.init != "gpt2":
            return super().draw(layer, key, generator)
        shape = layer.get_parameter(key).shape
        if key == "bias":
            return torch.zeros(shape)
        std = GPT2_STD / math.sqrt(2 * self.layers) if isinstance(layer, Residual) else GPT2_STD
        return std * torch.randn(shape, generator=generator)
