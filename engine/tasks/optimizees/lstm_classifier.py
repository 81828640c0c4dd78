"""An LSTM over the words of a sentence, and a linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.base.settings import setting
from engine.tasks.optimizees.base import OPTIMIZEES, Optimizee
from engine.tasks.optimizees.words import is_word, mean_over_words


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
        for place in range(x.shape[1]):
            enter, forget, cell, leave = (inputs[:, place] + self.hidden(h)).chunk(4, -1)
            moved = forget.sigmoid() * c + enter.sigmoid() * cell.tanh()
            c, h = (
                torch.where(present[:, place], after, before)
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
