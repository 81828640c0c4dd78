"""The inner steps of a truncation: what they are given, where they start from, and what they do one after another.

Shapes: B optimizees, P parameters, T inner steps of the truncation, M particles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.base.flat import Batch, gradients_and_losses, prefixed, under
from engine.meta_training.backward import sound
from engine.meta_training.objective import Objective
from engine.meta_training.penalty_terms import geometric_penalty_at
from engine.optimizers.learned.base import State
from engine.penalties.base import Randomness
from engine.tasks.base import Batches


class Inputs(NamedTuple):
    """Everything but phi and where the optimizees are. T inner steps."""

    batches: Batches  # T, that feed the inner steps
    factors: Sequence[float]  # T, the weights of their losses
    randomness: Randomness = ()  # for the penalties, of each optimizee
    scoring: Batches | None = None  # T, of loss_batch = validation
    ends: bool = True  # whether the unroll ends with this truncation
    meta_epoch: int = 0  # the unroll's number: terms may count from one on
    final: Batches | None = None  # that the loss at the unroll's end is measured on
    noise_seeds: Sequence[int] = (0,)  # of the perturbations of phi in this unroll, this truncation's last


@dataclass(frozen=True, kw_only=True)
class UnrollState:
    """What goes from one truncation to the next: constants."""

    theta: Tensor  # [B, P]
    state: State
    grad: Tensor  # [B, P], at theta, on the batch that feeds the next inner step (loss_batch = next)
    loss: Tensor  # [B], likewise
    first_loss: Tensor  # [B], infinite until it is known
    alive: Tensor  # [B], False from where the unroll diverged
    inner_step: int = 0
    truncations: int = 0
    scaling: Tensor | None = None  # [B, P], random coordinate scaling
    horizon: int | None = None  # inner steps that the unroll is to have, where that is known
    batch: Batch | None = None  # that grad is of, where the unroll has just begun

    def tensors(self) -> dict[str, Tensor]:
        """All of it that is tensors, by name, for a checkpoint: [B, ...], or without dimensions."""
        names = ("theta", "grad", "loss", "first_loss", "alive")
        tensors = {name: getattr(self, name) for name in names} | prefixed("state", self.state)
        return tensors if self.scaling is None else tensors | {"scaling": self.scaling}

    def facts(self) -> dict[str, Any]:
        """What else there is, as JSON can hold it, beside `inner_step`, `truncations` and the horizon."""
        return {}

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> UnrollState:
        """From `tensors` and the rest as `facts`. Raises KeyError where something is missing."""
        return cls(
            theta=tensors["theta"],
            state=under("state", tensors),
            grad=tensors["grad"],
            loss=tensors.get("loss", tensors["first_loss"]),  # checkpoints of before it was kept: nobody used it
            first_loss=tensors["first_loss"],
            alive=tensors["alive"],
            inner_step=facts["inner_step"],
            truncations=facts["truncations"],
            scaling=tensors.get("scaling"),
            horizon=facts.get("horizon"),
        )


class InnerSteps:
    """The inner steps of a truncation: what back-propagation and the particles of evolution strategies share.

    A member gives `move` and `score`. Shapes are those of one particle; of M particles [M, B] and [M, B, P].
    """

    def __init__(self, objective: Objective, carry: UnrollState, inputs: Inputs) -> None:
        self.objective, self.start, self.inputs = objective, carry, inputs
        self.theta, self.grad, self.loss = carry.theta, carry.grad, carry.loss
        self.first_loss, self.alive = carry.first_loss, carry.alive
        self.dropped, self.counted = torch.zeros_like(carry.first_loss), torch.zeros_like(carry.first_loss)
        self.penalty_at = {
            name: geometric_penalty_at(penalty, objective.loss) for name, penalty in objective.geometric.items()
        }
        self.taken = 0

    @property
    def number(self) -> int:
        """The inner step's number in the unroll, from 0."""
        return self.start.inner_step + self.taken

    def run(self) -> None:
        """Take all inner steps."""
        batches, scoring = self.inputs.batches, self.inputs.scoring
        for index, factor in enumerate(self.inputs.factors):
            self.inner_step(batches[index], scoring[index] if scoring is not None else None, factor)
            self.taken += 1

    def inner_step(self, batch: Batch, scoring: Batch | None, factor: float) -> None:
        loss_batch = self.objective.loss_batch
        if loss_batch != "next":
            self.grad, self.loss = self.slopes(batch, feeds=True)
            self.alive = self.alive & sound(self.grad, self.loss)  # before anything broken gets into the state
            if self.number == 0:
                self.first_loss = self.loss
        step = self.move(factor)
        scored_on = scoring if loss_batch == "validation" else batch
        gradient, loss = self.slopes(scored_on, feeds=loss_batch == "next")
        if loss_batch == "next":
            self.grad, self.loss = gradient, loss
        self.score(gradient, loss, scored_on, factor, step)

    def slopes(self, batch: Batch, *, feeds: bool) -> tuple[Tensor, Tensor]:
        """The gradient, [B, P], and the loss, [B], at theta; `feeds`: for the next update."""
        return gradients_and_losses(self.objective.loss, self.theta, batch)

    def move(self, factor: float) -> Any:
        """Move theta by one update of the learned optimizer; a diverged optimizee rests. What `score` is to know."""
        raise NotImplementedError

    def score(self, gradient: Tensor, loss: Tensor, batch: Batch, factor: float, step: Any) -> None:
        """Book this inner step's terms, on the batch that scores the new theta."""
        raise NotImplementedError
