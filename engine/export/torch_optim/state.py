"""The optimizer state of one parameter: made, brought into the kernels' order, checked when it is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.export.torch_optim.layout import (
    INNER_STEP,
    CoordinateRow,
    Tails,
    is_distributed,
    local,
    precision,
    shape_of,
)
from engine.optimizers.learned.base import LearnedOptimizer, State
from engine.tasks.base import Layout

BLOCK = 2**15  # coordinates whose fresh state is made at once


@dataclass(frozen=True)
class Loaded:
    """State on its way in: torch would cast tensors to the parameter's type, which may be too little."""

    state: State


def fresh(optimizer: LearnedOptimizer, tails: Tails, parameter: Tensor, row: CoordinateRow) -> State:
    """The state before a parameter's first step."""
    dtype, size = precision(parameter), row.flat.numel()
    parts = {name: row.empty_state(tail, dtype) for name, tail in tails.items() if tail is not None}
    state: State = {}
    step = BLOCK if optimizer.coordinatewise and not optimizer.uses_layout else max(size, 1)
    layout = Layout({"theta": row.shape})
    for first in range(0, max(size, 1), step):
        made = optimizer.init(row.flat[first : first + step].to(dtype), layout)
        made = {**made, INNER_STEP: torch.zeros(())} if INNER_STEP in tails else made
        for name, part in parts.items():
            row.rows(part)[..., first : first + step] = made[name].T if made[name].dim() > 1 else made[name]
        state = {name: made[name] for name in tails}
    return {
        name: state[name].cpu() if tail is None else _as_parameter(parameter, parts[name], tail)
        for name, tail in tails.items()
    }


def brought_in_order(state: State, tails: Tails, parameter: Tensor, row: CoordinateRow, label: str) -> State:
    """A parameter's state where and as its next step needs it: the model may have been moved or cast meanwhile.

    Raises RuntimeError where the state is not the parameter's.
    """
    if problem := misfit(state, tails, parameter):
        raise RuntimeError(f"{label}: its optimizer state does not fit: {problem}")
    dtype = precision(parameter)
    ordered: State = {}
    for name, tail in tails.items():
        part = state[name]
        if tail is None:
            ordered[name] = part.to("cpu", dtype, copy=part.is_inference())
        elif row.fits(here := local(part), dtype):
            ordered[name] = part
        else:
            ordered[name] = _as_parameter(parameter, row.empty_state(tail, dtype).copy_(here), tail)
    return ordered


def adopted(loaded: Loaded, tails: Tails, parameter: Tensor) -> State:
    """A copy of a loaded state, placed and sharded as the parameter is."""
    row, dtype = CoordinateRow.of(parameter), precision(parameter)
    if not loaded.state:
        return {}
    parts = {name: _sharded_as(parameter, loaded.state[name]) for name, tail in tails.items() if tail is not None}
    return {
        name: loaded.state[name].to("cpu", dtype, copy=True)
        if tail is None
        else _as_parameter(parameter, row.empty_state(tail, dtype).copy_(local(parts[name])), tail)
        for name, tail in tails.items()
    }


def misfit(state: Mapping[str, Any], tails: Tails, parameter: Tensor) -> str:
    """Why a state is not that of a parameter; empty if it is."""
    if not isinstance(state, Mapping):
        return f"it is no table but {type(state).__name__}"
    if state.keys() != tails.keys():
        return f"it holds {', '.join(sorted(map(str, state)))[:100]}, should be {', '.join(sorted(tails))[:100]}"
    for name, tail in tails.items():
        part = state[name]
        shape = () if tail is None else (*shape_of(parameter), *tail)
        if not isinstance(part, Tensor) or not part.is_floating_point():
            return f"{name} is no tensor of real numbers"
        if tuple(part.shape) != shape:
            return f"{name} has the shape {list(part.shape)}, should be {list(shape)}"
    return ""


def _sharded_as(parameter: Tensor, part: Tensor) -> Tensor:
    """Raises ValueError where a whole state meets a shard of a parameter."""
    if not is_distributed(parameter):
        return part.full_tensor() if is_distributed(part) else part  # type: ignore[attr-defined]
    if not is_distributed(part):
        advice = "set_optimizer_state_dict of torch.distributed.checkpoint.state_dict shares it out"
        raise ValueError(f"the optimizer state is whole, its parameter a DTensor; {advice}")
    return part.redistribute(parameter.device_mesh, parameter.placements)  # type: ignore[attr-defined]


def _as_parameter(parameter: Tensor, part: Tensor, tail: tuple[int, ...]) -> Tensor:
    """A local part of the state as a DTensor where the parameter is one."""
    if not is_distributed(parameter):
        return part
    from torch.distributed.tensor import DTensor

    shape = torch.Size([*shape_of(parameter), *tail])
    strides = tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))
    mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
    return DTensor.from_local(part, mesh, placements, run_check=False, shape=shape, stride=strides)
