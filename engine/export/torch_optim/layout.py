"""How a parameter and its optimizer state lie in memory.

A parameter is taken as a row of real numbers in the order of its memory; where it is a DTensor, its local shard is. A
part of the state has the parameter's shape and one more dimension where a coordinate has K numbers: [*shape, K]. In
memory these are K rows, each in the parameter's order: what the kernels read.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from engine.optimizers.learned.base import LearnedOptimizer
from engine.tasks.base import Layout

INNER_STEP = "inner_step"
"""In the state of a learned optimizer that uses it: how many steps it has taken."""

Tails = dict[str, "tuple[int, ...] | None"]
"""By name in the state: what follows the parameter's shape; None for a number that all coordinates share."""


def tails(optimizer: LearnedOptimizer) -> Tails:
    """What the state of a learned optimizer consists of."""
    state = optimizer.init(torch.empty(2, device="meta"), Layout({"theta": (2,)}))
    parts = {name: tuple(tensor.shape[1:]) if tensor.dim() else None for name, tensor in state.items()}
    return {**parts, INNER_STEP: None} if optimizer.uses_info else parts


def is_distributed(tensor: object) -> bool:
    """Whether it is a DTensor: of those there are none before their module is loaded."""
    if type(tensor) is Tensor or type(tensor) is Parameter:
        return False
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """This process's part, without any class of its own; complex numbers as two real ones each."""
    if type(tensor) is Tensor and not tensor.requires_grad and not tensor.is_complex():
        return tensor  # most often; the rest takes time for every part of every state
    part: Any = tensor.detach()
    part = part.to_local() if is_distributed(part) else part
    if type(part) is not Tensor:
        with torch._C.DisableTorchFunctionSubclass():
            part = part.as_subclass(Tensor)
    return torch.view_as_real(part.resolve_conj()) if part.is_complex() else part


def shape_of(parameter: Tensor) -> torch.Size:
    """The whole parameter's shape as real numbers."""
    return torch.Size([*parameter.shape, 2]) if parameter.is_complex() else parameter.shape


def precision(parameter: Tensor) -> torch.dtype:
    """The learned optimizer computes in float32 at least: its state is not for half precision."""
    return torch.float64 if parameter.dtype in (torch.float64, torch.complex128) else torch.float32


@dataclass
class CoordinateRow:
    """A parameter's part in this process as a row of numbers."""

    flat: Tensor  # [n], writable: the parameter itself, or where its memory has gaps a copy
    shape: torch.Size
    strides: tuple[int, ...]  # that lead from the shape to places in the row
    home: Tensor | None  # where a copy has to be brought back to
    state_strides: dict[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict)  # by tail, once asked for

    @classmethod
    def of(cls, parameter: Tensor, *, by_shape: bool = False) -> CoordinateRow:
        """The parameter's row; `by_shape`: not as its memory goes but as its shape says, in row-major order."""
        part = local(parameter)
        if part.is_contiguous() or (not by_shape and is_dense(part)):
            return cls(part.as_strided((part.numel(),), (1,)), part.shape, part.stride(), None)
        whole = part.contiguous()
        return cls(whole.view(-1), whole.shape, whole.stride(), part)

    def in_order(self, tensor: Tensor) -> Tensor:
        """A tensor of the same shape as a row in this order, copied only if it lies in another."""
        if not _same_strides(tensor.shape, tensor.stride(), self.strides) or tensor.is_neg():
            ordered = torch.empty_strided(self.shape, self.strides, dtype=tensor.dtype, device=tensor.device)
            tensor = ordered.copy_(tensor)
        return tensor.as_strided((tensor.numel(),), (1,))

    def empty_state(self, tail: Sequence[int], dtype: torch.dtype) -> Tensor:
        """An array for a part of the state, [*shape, *tail], in the order described above."""
        memory = torch.empty(math.prod(tail) * self.flat.numel(), dtype=dtype, device=self.flat.device)
        return memory.as_strided((*self.shape, *tail), self._state_strides(tail))

    def fits(self, state: Tensor, dtype: torch.dtype) -> bool:
        """Whether a part of the state, of the right shape, lies as `empty_state` would."""
        if state.dtype != dtype or state.device != self.flat.device or state.is_inference():
            return False
        return _same_strides(state.shape, state.stride(), self._state_strides(state.shape[len(self.shape) :]))

    def rows(self, state: Tensor) -> Tensor:
        """A part of the state that fits as rows [K, n], or [n] where a coordinate has one number without dimension."""
        size, tail = self.flat.numel(), state.shape[len(self.shape) :]
        return state.as_strided((math.prod(tail), size), (size, 1)) if tail else state.as_strided((size,), (1,))

    def _state_strides(self, tail: Sequence[int]) -> tuple[int, ...]:
        tail = tuple(tail)
        if tail not in self.state_strides:
            inner = (self.flat.numel() * math.prod(tail[dim + 1 :]) for dim in range(len(tail)))
            self.state_strides[tail] = (*self.strides, *inner)
        return self.state_strides[tail]


def is_dense(tensor: Tensor) -> bool:
    """Whether its numbers fill a stretch of memory without gaps, in whatever order."""
    if tensor.is_contiguous():
        return True
    reached = 1
    for stride, size in sorted((stride, size) for size, stride in zip(tensor.shape, tensor.stride(), strict=True)):
        if size == 1:
            continue
        if stride != reached:
            return False
        reached *= size
    return True


def _same_strides(shape: Sequence[int], strides: Sequence[int], other_strides: Sequence[int]) -> bool:
    if strides == other_strides or 0 in shape:
        return True
    return all(size == 1 or a == b for size, a, b in zip(shape, strides, other_strides, strict=True))
