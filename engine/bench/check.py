"""Check: whether the way that is measured gives the reference's numbers. A small task, the same code."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from engine import kernels
from engine.bench import reference
from engine.bench.scene import RandomTask, Setup, scene
from engine.bench.works import PARTICLES, Workload

BOUNDS = {torch.float64: 1e-9, torch.float32: 2e-3}
OPTIMIZEES = 2  # at most, so that the mean over them is met
INPUT_SHAPE, BATCH_SIZE = (1, 8, 8), 16  # of an mlp with 1,510 coordinates: no multiple of any block


def agreement(piece: Workload, device: torch.device) -> dict[str, Any]:
    """The largest difference from the reference, relative to the largest number of the same tensor, and its bound.

    In float64, unless the device or its kernels know float32 alone; and in float32, which is what is timed, with the
    bound of that precision. Of meta-training the meta-gradient is compared; of a frozen optimizer, how far it took the
    optimizees; of probes the top eigenvalue with the whole Hessian's.
    """
    small = Workload(piece.work, piece.optimizer, "mlp", min(piece.meta_batch, OPTIMIZEES))
    task = partial(RandomTask, "mlp", input_shape=INPUT_SHAPE, batch_size=BATCH_SIZE, device=device)
    return agreement_of(lambda dtype: largest_error(scene(small, task(dtype=dtype))), device)


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


def largest_error(scene: Setup) -> float:
    """The largest relative difference between ours and the reference's numbers for all optimizees of a scene."""
    optimizees = range(scene.piece.meta_batch)
    if scene.piece.work == "probe":
        tops = torch.tensor([at["top_eigenvalue"] for at in scene.figures(scene.reached)], dtype=torch.float64)
        hessians = [torch.func.hessian(scene.probed_loss)(theta) for theta in scene.reached.double()]
        return relative(tops, torch.stack([torch.linalg.eigvalsh(hessian)[-1] for hessian in hessians]).cpu())
    if scene.piece.work in ("frozen", "transfer"):
        start = scene.carry.theta
        return relative(scene.frozen() - start, torch.stack([reference.frozen(scene, b) for b in optimizees]) - start)
    if scene.piece.work in PARTICLES:
        ours, means = scene.evolved(), reference.evolved(scene)
        return largest([relative(ours[name], means[name]) for name in means])
    starts = scene.ascent_starts() if scene.objective.update else None
    gradients = [
        reference.meta_gradient(scene, b, None if starts is None else [start[b] for start in starts])[0]
        for b in optimizees
    ]
    ours = scene.meta_gradient()
    means = {name: torch.stack([gradient[name] for gradient in gradients]).mean(0) for name in gradients[0]}
    return largest([relative(ours[name], means[name]) for name in means])


def largest(errors: list[float]) -> float:
    """The largest; NaN if one is NaN, which `max` would lose."""
    return float(torch.tensor(errors, dtype=torch.float64).max())


def relative(ours: Tensor, reference: Tensor) -> float:
    """The largest difference, as a share of the largest number of the reference."""
    difference, scale = (ours - reference).abs().max(), reference.abs().max()
    return float(difference / scale) if scale > 0 else float(difference)
