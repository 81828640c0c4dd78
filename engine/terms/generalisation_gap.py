"""The generalisation gap."""

from __future__ import annotations

from torch import Tensor

from engine.base.settings import setting
from engine.tasks.base import Task
from engine.terms.base import TERMS, Term, for_each, training_loss


@TERMS.register("generalisation_gap")
class GeneralisationGap(Term):
    """The loss on the validation split minus the loss on training examples. Negative where there is luck: no log."""

    examples: int = setting(10_000, minimum=1, help="training examples that the training loss is measured on")

    def measure(self, task: Task, theta: Tensor) -> Tensor:
        training = for_each(training_loss(task, self.examples, theta.dtype), task)(theta)
        return task.metrics_of_each(theta, "validation")["loss"].to(theta) - training
