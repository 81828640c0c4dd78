"""lreg's engine: meta-train learned optimizers that seek flat minima, and take them into your own PyTorch code.

    import engine
    preset = engine.load_preset("lo-sam")
    run = engine.train(preset, runs_dir="runs")
    optimizer = engine.load_optimizer(run.path, model.parameters())

    phi = engine.meta_train(tasks, engine.learned_optimizers.get("dm"), [engine.penalties.get("sam")])

Names are loaded on first use, so that `import engine` is cheap and torch is imported only where tensors are needed.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes longer to import than all that is needed here
if TYPE_CHECKING:
    from typing import Any

    from engine import penalties, probes, terms
    from engine.base.errors import LregError, PresetError, RunError
    from engine.base.flat_loss import flat_loss
    from engine.base.metrics import Metric
    from engine.export.torch_optim import LoadedOptimizer, load_optimizer
    from engine.meta_training import estimators
    from engine.meta_training.meta_train import meta_train
    from engine.optimizers import learned as learned_optimizers
    from engine.optimizers.learned.base import LearnedOptimizer
    from engine.presets.preset import Preset, load_preset
    from engine.presets.tables import EvaluationSettings, MetaSettings, ObjectiveSettings
    from engine.runs.store import RunReader, RunStore
    from engine.tasks.base import Layout, SampledStream, Task, TaskDistribution
    from engine.tasks.supervised import SupervisedTask
    from engine.worker import train

_HOMES = {
    "EvaluationSettings": "engine.presets.tables",
    "Layout": "engine.tasks.base",
    "LearnedOptimizer": "engine.optimizers.learned.base",
    "LoadedOptimizer": "engine.export.torch_optim",
    "LregError": "engine.base.errors",
    "MetaSettings": "engine.presets.tables",
    "Metric": "engine.base.metrics",
    "ObjectiveSettings": "engine.presets.tables",
    "Preset": "engine.presets.preset",
    "PresetError": "engine.base.errors",
    "RunError": "engine.base.errors",
    "RunReader": "engine.runs.store",
    "RunStore": "engine.runs.store",
    "SampledStream": "engine.tasks.base",
    "SupervisedTask": "engine.tasks.supervised",
    "Task": "engine.tasks.base",
    "TaskDistribution": "engine.tasks.base",
    "flat_loss": "engine.base.flat_loss",
    "load_optimizer": "engine.export.torch_optim",
    "load_preset": "engine.presets.preset",
    "meta_train": "engine.meta_training.meta_train",
    "train": "engine.worker",
}
_MODULES = {
    "estimators": "engine.meta_training.estimators",
    "learned_optimizers": "engine.optimizers.learned",
    "penalties": "engine.penalties",
    "probes": "engine.probes",
    "terms": "engine.terms",
}

__all__ = [
    "EvaluationSettings",
    "Layout",
    "LearnedOptimizer",
    "LoadedOptimizer",
    "LregError",
    "MetaSettings",
    "Metric",
    "ObjectiveSettings",
    "Preset",
    "PresetError",
    "RunError",
    "RunReader",
    "RunStore",
    "SampledStream",
    "SupervisedTask",
    "Task",
    "TaskDistribution",
    "estimators",
    "flat_loss",
    "learned_optimizers",
    "load_optimizer",
    "load_preset",
    "meta_train",
    "penalties",
    "probes",
    "terms",
    "train",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})  # for completion, also of what is not loaded yet


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module 'engine' has no attribute {name!r}")
