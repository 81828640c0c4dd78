"""The loss on held-out examples."""

from __future__ import annotations

from torch import Tensor

from engine.tasks.base import Task
from engine.terms.base import TERMS, Term


@TERMS.register("validation_loss")
class ValidationLoss(Term):
    """The loss on the whole validation split (never on the test split)."""

    def measure(self, task: Task, theta: Tensor) -> Tensor:
        return task.metrics_of_each(theta, "validation")["loss"].to(theta)
