"""What a preset describes, as objects."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.base.settings import schema_of
from engine.distributed.parallel import ALONE, ProcessGroup, check_processes
from engine.meta_training.estimators.base import ESTIMATORS
from engine.meta_training.memory_plan import MemoryPlan, plan
from engine.meta_training.meta_train import MetaTrainer
from engine.optimizers.learned.base import Phi, from_table
from engine.penalties.base import PENALTIES
from engine.presets.preset import Preset
from engine.presets.tables import EvaluationSettings, MetaSettings, ObjectiveSettings
from engine.tasks.base import UniformTasks
from engine.tasks.table import build_task, build_tasks, extremes
from engine.terms.base import TERMS


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
    meta, objective = dict(preset["meta"]), dict(preset["objective"])
    estimator = meta.pop("estimator")
    estimator_settings = {item.name: meta.pop(item.name) for item in schema_of(ESTIMATORS[estimator])}
    terms = objective.pop("terms")
    return MetaTrainer(
        UniformTasks([build_tasks(values, data_dir=data_dir, device=device, dtype=dtype) for values in preset.tasks]),
        from_table(preset["optimizer"]),
        {name: PENALTIES.create(name, **values) for name, values in preset["penalty"].items()},
        estimator=ESTIMATORS.create("second_order" if meta["second_order"] else estimator, **estimator_settings),
        objective=ObjectiveSettings(**objective),
        terms={name: TERMS.create(name, **values) for name, values in terms.items()},
        settings=MetaSettings(**meta),
        evaluation=EvaluationSettings(**preset["evaluation"]),
        seed=preset.seed,
        device=device,
        init_phi=init_phi,
        team=team,
    )


def memory_plan(preset: Preset, *, device: torch.device, data_dir: Path | None = None) -> MemoryPlan:
    """What a preset's meta-training takes in memory on a device: of several tasks, or draws, the one that takes most.

    Reads the data and computes nothing; the device need not be there. Raises PresetError or DataError.
    """
    cpu = torch.device("cpu")
    trainer = meta_trainer(preset, device=cpu, data_dir=data_dir)
    tables = (table for values in preset.tasks for table in extremes(values))
    return plan(trainer, (build_task(table, data_dir=data_dir, device=cpu) for table in tables), device)
