"""Criterion: what an optimizee's outputs are judged by: its loss, and the other metrics of a task.

Shape letters: D examples, O outputs, L tokens of a text, V different ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor
from torch.func import vmap
from torch.nn import functional as F

from engine.base.arguments import kind, refusal
from engine.base.metrics import TASK_METRICS, Metric

FEW_CLASSES = 32

Scores = dict[str, Tensor]
MeanLoss = Callable[[Tensor, Tensor], Tensor]
"""Outputs and targets of D examples to their mean loss, a scalar: any loss of torch.nn.functional."""


class Criterion:
    """A member gives `loss`, `scores` and the metrics among these, `measured`."""

    measured: tuple[Metric, ...] = (TASK_METRICS["loss"],)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of D examples, a scalar."""
        raise NotImplementedError

    def scores(self, outputs: Tensor, targets: Tensor) -> Scores:
        """What each example scores, [D], by name; "loss" is among them. Their means go to `summary`."""
        raise NotImplementedError

    def summary(self, means: Scores) -> Scores:
        """The metrics, of the scores' means over a whole split: these themselves, unless a member says otherwise."""
        return means


class CrossEntropy(Criterion):
    """Classes: logits [D, O] against labels [D], int64."""

    measured = (TASK_METRICS["loss"], TASK_METRICS["accuracy"])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropies(outputs, targets).mean()

    def scores(self, outputs: Tensor, targets: Tensor) -> Scores:
        accuracy = (outputs.argmax(-1) == targets).to(outputs.dtype)
        return {"loss": cross_entropies(outputs, targets), "accuracy": accuracy}


def cross_entropies(outputs: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy of each example, [D], for logits [D, O] and labels [D], int64.

    Of few classes with these first: over a last dimension so short a CPU's log_softmax takes eight times as long.
    """
    if outputs.shape[-1] > FEW_CLASSES:
        return F.cross_entropy(outputs, targets, reduction="none")
    return -F.log_softmax(outputs.mT, -2).gather(-2, targets[None]).squeeze(-2)


class SquaredError(Criterion):
    """Numbers: outputs [D, O] against targets [D] or [D, O]; the loss is their mean squared difference."""

    measured: tuple[Metric, ...] = (
        TASK_METRICS["loss"],
        Metric("absolute_error", "mean absolute error", better="lower", kind="task"),
    )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs, targets.view_as(outputs))

    def scores(self, outputs: Tensor, targets: Tensor) -> Scores:
        difference = (outputs - targets.view_as(outputs)).flatten(1)
        return {"loss": difference.square().mean(1), "absolute_error": difference.abs().mean(1)}


class NextToken(Criterion):
    """The next token at every place of a text: logits [D, L, V] against tokens [D, L], int64.

    The loss is the mean cross-entropy of a token, in nats; perplexity is its exponential, over a whole split, and bits
    per character it over ln 2, where tokens are characters or bytes.
    """

    def __init__(self, *, characters: bool = True) -> None:
        bits = (TASK_METRICS["bits_per_character"],) if characters else ()
        self.measured = (TASK_METRICS["loss"], *bits, TASK_METRICS["perplexity"], TASK_METRICS["accuracy"])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    def scores(self, outputs: Tensor, targets: Tensor) -> Scores:
        losses = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
        hits = (outputs.argmax(-1) == targets).to(outputs.dtype)
        return {"loss": losses.mean(1), "accuracy": hits.mean(1)}

    def summary(self, means: Scores) -> Scores:
        loss = means["loss"]
        derived = {"loss": loss, "bits_per_character": loss / math.log(2), "perplexity": loss.exp()} | means
        return {metric.name: derived[metric.name] for metric in self.measured}


class Regression(SquaredError):
    """One number for each example; measured beside is R², the part of the numbers' variance that is explained."""

    measured = (*SquaredError.measured, Metric("r2", "R², explained variance", better="higher", kind="task"))

    def scores(self, outputs: Tensor, targets: Tensor) -> Scores:
        numbers = targets.view_as(outputs).flatten(1).mean(1)
        return {**super().scores(outputs, targets), "number": numbers, "square": numbers.square()}

    def summary(self, means: Scores) -> Scores:
        variance = means["square"] - means["number"].square()
        explained = {"r2": 1 - means["loss"] / variance}
        return {metric.name: {**means, **explained}[metric.name] for metric in self.measured}


class MeanCriterion(Criterion):
    """A user's own function of outputs and targets that is a mean over examples, and others to be measured beside."""

    def __init__(self, loss: MeanLoss, metrics: Mapping[Metric, MeanLoss] | None = None) -> None:
        if not isinstance(metrics or {}, Mapping) or not all(isinstance(metric, Metric) for metric in metrics or ()):
            raise refusal("metrics", "functions of outputs and targets by engine.Metric", kind(metrics))
        self.measured = (TASK_METRICS["loss"], *(metrics or {}))
        functions = (loss, *(metrics or {}).values())
        self._functions = {metric.name: function for metric, function in zip(self.measured, functions, strict=True)}
        if len(self._functions) < len(functions):
            raise refusal("metrics", "of other names than loss, each once", ", ".join(m.name for m in metrics or ()))
        for name, function in self._functions.items():
            if not callable(function):
                raise refusal(name, "a function of outputs and targets", kind(function))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._functions["loss"](outputs, targets)

    def scores(self, outputs: Tensor, targets: Tensor) -> Scores:
        def alone(function: MeanLoss) -> Callable[[Tensor, Tensor], Tensor]:
            return vmap(lambda output, target: function(output[None], target[None]))

        return {name: alone(function)(outputs, targets) for name, function in self._functions.items()}
