"""Networks for sentences, in which token 0 is padding: a bag of words, and an LSTM over them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.base.settings import setting
from engine.tasks.optimizees.base import OPTIMIZEES, Optimizee

PADDING = 0


def is_word(x: Tensor) -> Tensor:
    """Where tokens, [D, L], are no padding."""
    return x != PADDING


def mean_over_words(states: Tensor, x: Tensor) -> Tensor:
    """The mean of states, [D, L, W], over the places where tokens, [D, L], are no padding: [D, W]; 0 where none are."""
    weight = is_word(x).to(states.dtype)
    return (states * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).clamp_min(1.0)


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


class SentenceLSTM(nn.Module):
    """Embeddings, one LSTM layer, its states pooled, and the output. Where padding is, the state rests.

    Gates are in the order of nn.LSTM (input, forget, cell, output), whose equations these are; its two biases are one.
    Written out, for its own kernel has no second derivative, and none under vmap.
    """

    def __init__(self, vocabulary: int, width: int, units: int, outputs: int, pooling: str) -> None:
        super().__init__()
        self.units, self.pooling = units, pooling
        self.words = nn.Embedding(vocabulary, width)
        self.input = nn.Linear(width, 4 * units)
        self.hidden = nn.Linear(units, 4 * units, bias=False)
        self.output = nn.Linear(units, outputs)

    def forward(self, x: Tensor) -> Tensor:
        inputs, present = self.input(self.words(x)), is_word(x)[..., None]  # [D, L, 4 units], [D, L, 1]
        h = c = inputs.new_zeros(len(x), self.units)
        states = []
        for position in range(x.shape[1]):
            enter, forget, cell, leave = (inputs[:, position] + self.hidden(h)).chunk(4, -1)
            moved = forget.sigmoid() * c + enter.sigmoid() * cell.tanh()
            c, h = (
                torch.where(present[:, position], after, before)
                for after, before in ((moved, c), (leave.sigmoid() * moved.tanh(), h))
            )
            states.append(h)
        return self.output(h if self.pooling == "last" else mean_over_words(torch.stack(states, 1), x))


@OPTIMIZEES.register("lstm-classifier")
class LSTMClassifier(Optimizee):
    """One layer (Hochreiter and Schmidhuber 1997, with the forget gates of Gers et al. 2000)."""

    form = "tokens"

    width: int = setting(32, minimum=1, maximum=65_536, help="numbers for each word")
    units: int = setting(32, minimum=1, maximum=65_536, help="hidden units of the LSTM")
    pooling: str = setting(
        "mean", choices=("mean", "last"), help="which hidden state is classified: mean, or last word's"
    )

    def build(self, input_shape: tuple[int, ...], outputs: int, vocabulary: int = 0) -> nn.Module:
        return SentenceLSTM(vocabulary, self.width, self.units, outputs, self.pooling)
