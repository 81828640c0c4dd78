"""Which parameters and gradients a learned optimizer can take, said before anything is touched."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import Parameter, is_lazy

from engine.base.arguments import checked as checked_argument
from engine.base.arguments import kind, refusal
from engine.base.errors import printable, shortened
from engine.base.settings import Setting, did_you_mean
from engine.export.torch_optim.layout import is_distributed
from engine.optimizers.learned.base import LearnedOptimizer

_ZERO = "torch.distributed.optim.zero_redundancy_optimizer"
RECORD = "learned_optimizer"
"""A group's key for the learned optimizer that its state belongs to."""
_TORCHS = {"params", "param_names", "name", "differentiable"}
_SCHEDULERS = {"initial_lr", "max_lr", "min_lr", "swa_lr", "base_momentum", "max_momentum"}
_NUMBERS = {name: Setting(name, ("float",), None, "", minimum=0.0) for name in ("lr", "weight_decay")}
_NUMBERS["scale"] = Setting("scale", ("float",), None, "", above=0.0)
VALUES = tuple(_NUMBERS)


def check_parameter(parameter: Tensor, label: str, optimizer: LearnedOptimizer) -> None:
    """Raise TypeError, one line, for a tensor whose numbers cannot be reached, ValueError for a shard of FSDP1.

    A parameter that gets no gradient, be it lazy or frozen, may be of any kind: quantized weights, integers.
    """
    frozen = isinstance(parameter, Parameter) and not parameter.requires_grad
    if is_lazy(parameter) or (frozen and parameter.grad is None):
        return
    _check_kind(parameter, label)
    if any(size > 1 and not stride for size, stride in zip(parameter.shape, parameter.stride(), strict=True)):
        raise TypeError(f"{label} is an expanded tensor: clone() gives it numbers of its own")
    if is_distributed(parameter) and any(placement.is_partial() for placement in parameter.placements):  # type: ignore[attr-defined]
        raise TypeError(f"{label} is a DTensor of partial sums; a learned optimizer takes sharded or replicated ones")
    sharded = getattr(parameter, "_is_flat_param", False) or getattr(parameter, "_fsdp_flattened", False)
    scope = optimizer.trusted_scope
    if sharded and (scope != "coordinate" or optimizer.step_scale != "none"):
        advice = "take fully_shard (FSDP2)" if scope in ("coordinate", "mean_square") else "keep parameters whole"
        raise ValueError(f"{label} is a shard of FullyShardedDataParallel, {_whole(optimizer)}; {advice}")
    if scope in ("tensor", "all") and is_distributed(parameter):
        mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
        if any(placement.is_shard() and mesh.size(dim) > 1 for dim, placement in enumerate(placements)):
            raise ValueError(f"{label} is a sharded DTensor, {_whole(optimizer)}; keep parameters whole")


def check_gradient(parameter: Tensor, label: str) -> None:
    """Raise TypeError, one line, for a gradient that cannot be taken as numbers in the parameter's place."""
    grad = parameter.grad
    assert grad is not None
    subject = f"the gradient of {label}"
    if grad.layout != torch.strided:
        layout = str(grad.layout).removeprefix("torch.")
        raise TypeError(f"{subject} is {layout}; a learned optimizer takes dense gradients")
    _check_kind(grad, subject)
    if grad.shape != parameter.shape:
        raise TypeError(f"{subject} has the shape {list(grad.shape)}, the parameter {list(parameter.shape)}")
    if is_distributed(grad) != is_distributed(parameter):
        raise TypeError(f"{subject} is a {type(grad).__name__}, the parameter a {type(parameter).__name__}")


def check_caller(optimizer: LearnedOptimizer) -> None:
    """Raise ValueError where ZeroRedundancyOptimizer gives a share of the parameters to an optimizer that needs all."""
    if optimizer.trusted_scope in ("coordinate", "tensor") or _ZERO not in sys.modules:
        return
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == _ZERO:
            problem = f"ZeroRedundancyOptimizer hands out the parameters, {_whole(optimizer)}"
            advice = "take fully_shard (FSDP2)" if optimizer.trusted_scope == "mean_square" else "keep them together"
            raise ValueError(f"{problem}; {advice}")
        frame = frame.f_back  # type: ignore[assignment]


