"""The values of a parameter group: what may stand there, and what it means for a step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from engine.base.arguments import checked as checked_argument
from engine.base.arguments import kind, refusal
from engine.base.errors import printable, shortened
from engine.base.settings import Setting, did_you_mean

RECORD = "learned_optimizer"
"""A group's key for the learned optimizer that its state belongs to."""

_TORCHS = {"params", "param_names", "name", "differentiable"}
_SCHEDULERS = {"initial_lr", "max_lr", "min_lr", "swa_lr", "base_momentum", "max_momentum"}
_NUMBERS = {name: Setting(name, ("float",), None, "", minimum=0.0) for name in ("lr", "weight_decay")}
_NUMBERS["scale"] = Setting("scale", ("float",), None, "", above=0.0)
VALUES = tuple(_NUMBERS)


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


def checked(group: dict[str, Any], record: str) -> None:
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
