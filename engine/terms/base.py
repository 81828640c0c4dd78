"""The contract of a term: a number of trained optimizees that is part of the meta-objective beside the loss.

No derivative of it is needed: estimators without one (es, pes) take terms, back-propagation refuses them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import vmap

from engine.base.arguments import kind, refusal
from engine.base.flat import Loss
from engine.base.registry import Registry
from engine.base.settings import setting
from engine.tasks.base import Task
from engine.tasks.bounded import bounded_loss

AT_ONCE = 2**24  # parameters of all the points that are measured side by side


@dataclass(frozen=True, kw_only=True, eq=False)
class Term:
    """A member gives `measure`."""

    name: ClassVar[str]

    weight: float = setting(1.0, help="factor of the term in the meta-objective")
    log: bool = setting(False, help="its logarithm counts")
    start: int = setting(0, minimum=0, help="meta-epoch from which the term counts; before it is not measured")
    at: float = setting(
        0.0,
        minimum=0.0,
        help="the training loss, smoothed, at which it is measured: at matched loss; 0: at the end of the unroll",
    )

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" not in vars(cls):
            cls.name = cls.__name__.lower()  # unless it is registered by another

    def measure(self, task: Task, theta: Tensor) -> Tensor:
        """The number for each of the points theta, [N, P]: [N]. Less is better."""
        raise NotImplementedError

    def value(self, task: Task, theta: Tensor) -> Tensor:
        """What counts of it, unweighted, [N]; not finite where it cannot be measured."""
        measured = self.measure(task, theta)
        if getattr(measured, "shape", None) != theta.shape[:1]:
            raise refusal(f"what {self.name} measures", f"a number for each point, [{len(theta)}]", kind(measured))
        return measured.log() if self.log else measured


TERMS = Registry[Term]("term", "engine.terms", Term)

get = TERMS.create
"""A term by name, its settings checked: `get("adaptive_sharpness", log=True)`. Raises SettingsError."""


def training_loss(task: Task, examples: int, dtype: torch.dtype) -> Loss:
    """The loss, theta [P] to a scalar, on the first `examples` training examples, always the same ones."""
    batch = task.fixed_batch(examples, dtype=dtype)
    return bounded_loss(task, batch)


def for_each(function: Any, task: Task) -> Any:
    """`function` of one point, [P], as one of many, [N, P]; as many side by side as keep memory in bounds."""
    return vmap(function, chunk_size=max(1, min(64, AT_ONCE // task.parameters)))
