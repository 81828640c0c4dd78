"""What a preset describes, as objects."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.distributed.parallel import ALONE, ProcessGroup, check_processes
from engine.meta_training import estimators
from engine.meta_training.meta_train import MetaTrainer
from engine.optimizers.learned.base import Phi, from_table
from engine.penalties.base import PENALTIES
from engine.presets.evaluation_settings import EvaluationSettings
from engine.presets.meta_settings import MetaSettings
from engine.presets.preset import Preset
from engine.tasks.base import UniformTasks
from engine.tasks.table import build_tasks


def meta_trainer(
    preset: Preset,
    *,
    device: torch.device,
    data_dir: Path | None = None,
    dtype: torch.dtype = torch.float32,
    init_phi: Phi | None = None,
    team: ProcessGroup = ALONE,
) -> MetaTrainer:
    """A preset's meta-training, with its data loaded. Raises PresetError or DataError where that cannot be done."""
    check_processes(preset, team.size)
    settings = MetaSettings(**preset["meta"])
    return MetaTrainer(
        UniformTasks([build_tasks(values, data_dir=data_dir, device=device, dtype=dtype) for values in preset.tasks]),
        from_table(preset["optimizer"]),
        {name: PENALTIES.create(name, **values) for name, values in preset["penalty"].items()},
        estimator=estimators.get("second_order" if settings.second_order else "tbptt"),
        settings=settings,
        evaluation=EvaluationSettings(**preset["evaluation"]),
        seed=preset.seed,
        device=device,
        init_phi=init_phi,
        team=team,
    )
