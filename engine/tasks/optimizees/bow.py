"""Bag of words: the mean embedding of a sentence's words, and a linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from engine.base.settings import setting
from engine.tasks.optimizees.base import OPTIMIZEES, Optimizee
from engine.tasks.optimizees.words import mean_over_words


class BagOfWords(nn.Module):
    """The mean of the embeddings of what is not padding, then the output."""

    def __init__(self, vocabulary: int, width: int, outputs: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.output = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(mean_over_words(self.words(x), x))


@OPTIMIZEES.register("bow")
class BOW(Optimizee):
    """fastText's classifier without n-grams (Joulin et al. 2017, arXiv:1607.01759)."""

    form = "tokens"

    width: int = setting(32, minimum=1, maximum=65_536, help="numbers for each word")

    def build(self, input_shape: tuple[int, ...], outputs: int, vocabulary: int = 0) -> nn.Module:
        return BagOfWords(vocabulary, self.width, outputs)
