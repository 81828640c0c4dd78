"""The norm of the parameters."""

from __future__ import annotations

from torch import Tensor

from engine.tasks.base import Task
from engine.terms.base import TERMS, Term


@TERMS.register("parameter_norm")
class ParameterNorm(Term):
    """‖θ‖₂: a control for what flatness may be bought with."""

    def measure(self, task: Task, theta: Tensor) -> Tensor:
        return theta.norm(dim=-1)
