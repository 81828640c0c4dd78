"""Check: whether the way that is measured gives the reference's numbers. A small task, the same code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine import kernels
from engine.bench import reference, runs
from engine.bench.scene import RandomTask, Scene, scene
from engine.bench.works import Piece

BOUNDS = {torch.float64: 1e-9, torch.float32: 2e-3}
OPTIMIZEES = 2  # at most, so that the mean over them is met
INPUT_SHAPE, BATCH_SIZE = (1, 8, 8), 16  # of an mlp with 1,510 coordinates: no multiple of any block


def agreement(piece: Piece, device: torch.device) -> dict[str, Any]:
    """The largest difference from the reference, relative to the largest number of the same tensor, and its bound.

    In float64, unless the device or its kernels know float32 alone; and in float32, which is what is timed, with the
    bound of that precision. Of meta-training the meta-gradient is compared; of a frozen optimizer, how far it took the
    optimizees.
    """
    return agreement_of(lambda dtype: _error(piece, device, dtype), device)


def agreement_of(error: Callable[[torch.dtype], float], device: torch.device) -> dict[str, Any]:
    """The same of an error that can be measured in a precision."""
    dtype = torch.float64
    if device.type == "mps" or kernels.describe(device, torch.float64) != kernels.describe(device):
        dtype = torch.float32
    timed = error(torch.float32)
    return {
        "max_error": timed if dtype == torch.float32 else error(dtype),
        "error_bound": BOUNDS[dtype],
        "checked_in": str(dtype).removeprefix("torch."),
        "max_error_float32": timed,
        "error_bound_float32": BOUNDS[torch.float32],
    }


def _error(piece: Piece, device: torch.device, dtype: torch.dtype) -> float:
    small = Piece(piece.work, piece.optimizer, "mlp", min(piece.meta_batch, OPTIMIZEES))
    task = RandomTask("mlp", input_shape=INPUT_SHAPE, batch_size=BATCH_SIZE, device=device, dtype=dtype)
    return largest_error(scene(small, task))


def largest_error(place: Scene) -> float:
    """The largest relative difference between ours and the reference's numbers for all optimizees of a scene."""
    if place.piece.work == "frozen":
        start, found = place.carry.theta, runs.frozen(place)
        there = torch.stack([reference.frozen(place, index) for index in range(place.piece.meta_batch)])
        return relative(found - start, there - start)
    starts = place.ascent_starts() if place.objective.update else None
    gradients = []
    for index in range(place.piece.meta_batch):
        own = [start[index] for start in starts] if starts is not None else None
        gradients.append(reference.meta_gradient(place, index, own)[0])
    ours = runs.meta_gradient(place)
    means = {name: torch.stack([gradient[name] for gradient in gradients]).mean(0) for name in gradients[0]}
    return largest([relative(ours[name], means[name]) for name in means])


def largest(errors: list[float]) -> float:
    """The largest; NaN if one is NaN, which `max` would lose."""
    return float(torch.tensor(errors, dtype=torch.float64).max())


def relative(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a share of the largest number wanted."""
    difference, scale = (found - wanted).abs().max(), wanted.abs().max()
    return float(difference / scale) if scale > 0 else float(difference)
