"""Penalties: `engine.penalties.get("sam", rho=0.05).value_and_grad(loss, theta)`."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    public = ("get", "PENALTIES", "Penalty", "GeometricPenalty", "HessianPenalty", "UpdatePenalty", "ParameterPenalty")
    if name in public:
        from engine.penalties import base

        return getattr(base, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
