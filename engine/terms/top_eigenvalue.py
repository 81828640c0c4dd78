"""The top eigenvalue of the loss's Hessian."""

from __future__ import annotations

from torch import Tensor

from engine.base.settings import setting
from engine.probes.landscape import landscapes
from engine.tasks.base import Task
from engine.terms.base import TERMS, Term, training_loss


@TERMS.register("top_eigenvalue")
class TopEigenvalue(Term):
    """The largest eigenvalue of the Hessian, by Lanczos."""

    examples: int = setting(1000, minimum=1, help="training examples that it is measured on")
    iterations: int = setting(20, minimum=2, maximum=1000, help="most Hessian-vector products of the search")

    def measure(self, task: Task, theta: Tensor) -> Tensor:
        loss = training_loss(task, self.examples, theta.dtype)
        lands = landscapes(loss, theta, iterations=self.iterations)
        return theta.new_tensor([value for land in lands for value in land.eigenpair[0].tolist()])
