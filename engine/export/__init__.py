"""Export: a run's learned optimizer and figures in forms that other tools read. Nothing here imports torch at once."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.export.events import export_tensorboard
    from engine.export.optimizer import export_optimizer, load_exported
    from engine.export.tables import export_csv
    from engine.export.target import write_file

_HOMES = {
    "export_csv": "engine.export.tables",
    "export_optimizer": "engine.export.optimizer",
    "export_tensorboard": "engine.export.events",
    "load_exported": "engine.export.optimizer",
    "write_file": "engine.export.target",
}

__all__ = ["export_csv", "export_optimizer", "export_tensorboard", "load_exported", "write_file"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'engine.export' has no attribute {name!r}")
