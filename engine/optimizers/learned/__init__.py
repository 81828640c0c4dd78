"""Learned optimizers, one file each: `engine.learned_optimizers.get("dm", hidden=20)`."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name in ("get", "LEARNED_OPTIMIZERS", "LearnedOptimizer", "StepInfo"):
        from engine.optimizers.learned import base

        return getattr(base, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
