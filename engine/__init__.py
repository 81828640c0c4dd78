"""lreg's engine: meta-train learned optimizers that seek flat minima, and take them into your own PyTorch code.

    import engine
    preset = engine.load_preset("lo-sam")
    run = engine.train(preset, runs_dir="runs")
    optimizer = engine.load_optimizer(run.path, model.parameters())

Names are loaded on first use, so that `import engine` is cheap and torch is imported only where tensors are needed.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes longer to import than all that is needed here
if TYPE_CHECKING:
    from typing import Any

    from engine import penalties, probes
    from engine.base.errors import LregError, PresetError, RunError
    from engine.base.flat_loss import flat_loss
    from engine.export.torch_optim import LearnedOptimizer, load_optimizer
    from engine.presets.preset import Preset, load_preset
    from engine.runs.store import RunReader, RunStore
    from engine.worker import train

_HOMES = {
    "LearnedOptimizer": "engine.export.torch_optim",
    "LregError": "engine.base.errors",
    "Preset": "engine.presets.preset",
    "PresetError": "engine.base.errors",
    "RunError": "engine.base.errors",
    "RunReader": "engine.runs.store",
    "RunStore": "engine.runs.store",
    "flat_loss": "engine.base.flat_loss",
    "load_optimizer": "engine.export.torch_optim",
    "load_preset": "engine.presets.preset",
    "train": "engine.worker",
}

__all__ = [
    "LearnedOptimizer",
    "LregError",
    "Preset",
    "PresetError",
    "RunError",
    "RunReader",
    "RunStore",
    "flat_loss",
    "load_optimizer",
    "load_preset",
    "penalties",
    "probes",
    "train",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in ("penalties", "probes"):
        return importlib.import_module(f"engine.{name}")
    raise AttributeError(f"module 'engine' has no attribute {name!r}")
