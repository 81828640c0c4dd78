"""The optimizer state of one parameter: made, brought into the kernels' order, checked when it is loaded.

A parameter is taken as a row of its n numbers. A part of its state has the parameter's shape, and one more dimension
where a coordinate has K numbers: [*shape, K]. In memory these are K rows, each in the parameter's order: what the
kernels read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.base.errors import printable, shortened
from engine.export.torch_optim.parameters import RECORD, factors
from engine.optimizers.learned.base import LearnedOptimizer, State
from engine.tasks.base import Layout

BLOCK = 2**15  # coordinates whose fresh state is made at once
INNER_STEP = "inner_step"
"""In the state of a learned optimizer that uses it: how many steps it has taken."""
_WRAPPERS = ("module.", "_orig_mod.", "_checkpoint_wrapped_module.")

Tails = dict[str, "tuple[int, ...] | None"]
"""By name in the state: what follows the parameter's shape; None for a number that all coordinates share."""


@dataclass(frozen=True)
class Loaded:
    """State on its way in: torch would cast tensors to the parameter's type, which may be too little."""

    state: State


def tails(optimizer: LearnedOptimizer) -> Tails:
    """What the state of a learned optimizer consists of."""
    state = optimizer.init(torch.empty(2, device="meta"), Layout({"theta": (2,)}))
    parts = {name: tuple(tensor.shape[1:]) if tensor.dim() else None for name, tensor in state.items()}
    return {**parts, INNER_STEP: None} if optimizer.uses_info else parts


def precision(parameter: Tensor) -> torch.dtype:
    """The learned optimizer computes in float32 at least: its state is not for half precision."""
    return torch.float64 if parameter.dtype == torch.float64 else torch.float32


def flat(tensor: Tensor) -> Tensor:
    """The numbers of a parameter or gradient, [n], without any class of its own; a copy where its memory has gaps, or
    another order than its shape.
    """
    part = tensor.detach()
    if type(part) is not Tensor:
        with torch._C.DisableTorchFunctionSubclass():
            part = part.as_subclass(Tensor)
    return part.contiguous().view(-1)


def rows(part: Tensor, parameter: Tensor) -> Tensor:
    """A part of the state that fits as rows [K, n], or [n] where a coordinate has one number without dimension."""
    tail, size = part.shape[parameter.dim() :], parameter.numel()
    return _tail_first(part, parameter.dim()).view(math.prod(tail), size) if tail else part.view(size)


def _tail_first(part: Tensor, dims: int) -> Tensor:
    """[*shape, *tail] as [*tail, *shape], for a shape of so many dimensions."""
    return part.permute((*range(dims, part.dim()), *range(dims)))


def _empty(parameter: Tensor, tail: Sequence[int]) -> Tensor:
    """An array for a part of the state, [*shape, *tail], in the order described above."""
    memory = torch.empty((*tail, *parameter.shape), dtype=precision(parameter), device=parameter.device)
    return _tail_first(memory, len(tail))


def fresh(optimizer: LearnedOptimizer, tails: Tails, parameter: Tensor, theta: Tensor) -> State:
    """The state before a parameter's first step; `theta`: its numbers, [n]."""
    size = theta.numel()
    parts = {name: _empty(parameter, tail) for name, tail in tails.items() if tail is not None}
    state: State = {}
    step = BLOCK if optimizer.coordinatewise and not optimizer.uses_layout else max(size, 1)
    layout = Layout({"theta": parameter.shape})
    for first in range(0, max(size, 1), step):
        made = optimizer.init(theta[first : first + step].to(precision(parameter)), layout)
        made = {**made, INNER_STEP: torch.zeros(())} if INNER_STEP in tails else made
        for name, part in parts.items():
            rows(part, parameter)[..., first : first + step] = made[name].T if made[name].dim() > 1 else made[name]
        state = {name: made[name] for name in tails}
    return {name: state[name].cpu() if tail is None else parts[name] for name, tail in tails.items()}


def brought_in_order(state: State, tails: Tails, parameter: Tensor, label: str) -> State:
    """A parameter's state where and as its next step needs it: the model may have been moved or cast meanwhile.

    Raises RuntimeError where the state is not the parameter's.
    """
    if problem := misfit(state, tails, parameter):
        raise RuntimeError(f"{label}: its optimizer state does not fit: {problem}")
    dtype = precision(parameter)

    def in_order(part: Tensor, tail: tuple[int, ...] | None) -> Tensor:
        if tail is None:
            return part.to("cpu", dtype, copy=part.is_inference())
        is_placed = part.dtype == dtype and part.device == parameter.device and not part.is_inference()
        is_ready = is_placed and _tail_first(part, parameter.dim()).is_contiguous()
        return part if is_ready else _empty(parameter, tail).copy_(part)

    return {name: in_order(state[name], tail) for name, tail in tails.items()}


def adopted(loaded: Loaded, tails: Tails, parameter: Tensor) -> State:
    """A copy of a loaded state, placed as the parameter is."""
    return {
        name: loaded.state[name].to("cpu", precision(parameter), copy=True)
        if tail is None
        else _empty(parameter, tail).copy_(loaded.state[name])
        for name, tail in tails.items()
        if loaded.state
    }


def misfit(state: Mapping[str, Any], tails: Tails, parameter: Tensor) -> str:
    """Why a state is not that of a parameter; empty if it is."""
    if not isinstance(state, Mapping):
        return f"it is no table but {type(state).__name__}"
    if state.keys() != tails.keys():
        return f"it holds {', '.join(sorted(map(str, state)))[:100]}, should be {', '.join(sorted(tails))[:100]}"
    for name, tail in tails.items():
        part = state[name]
        shape = () if tail is None else (*parameter.shape, *tail)
        if not isinstance(part, Tensor) or not part.is_floating_point():
            return f"{name} is no tensor of real numbers"
        if tuple(part.shape) != shape:
            return f"{name} has the shape {list(part.shape)}, should be {list(shape)}"
    return ""


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
    if saved.get(RECORD) is None:
        keys = ", ".join(sorted(map(str, saved.keys() - {"params"})))
        raise ValueError(f"the optimizer state is another optimizer's: its groups have {printable(keys)[:80]}")
    if saved[RECORD] != record:
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