def _whole(optimizer: LearnedOptimizer) -> str:
    if optimizer.trusted_scope in ("coordinate", "tensor"):
        return f"but {optimizer.name} looks at whole tensors"
    return f"but {optimizer.name} looks at the gradients of all parameters together"


def _check_kind(tensor: Tensor, name: str) -> None:
    """Raise TypeError unless it is plain memory, or a DTensor of plain memory."""
    if is_distributed(tensor):
        tensor = tensor.detach().to_local()  # type: ignore[attr-defined]
    kind = type(tensor)
    dispatches = getattr(kind, "__torch_dispatch__", None) is not getattr(Tensor, "__torch_dispatch__", None)
    if dispatches or tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        label = kind.__name__ if dispatches else str(tensor.layout).removeprefix("torch.")
        label = "nested" if tensor.is_nested else "quantized" if tensor.is_quantized else label
        raise TypeError(f"{name} is a {label} tensor; a learned optimizer takes dense tensors and DTensors of such")
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.itemsize < 2:
        label = str(tensor.dtype).removeprefix("torch.")
        raise TypeError(f"{name} is of {label}; a learned optimizer takes real and complex numbers of 16 bits and more")
    if tensor.is_conj() or tensor.is_neg():
        raise TypeError(
            f"{name} is a conjugate or negated view; resolve_conj or resolve_neg gives it numbers of its own"
        )


def number(name: str, value: Any) -> float:
    """The value as a float. Raises ArgumentError, a ValueError, where it is none that `name` may have.

    Numbers of Python, and NumPy numbers and tensors of shape [] are fine; truth values are no numbers.
    """
    if getattr(value, "is_meta", False):
        raise refusal(name, _NUMBERS[name].describe(), kind(value))
    return float(checked_argument(_NUMBERS[name], value))


def factors(group: Mapping[str, Any]) -> tuple[float, float]:
    """What the group's updates are multiplied by, lr * scale, and its parameters' decay, lr * weight_decay.

    Raises ValueError for what may not stand in a group, be it there from the start or put there later.
    """
    for key in group.keys() - _TORCHS - _SCHEDULERS - {RECORD, *VALUES}:
        if hint := did_you_mean(str(key), VALUES, cutoff=0.8):  # other keys are some scheduler's own notes
            raise ValueError(f"unknown key {_shown(key)} in a parameter group ({hint})")
    lr, decay, scale = (_value(group, name) for name in VALUES)
    if not math.isfinite(lr * scale) or not math.isfinite(lr * decay):
        raise ValueError(f"lr * scale and lr * weight_decay must be finite, found lr {lr:g}, {scale:g} and {decay:g}")
    return lr * scale, lr * decay


def check_group(group: dict[str, Any], record: str) -> None:
    """Refuse a new group with unknown keys or values; its NumPy numbers become Python's."""
    if unknown := sorted(map(str, group.keys() - _TORCHS - _SCHEDULERS - {RECORD, *VALUES})):
        problem = f"unknown key {_shown(unknown[0])} in a parameter group; allowed: {', '.join(('params', *VALUES))}"
        hint = did_you_mean(unknown[0], VALUES)
        raise ValueError(f"{problem} ({hint})" if hint else problem)
    if group.get(RECORD, record) != record:
        raise ValueError(f"{RECORD} of a parameter group must be left to the optimizer")
    for name in VALUES:
        if name in group:
            value = number(name, group[name])
            group[name] = group[name] if isinstance(group[name], torch.Tensor) else value


def _value(group: Mapping[str, Any], name: str) -> float:
    if name not in group:
        raise ValueError(f"a parameter group has lost its {name}")
    return number(name, group[name])


def _shown(key: object) -> str:
    return shortened(printable(repr(key)))
