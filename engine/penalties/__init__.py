"""Penalties: `engine.penalties.get("sam", rho=0.05).value_and_grad(loss, theta)`."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name in ("get", "PENALTIES", "Penalty", "GeometricPenalty", "UpdatePenalty", "ParameterPenalty"):
        from engine.penalties import base

        return getattr(base, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
