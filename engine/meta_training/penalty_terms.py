"""PenaltyTerms: the values of one penalty along a truncation, and what of them goes back to phi."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.base.flat import Batch, BatchLoss, loss_on, side_by_side
from engine.base.metrics import penalty_share, penalty_value
from engine.base.replay import replayed
from engine.meta_training.backward import PenaltyEntry
from engine.penalties.base import GeometricPenalty, HessianPenalty, Penalty


@dataclass
class PenaltyTerms:
    """The entries of one penalty, one for each inner step at which it was taken. Shape letters: B optimizees."""

    values: list[Tensor] = field(default_factory=list)  # [B], unweighted
    counted: list[Tensor] = field(default_factory=list)  # [B]
    entries: list[PenaltyEntry] = field(default_factory=list)  # of an update penalty
    squares: list[Tensor] = field(default_factory=list)  # [2]: of the penalty's and of the loss's cotangents

    def add_geometric(self, value: Tensor, counts: Tensor, weighted: Tensor, gradient: Tensor, factor: float) -> None:
        """Book a geometric penalty: its value, [B], and beside it the weighted gradient and the loss's, [B, P]."""
        self.values.append(value)
        self.counted.append(counts)
        squares = [torch.where(counts, (slope**2).sum(-1), 0.0).sum() for slope in (weighted, gradient)]
        self.squares.append(factor**2 * torch.stack(squares))

    def add_update(self, value: Tensor, counts: Tensor, entry: PenaltyEntry) -> None:
        """Book an update penalty: its value, [B], and what is pulled back of it."""
        self.values.append(value)
        self.counted.append(counts)
        self.entries.append(entry)

    def sums(self, name: str) -> dict[str, Tensor]:
        """Sum and number of the values, [2]; of a geometric penalty also the squares whose ratio is that of its share.

        The share is the norm of the penalty's cotangents over the loss's.
        """
        if not self.values:
            return {}
        values, counted = torch.stack(self.values), torch.stack(self.counted)
        sums = {penalty_value(name).name: pair(torch.where(counted, values, 0.0).sum(), counted.sum())}
        if self.squares:
            sums[penalty_share(name).name] = torch.stack(self.squares).sum(0)
        return sums


GeometricPenaltyAt = Callable[[Tensor, Batch, Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""(theta [B, P], batch, losses [B], their gradients [B, P], number of the inner step): values [B], gradients [B, P]."""


def geometric_penalty_at(penalty: GeometricPenalty, loss: BatchLoss) -> GeometricPenaltyAt:
    """A penalty at the optimizees' points, unweighted; the number of the inner step gives random signs to those that
    want some."""

    def at(theta: Tensor, batch: Batch, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return penalty.checked_at(loss_on(loss, batch), theta, value, gradient)

    if not isinstance(penalty, HessianPenalty):
        at_each, owner = side_by_side(at), getattr(loss, "__self__", None)
        return lambda theta, batch, value, gradient, inner_step: replayed(
            owner, penalty, at_each, theta, batch, value, gradient
        )
    signs, along = penalty.signs, penalty.along
    along_each = side_by_side(lambda theta, batch, vectors: along(loss_on(loss, batch), theta, vectors))

    def with_signs(
        theta: Tensor, batch: Batch, value: Tensor, gradient: Tensor, inner_step: int
    ) -> tuple[Tensor, Tensor]:
        return along_each(theta, batch, signs(theta, inner_step).expand(len(theta), -1, -1))

    return with_signs


def pair(total: Tensor, number: Tensor | int) -> Tensor:
    """A sum and what it is to be divided by, [2]."""
    # filled in on the device: a number that comes from the host is waited for
    return torch.stack([total, number.to(total) if isinstance(number, Tensor) else torch.full_like(total, number)])


def usable(penalty: Penalty, loss: Tensor, counts: Tensor) -> Tensor:
    """Where the penalty can be taken, [B]: a loss of 0 cannot be divided by."""
    return counts & (loss > 0) if penalty.relative else counts


def divisor(penalty: Penalty, loss: Tensor, usable: Tensor) -> Tensor | float:
    """What the penalty is divided by, [B]; 1 where it does not count, so that no NaN enters a graph."""
    return torch.where(usable, loss, 1.0) if penalty.relative else 1.0
