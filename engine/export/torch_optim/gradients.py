"""What a step has to know of all gradients together, over all processes that share parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.export.torch_optim.layout import CoordinateRow, is_distributed, local, precision, shape_of
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
    row: CoordinateRow
    grad: Tensor  # [n], in the row's order, in its own type
    factor: float  # of the update
    decay: float  # of the parameter
    moving: Tensor | None = None  # [n], in the row's order: what of an embedding got a gradient; None: all
    peak: float = 0.0  # no less than the largest size of a gradient here
    scalars: tuple[float, ...] = ()  # what the state shares among the coordinates

    def __post_init__(self) -> None:
        self.dtype = precision(self.parameter)

    @property
    def limit(self) -> float | None:
        """What the gradient is clamped to."""
        return LARGEST[self.dtype] if self.peak > LARGEST[self.dtype] else None

    @property
    def coordinates(self) -> int:
        """Over all processes."""
        return shape_of(self.parameter).numel()

    def gradient(self, first: int, after: int) -> Tensor:
        """Part of the gradient in the precision of the step."""
        part = self.grad if after - first == self.grad.numel() else self.grad[first:after]
        part = part.to(self.dtype)
        return part if self.limit is None else part.clamp(-self.limit, self.limit)


def local_gradient(parameter: Tensor, row: CoordinateRow) -> Tensor:
    """A parameter's gradient as a row, sharded as the parameter is."""
    grad: Any = parameter.grad
    if is_distributed(parameter) and grad.placements != parameter.placements:  # type: ignore[attr-defined]
        grad = grad.redistribute(parameter.device_mesh, parameter.placements)  # type: ignore[attr-defined]
    return row.in_order(local(grad))


@dataclass(frozen=True)
class GradientSummary:
    """Of all gradients, in all processes."""

    broken: str  # label of a parameter whose gradient is not finite; empty if there is none
    zero: bool
    mean_square: float | Tensor | None  # a tensor, [1], where one process has it all


def summarized(shares: Sequence[Share], parameters: Iterable[Tensor], *, mean_square: bool) -> GradientSummary:
    """Note every share's peak; find out whether gradients are finite, and what their mean square is if asked for."""
    held = [share for share in shares if share.grad.numel()]
    _note_peaks(held)
    broken = next((share.label for share in held if not share.peak < torch.inf), "")
    facts = [float(bool(broken)), float(any(share.peak for share in held)), 0.0]
    # the kinds of distributed parameters in the order of the parameters: the same in every process
    meshes = dict.fromkeys(key for key in map(_key, parameters) if key is not None)
    if not meshes:
        mean_of_squares = None if broken or not mean_square or not shares else _mean_square(shares)
        return GradientSummary(broken, not facts[1], mean_of_squares)
    if mean_square and not broken:
        facts[2] = sum(_sum_of_squares(share) for share in held if not is_distributed(share.parameter))
    for mesh, placements in meshes:
        local_shares = [share for share in held if _key(share.parameter) == (mesh, placements)]
        squares = sum(map(_sum_of_squares, local_shares)) if mean_square and not broken else 0.0
        sums = _over_processes([facts[0], float(any(share.peak for share in local_shares)), squares], mesh, placements)
        facts = [facts[0] + sums[0], facts[1] + sums[1], facts[2] + sums[2]]
    broken = broken or ("a parameter in another process" if facts[0] else "")
    coordinates = max(1, sum(share.coordinates for share in shares))
    return GradientSummary(broken, not facts[1], facts[2] / coordinates if mean_square else None)


def _note_peaks(shares: Sequence[Share]) -> None:
    """A sum of squares is a bound, and fast; the largest size itself is looked for where the bound does not do."""
    squares = on_host([torch.dot(share.grad, share.grad) for share in shares])
    for share, square in zip(shares, squares, strict=True):
        share.peak = math.sqrt(square)
    unsure = [share for share in shares if not 0 < share.peak <= LARGEST[share.dtype]]
    peaks = on_host([torch.linalg.vector_norm(share.grad, torch.inf) for share in unsure])
    for share, peak in zip(unsure, peaks, strict=True):
        share.peak = peak


def _mean_square(shares: Sequence[Share]) -> float | Tensor:
    """As meta-training has it, over one row of all squares, if they are of one kind."""
    kinds = {(share.grad.device, share.dtype) for share in shares}
    if len(kinds) > 1:
        return sum(map(_sum_of_squares, shares)) / max(1, sum(share.coordinates for share in shares))
    squares = torch.cat([share.gradient(0, share.grad.numel()) for share in shares])
    return squares.mul_(squares).mean(-1, keepdim=True)


def _sum_of_squares(share: Share) -> float:
    """In this process, in double precision, in pieces that take little memory."""
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


def _key(parameter: Tensor) -> Any:
    return (parameter.device_mesh, tuple(parameter.placements)) if is_distributed(parameter) else None  # type: ignore[attr-defined]


def _over_processes(numbers: list[float], mesh: Any, placements: Sequence[Any]) -> list[float]:
    """Sums over the processes that hold different shards."""
    from torch.distributed.tensor import DTensor, Partial, Replicate

    local_numbers = torch.tensor(numbers, dtype=torch.float64, device=mesh.device_type)
    kinds = [Replicate() if placement.is_replicate() else Partial() for placement in placements]
    summed: list[float] = DTensor.from_local(local_numbers, mesh, kinds, run_check=False).full_tensor().tolist()
    return summed


def scale_steps(optimizer: LearnedOptimizer, shares: Sequence[Share]) -> None:
    """Multiply the shares' factors by those of their tensors, each of the whole parameter, whatever part is here."""
    if optimizer.step_scale in step_scale.BY_FAN_IN:
        layout = Layout({share.label: share.parameter.shape for share in shares})
        factors: Sequence[float] = step_scale.mup_factors(
            layout, optimizer.base_width, capped=optimizer.step_scale == "mup_capped"
        )
    elif optimizer.step_scale == "rms":
        factors = on_host([_rms(share) for share in shares])
    else:
        return
    for share, factor in zip(shares, factors, strict=True):
        share.factor *= factor


def rest_rows(shares: Sequence[Share]) -> None:
    """Note of embeddings, known by their names, which rows got a gradient: the others are not moved."""
    embeddings = Layout({share.label: share.row.shape for share in shares}).embeddings
    for share in shares:
        if share.label in embeddings:
            grad = share.grad.as_strided(share.row.shape, share.row.strides)
            share.moving = share.row.in_order(sparse_rows.rows_with_gradient(grad))


def _rms(share: Share) -> Tensor:
    if not is_distributed(share.parameter):
        return step_scale.rms(share.row.flat.to(share.dtype))
    whole: Any = share.parameter.detach().abs().to(precision(share.parameter))
    mean: Tensor = (whole**2).mean().full_tensor() / (2 if share.parameter.is_complex() else 1)
    return mean.sqrt().clamp_min(step_scale.RMS_FLOOR).to(torch.float64)
