"""What a step has to know of all gradients together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.export.torch_optim.state import precision
from engine.optimizers.learned import sparse_rows, step_scale
from engine.optimizers.learned.base import LearnedOptimizer
from engine.tasks.base import Layout

LARGEST = {torch.float32: 1e15, torch.float64: 1e140}
"""Gradients beyond are taken for this: the squares of some hundred millions of them still have a finite sum."""


@dataclass
class Share:
    """A parameter that takes part in a step."""

    parameter: Tensor
    label: str
    flat: Tensor  # [n]: the parameter itself, or a copy that is to be brought back
    grad: Tensor  # [n], in its own type
    factor: float  # of the update
    decay: float  # of the parameter
    moving: Tensor | None = None  # [n]: what of an embedding got a gradient; None: all
    peak: float = 0.0  # no less than the largest size of a gradient here
    scalars: tuple[float, ...] = ()  # what the state shares among the coordinates

    def __post_init__(self) -> None:
        self.dtype = precision(self.parameter)

    @property
    def limit(self) -> float | None:
        """What the gradient is clamped to."""
        return LARGEST[self.dtype] if self.peak > LARGEST[self.dtype] else None

    def gradient(self, first: int, after: int) -> Tensor:
        """Part of the gradient in the precision of the step."""
        part = self.grad if after - first == self.grad.numel() else self.grad[first:after]
        part = part.to(self.dtype)
        return part if self.limit is None else part.clamp(-self.limit, self.limit)


@dataclass(frozen=True)
class GradientSummary:
    """Of all gradients."""

    broken: str  # label of a parameter whose gradient is not finite; empty if there is none
    zero: bool
    mean_square: Tensor | None  # [1]


def summarized(shares: Sequence[Share], *, mean_square: bool) -> GradientSummary:
    """Note every share's peak; find out whether gradients are finite, and what their mean square is if asked for."""
    held = [share for share in shares if share.grad.numel()]
    _note_peaks(held)
    broken = next((share.label for share in held if not share.peak < torch.inf), "")
    mean = _mean_square(held) if mean_square and held and not broken else None
    return GradientSummary(broken, not any(share.peak for share in held), mean)


def _note_peaks(shares: Sequence[Share]) -> None:
    """A sum of squares is a bound, and fast; the largest size itself is looked for where the bound does not do."""
    squares = on_host([torch.dot(share.grad, share.grad) for share in shares])
    for share, square in zip(shares, squares, strict=True):
        share.peak = math.sqrt(square)
    unsure = [share for share in shares if not 0 < share.peak <= LARGEST[share.dtype]]
    peaks = on_host([torch.linalg.vector_norm(share.grad, torch.inf) for share in unsure])
    for share, peak in zip(unsure, peaks, strict=True):
        share.peak = peak


def _mean_square(shares: Sequence[Share]) -> Tensor:
    """As meta-training has it, over one row of all squares, if they are of one kind; else in double precision."""
    kinds = {(share.grad.device, share.dtype) for share in shares}
    if len(kinds) == 1:
        squares = torch.cat([share.gradient(0, share.grad.numel()) for share in shares])
        return squares.mul_(squares).mean(-1, keepdim=True)
    total = sum(map(_sum_of_squares, shares)) / sum(share.grad.numel() for share in shares)
    return torch.tensor([total], dtype=torch.float64)


def _sum_of_squares(share: Share) -> float:
    """In double precision, in pieces that take little memory."""
    pieces = (share.gradient(first, first + 2**20).double() for first in range(0, share.grad.numel(), 2**20))
    return float(sum(torch.dot(piece, piece).item() for piece in pieces))


def on_host(numbers: Sequence[Tensor]) -> list[float]:
    """The values of tensors of shape [], waiting once for each device and type."""
    kinds = dict.fromkeys((number.device, number.dtype) for number in numbers)
    read = {
        kind: iter(torch.stack([number for number in numbers if (number.device, number.dtype) == kind]).tolist())
        for kind in kinds
    }
    return [next(read[number.device, number.dtype]) for number in numbers]


def scale_steps(optimizer: LearnedOptimizer, shares: Sequence[Share]) -> None:
    """Multiply the shares' factors by those of their tensors."""
    if optimizer.step_scale in step_scale.BY_FAN_IN:
        layout = Layout({share.label: share.parameter.shape for share in shares})
        is_capped = optimizer.step_scale == "mup_capped"
        factors: Sequence[float] = step_scale.mup_factors(layout, optimizer.base_width, capped=is_capped)
    elif optimizer.step_scale == "rms":
        factors = on_host([step_scale.rms(share.flat.to(share.dtype)) for share in shares])
    else:
        return
    for share, factor in zip(shares, factors, strict=True):
        share.factor *= factor


def rest_rows(shares: Sequence[Share]) -> None:
    """Note of embeddings, known by their names, which rows got a gradient: the others are not moved."""
    embeddings = Layout({share.label: share.parameter.shape for share in shares}).embeddings
    for share in shares:
        if share.label in embeddings:
            grad = share.grad.view(share.parameter.shape)
            share.moving = sparse_rows.rows_with_gradient(grad).reshape(-1)
