"""A run's learned optimizer, frozen at a checkpoint."""

from __future__ import annotations

import torch

from engine.base.errors import RunError
from engine.optimizers.learned.base import LearnedOptimizer, Phi, from_table
from engine.runs import checkpoint as checkpoints
from engine.runs.store import RunReader

CHECKPOINT = "best"


def load_learned_optimizer(run: RunReader, which: str = CHECKPOINT) -> tuple[LearnedOptimizer, Phi]:
    """A run's learned optimizer and its meta-parameters, on the CPU."""
    phi = checkpoints.load_frozen(run.path, which)
    optimizer = from_table(run.preset()["optimizer"])
    fresh = optimizer.init_phi(torch.Generator())
    if {name: tensor.shape for name, tensor in phi.items()} != {name: tensor.shape for name, tensor in fresh.items()}:
        raise RunError(f"{run.path}: checkpoint {which} does not fit the [optimizer] table of its preset")
    return optimizer, phi
