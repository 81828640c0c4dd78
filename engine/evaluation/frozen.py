"""A run's learned optimizer, frozen at a checkpoint."""

from __future__ import annotations

from engine.base.errors import RunError
from engine.optimizers.learned.base import LearnedOptimizer, Phi, fits, from_table
from engine.runs import checkpoint as checkpoints
from engine.runs.store import RunReader

CHECKPOINT = "best"


def load_learned_optimizer(run: RunReader, checkpoint: str = CHECKPOINT) -> tuple[LearnedOptimizer, Phi]:
    """A run's learned optimizer and its meta-parameters, on the CPU."""
    phi = checkpoints.load_frozen(run.path, checkpoint)
    optimizer = from_table(run.preset()["optimizer"])
    if not fits(optimizer, phi):
        raise RunError(f"{run.path}: checkpoint {checkpoint} does not fit the [optimizer] table of its preset")
    return optimizer, phi
