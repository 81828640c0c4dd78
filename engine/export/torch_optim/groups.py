"""The values of a parameter group: what may stand there, and what it means for a step."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from engine.base.errors import printable, shortened

RECORD = "learned_optimizer"
"""A group's key for the learned optimizer that its state belongs to."""

_TORCHS = {"params", "param_names", "name", "differentiable"}
_SCHEDULERS = {"initial_lr", "max_lr", "min_lr", "swa_lr", "base_momentum", "max_momentum"}
VALUES = ("lr", "weight_decay", "scale")


def number(name: str, value: Any) -> float:
    """The value as a float. Raises ValueError, one line, where it is none that `name` may have.

    Numbers of Python, and NumPy arrays and tensors of shape [] are fine; truth values are no numbers.
    """
    scalar = isinstance(value, (torch.Tensor, np.ndarray)) and not value.ndim
    plain = value.item() if scalar and not getattr(value, "is_meta", False) else value
    fits = isinstance(plain, numbers.Real) and not isinstance(plain, bool)
    try:
        found = float(plain) if fits else math.nan
    except OverflowError:
        found = math.inf
    positive = name == "scale"
    if not math.isfinite(found) or found < 0 or (positive and not found):
        allowed = "a positive number" if positive else "a number >= 0"
        raise ValueError(f"{name} must be {allowed}, found {shortened(printable(repr(value)))}")
    return found


def factors(group: Mapping[str, Any]) -> tuple[float, float]:
    """What the group's updates are multiplied by, lr * scale, and its parameters' decay, lr * weight_decay.

    Raises ValueError for what may not stand in a group, be it there from the start or put there later.
    """
    for key in group.keys() - _TORCHS - _SCHEDULERS - {RECORD, *VALUES}:
        if hint := _meant(key, cutoff=0.8):  # other keys are some scheduler's own notes
            raise ValueError(f"unknown key {_shown(key)} in a parameter group ({hint})")
    lr, decay, scale = (_value(group, name) for name in VALUES)
    if not math.isfinite(lr * scale) or not math.isfinite(lr * decay):
        raise ValueError(f"lr * scale and lr * weight_decay must be finite, found lr {lr:g}, {scale:g} and {decay:g}")
    return lr * scale, lr * decay


def checked(group: dict[str, Any], record: str) -> None:
    """Refuse a new group with unknown keys or values; its NumPy numbers become Python's."""
    if unknown := sorted(map(str, group.keys() - _TORCHS - _SCHEDULERS - {RECORD, *VALUES})):
        problem = f"unknown key {_shown(unknown[0])} in a parameter group; allowed: {', '.join(('params', *VALUES))}"
        hint = _meant(unknown[0], cutoff=0.6)
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


def _meant(key: object, cutoff: float) -> str:
    near = difflib.get_close_matches(str(key).lower(), VALUES, n=1, cutoff=cutoff)
    return f"did you mean {near[0]}?" if near else ""


def _shown(key: object) -> str:
    return shortened(printable(repr(key)))
