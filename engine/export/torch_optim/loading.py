"""The learned optimizer of a run, or of an exported file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Literal

from torch import Tensor

from engine.base.errors import RunError, printable
from engine.evaluation.frozen import CHECKPOINT, load_learned_optimizer
from engine.evaluation.scale import best_scale
from engine.export.optimizer import load_exported
from engine.export.shipped import file_of
from engine.export.torch_optim.groups import number
from engine.export.torch_optim.optimizer import LoadedOptimizer, Nonfinite
from engine.optimizers.learned.base import without_start
from engine.runs.store import RunReader, RunStore


def load_optimizer(
    run: str | os.PathLike[str] | RunReader,
    params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
    lr: float = 1.0,
    weight_decay: float = 0.0,
    scale: float | Literal["best"] = 1.0,
    *,
    checkpoint: str | None = None,
    nonfinite: Nonfinite = "skip",
    horizon: int | None = None,
) -> LoadedOptimizer:
    """The learned optimizer of a run (path, id, or "last" in the run store) for the parameters of a model of yours.

    Every update is multiplied by `lr`, which schedulers move, and by `scale`, a constant of the run; "best" is the one
    that `lreg transfer --scales` chose on validation. `weight_decay` is decoupled, as AdamW's: lr * weight_decay of a
    parameter goes at every step, so with lr = 1 small values are enough. `checkpoint` is best (on validation; where
    none is given), last, or initial. `nonfinite`: what to do with a step whose gradients are not finite, see
    `LoadedOptimizer`. `horizon`: how many steps the training has, for learned optimizers that go by t / T; None: t / T
    stays 0. Raises RunError where there is no such run, checkpoint or scale, ValueError for other arguments.

    `run` may also be "lreg:NAME", a learned optimizer that comes with lreg (docs/shipped.md), or a file that
    `lreg export --to safetensors` wrote: both hold one checkpoint, and a scale that is multiplied by `scale`, or taken
    as it is for "best".
    """
    if scale != "best":
        scale = number("scale", scale)
    if not isinstance(run, RunReader):
        run = file_of(run)
    if not isinstance(run, RunReader) and run.endswith(".safetensors"):
        learned_optimizer, phi, facts = load_exported(run)
        if checkpoint not in (None, facts["checkpoint"]):
            kept = f"{printable(run)}: holds checkpoint {printable(facts['checkpoint'])!r} alone"
            raise RunError(f"{kept}, found {printable(str(checkpoint))!r}")
        factor = facts["scale"] * (1.0 if scale == "best" else scale)
    else:
        reader = run if isinstance(run, RunReader) else RunStore().resolve(run)
        learned_optimizer, phi = load_learned_optimizer(reader, CHECKPOINT if checkpoint is None else checkpoint)
        factor = best_scale(reader) if scale == "best" else scale
    if learned_optimizer.uses_task:
        told = f"{learned_optimizer.name} looks at the episodes that it trains on, which parameters alone do not have"
        raise RunError(f"{printable(str(run))}: {told}; allowed: a run of another learned optimizer")
    values = {"lr": lr, "weight_decay": weight_decay, "scale": factor}
    return LoadedOptimizer(
        params, learned_optimizer, without_start(phi), **values, nonfinite=nonfinite, horizon=horizon
    )
