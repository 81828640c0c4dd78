"""Needs: how long a piece of work would take and how much memory it wants, estimated before it is begun."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from engine import kernels
from engine.bench.limits import ITEM, Limits, flops, timed
from engine.bench.scene import Scene
from engine.flat import gradients_and_losses
from engine.kernels.recompute import ALIVE, GRAPH_BYTES

PATIENCE_S = 100.0  # longer only where it was asked for by name
EAGER_SHARE, OUR_SHARE = 0.08, 0.3  # of the limit, roughly
KEPT_STATES = 8  # of the optimizer, along a truncation, besides features and slopes
USABLE = 0.85  # of the memory that is free
RUNS = 3  # a warm-up and two measurements


@dataclass(frozen=True)
class Pilot:
    """One gradient of one optimizee: seconds, and bytes that autograd keeps for it."""

    seconds: float
    kept_bytes: int


@dataclass(frozen=True)
class Needs:
    """Estimates for one truncation, ours and the reference's."""

    seconds: float  # ours
    eager_seconds: float
    memory: float  # bytes, ours
    eager_memory: float

    def problem(self, free: float, by_name: bool) -> str:
        """Why the work is left out; empty where it is not."""
        if self.memory > free:
            return f"needs about {gigabytes(self.memory)} of memory, {gigabytes(free)} are free"
        if not by_name and (total := RUNS * (self.seconds + self.eager_seconds)) > PATIENCE_S:
            return f"would take about {total / 60:.0f} min on this device: ask for it with --only"
        return ""

    def eager_problem(self, free: float) -> str:
        """Why the reference is left out; empty where it is not."""
        if self.eager_memory > free:
            return f"plain eager PyTorch needs about {gigabytes(self.eager_memory)}, {gigabytes(free)} are free"
        return ""


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"


def free_memory(device: torch.device) -> float:
    """Bytes that may be used on the device."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch may use them again
        return USABLE * (torch.cuda.mem_get_info(device)[0] + kept)
    return USABLE * psutil.virtual_memory().available


def pilot(scene: Scene) -> Pilot:
    """Take one gradient of the first optimizee, twice."""
    theta, batch = scene.carry.theta[:1], type(scene.window[0])(*(part[:1] for part in scene.window[0]))
    kept = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        gradients_and_losses(scene.task.loss, theta, batch)
    return Pilot(timed(lambda: gradients_and_losses(scene.task.loss, theta, batch), scene.task.device), kept)


def estimated(scene: Scene, limits: Limits, one: Pilot, meta_batch: int) -> Needs:
    """What a truncation of the work of a scene with one optimizee takes with `meta_batch`: ours and the reference's."""
    optimizer, work, steps = scene.optimizer, scene.piece.work, scene.steps
    network = optimizer.network
    assert network is not None
    alone = scene.task.parameters  # coordinates of one optimizee: the reference takes them one by one
    everyone = alone * meta_batch
    ascents = [penalty.ascent_steps for penalty in scene.objective.update.values()]  # type: ignore[attr-defined]
    once = flops(network, work, *ascents) / limits.flops_per_s
    passes = 2 if work == "meta-train-sam" else 1
    optimizee = one.seconds * meta_batch * steps
    eager_passes = 1 if work == "frozen" else 1 + passes  # the last backward goes through the optimizee again
    state, item = len(network.units) * network.hidden, scene.carry.theta.element_size()
    if work == "frozen":
        numbers, eager_numbers = 4.0 * state + 10, 4.0 * state + 10
    else:
        inputs = (network.features + 1) * (2 if ascents else 1)
        numbers = steps * (inputs + 4.0) + _state_numbers(scene, everyone, state)
        eager_numbers = steps * ALIVE * state * (3.0 if ascents else 1.0)
    batches = sum(batch.x.numel() * item for batch in {id(batch): batch for batch in scene.window}.values())
    return Needs(
        once * everyone * steps / OUR_SHARE + optimizee * passes,
        once * everyone * steps / EAGER_SHARE + optimizee * eager_passes,
        item * everyone * numbers + (one.kept_bytes + batches) * meta_batch,
        item * alone * eager_numbers + one.kept_bytes * (1 if work == "frozen" else passes * steps) + batches,
    )


def _state_numbers(scene: Scene, coordinates: int, state: int) -> float:
    """Numbers kept by coordinate for the state, by the way that the kernels take."""
    graph = float(scene.steps * ALIVE * state)
    way = kernels.describe(scene.task.device)
    if not way.startswith(("plain", "recompute")):
        return min(float(KEPT_STATES * state), graph)
    anew = way.startswith("recompute") or (kernels.chosen() == "auto" and ITEM * coordinates * graph > kernels.LARGEST_GRAPH)
    return min(graph, 4.0 * state + GRAPH_BYTES / (ITEM * coordinates)) if anew else graph
