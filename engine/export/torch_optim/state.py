"""The optimizer state of one parameter: made, brought into the kernels' order, checked when it is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.base.errors import printable, shortened
from engine.export.torch_optim.layout import (
    INNER_STEP,
    CoordinateRow,
    Tails,
    is_distributed,
    local,
    precision,
    shape_of,
)
from engine.export.torch_optim.parameters import RECORD, factors
from engine.optimizers.learned.base import LearnedOptimizer, State
from engine.tasks.base import Layout

BLOCK = 2**15  # coordinates whose fresh state is made at once
_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_OLD_KEYS = {"scale", "params"}


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

    def in_order(part: Tensor, tail: tuple[int, ...] | None) -> Tensor:
        if tail is None:
            return part.to("cpu", dtype, copy=part.is_inference())
        return part if row.fits(local(part), dtype) else _laid_out(parameter, row, part, tail)

    return {name: in_order(state[name], tail) for name, tail in tails.items()}


def adopted(loaded: Loaded, tails: Tails, parameter: Tensor) -> State:
    """A copy of a loaded state, placed and sharded as the parameter is."""
    if not loaded.state:
        return {}
    row, dtype = CoordinateRow.of(parameter), precision(parameter)
    sharded = {name: _sharded_as(parameter, loaded.state[name]) for name, tail in tails.items() if tail is not None}
    return {
        name: loaded.state[name].to("cpu", dtype, copy=True)
        if tail is None
        else _laid_out(parameter, row, sharded[name], tail)
        for name, tail in tails.items()
    }


def _laid_out(parameter: Tensor, row: CoordinateRow, part: Tensor, tail: tuple[int, ...]) -> Tensor:
    """A copy of a part of the state in the order and precision of the next step, sharded as the parameter is."""
    return _as_parameter(parameter, row.empty_state(tail, precision(parameter)).copy_(local(part)), tail)


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
    strides = tuple(math.prod(shape[dim + 1 :]) for dim in range(len(shape)))
    mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
    return DTensor.from_local(part, mesh, placements, run_check=False, shape=shape, stride=strides)


def checked_state(
    state_dict: Mapping[str, Any], present: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any], tails: Tails
) -> dict[str, Any]:
    """The state_dict with its state as `Loaded`, and groups that have every value.

    Raises ValueError, one line, for the state of another optimizer, network or model.
    """
    check_form(state_dict)
    saved = [dict(group) for group in state_dict["param_groups"]]
    if [len(group["params"]) for group in saved] != [len(group["params"]) for group in present]:
        raise ValueError("the optimizer state does not fit: its parameter groups are others in number or size")
    state = state_dict["state"]
    for before, group in zip(saved, present, strict=True):
        _check_saved_group(before, group, defaults[RECORD])
    keys = [key for group in saved for key in group["params"]]
    parameters = [parameter for group in present for parameter in group["params"]]
    if not any(RECORD in group for group in saved):
        state = _of_old_form(state, keys, parameters, tails)
    for key, parameter in zip(keys, parameters, strict=True):
        if state.get(key) and (problem := misfit(state[key], tails, parameter)):
            raise ValueError(f"the optimizer state does not fit: parameter {shortened(str(key))}: {printable(problem)}")
    for group in saved:
        for name, value in defaults.items():
            group.setdefault(name, value)
        factors(group)
    parameter_keys = set(keys)
    return {
        **state_dict,
        "state": {key: Loaded(dict(held)) if key in parameter_keys else held for key, held in state.items()},
        "param_groups": saved,
    }


def check_form(state_dict: Any) -> None:
    """Raise ValueError, one line, for what no optimizer has written."""
    held = state_dict if isinstance(state_dict, Mapping) else {}
    saved = held.get("param_groups")
    if not isinstance(held.get("state"), Mapping) or not isinstance(saved, (list, tuple)):
        raise ValueError("this is no state_dict of an optimizer: it has no state, or no param_groups")
    if not all(isinstance(group, Mapping) and isinstance(group.get("params"), (list, tuple)) for group in saved):
        raise ValueError("this is no state_dict of an optimizer: a parameter group has no params")


def _check_saved_group(saved: Mapping[str, Any], present: Mapping[str, Any], record: str) -> None:
    """Whether a saved group is of this learned optimizer and, as far as names say it, of this model."""
    if RECORD not in saved:
        if others := sorted(map(str, saved.keys() - _OLD_KEYS)):
            raise ValueError(f"the optimizer state is another optimizer's: its groups have {', '.join(others)[:80]}")
    elif saved[RECORD] != record:
        found = shortened(printable(str(saved[RECORD])))
        raise ValueError(f"the optimizer state is another learned optimizer's: {found}, this one is {record}")
    names, ours = (list(map(_bare, group.get("param_names") or [])) for group in (saved, present))
    if names and ours and names != ours:
        first = next((f"{a}, should be {b}" for a, b in zip(names, ours, strict=False) if a != b), "")
        raise ValueError(f"the optimizer state is another model's: it has {printable(shortened(first))}")


def _bare(name: object) -> str:
    """A parameter's name without those of wrappers around the model."""
    bare = str(name)
    for wrapper in _WRAPPERS:
        bare = bare.replace(wrapper, "")
    return bare


def _of_old_form(state: Mapping[Any, Any], keys: Sequence[Any], parameters: Sequence[Tensor], tails: Tails) -> Any:
    """State as it once was, all of it under the first parameter, [P, ...], shared out."""
    held: Any = state.get(keys[0]) if keys else None
    sizes = [shape_of(parameter).numel() for parameter in parameters]
    whole = (
        isinstance(held, Mapping)
        and held.keys() == tails.keys()
        and all(isinstance(part, Tensor) for part in held.values())
    )
    if not whole or any(held[name].shape != (sum(sizes), *tail) for name, tail in tails.items() if tail is not None):
        return state
    shared: dict[Any, dict[str, Tensor]] = {key: {} for key in keys}
    for name, tail in tails.items():
        parts = [held[name]] * len(keys) if tail is None else held[name].split(sizes)
        for key, parameter, part in zip(keys, parameters, parts, strict=True):
            shared[key][name] = part if tail is None else part.view(*shape_of(parameter), *tail)
    return shared
