"""GPT: a causal transformer that tells the next token at every place of a text (Radford et al. 2019)."""

from __future__ import annotations

from torch import Tensor, nn

from engine.base.settings import setting
from engine.tasks.optimizees.base import OPTIMIZEES
from engine.tasks.optimizees.transformer import Transformer


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
    """31,424 parameters on shakespeare-excerpt by default; no dropout."""

    form = "text"

    tied: bool = setting(False, help="let the embedding of tokens be the matrix of the logits, too")

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        (length,) = input_shape
        return CausalTransformer(outputs, length, self.width, self.blocks(causal=True), self.tied)
