"""Needs: how long a piece of work would take and how much memory it wants, estimated before it is begun."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

from engine import kernels
from engine.base.flat import gradients_and_losses
from engine.bench.limits import ITEM, Limits, flops, timed
from engine.bench.scene import DISTINCT_BATCHES, RandomTask, learned_optimizer
from engine.bench.works import TRUNCATION, Piece
from engine.kernels.recompute import ALIVE, GRAPH_BYTES
from engine.optimizers.learned.base import Network

PATIENCE_S = 100.0  # longer only where it was asked for by name
EAGER_SHARE, OUR_SHARE = 0.08, 0.3  # of the limit, roughly
KEPT_STATES = 8  # of the optimizer, along a truncation, besides features and slopes
USABLE = 0.85  # of the memory that is free
LONG_S = 1.0
RUNS = 3  # a warm-up and two measurements


@dataclass(frozen=True)
class Pilot:
    """One gradient of one optimizee: seconds, bytes that autograd keeps for it, and those of its batch."""

    seconds: float
    kept_bytes: int
    batch_bytes: int


@dataclass(frozen=True)
class Needs:
    """Estimates for one truncation: ours, and the reference's with one optimizee."""

    seconds: float
    eager_seconds: float
    memory: float  # bytes
    eager_memory: float

    def problem(self, free: float, by_name: bool) -> str:
        """Why the work is left out; empty where it is not."""
        if self.memory > free:
            return f"needs about {gigabytes(self.memory)} of memory, {gigabytes(free)} are free"
        eager_seconds = 0.0 if self.eager_problem(free) else self.eager_seconds
        if not by_name and (total := RUNS * (self.seconds + eager_seconds)) > PATIENCE_S:
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


def pilot(task: RandomTask) -> Pilot:
    """Take one gradient of one optimizee, and another one where the first was so short that starting weighs."""
    theta, batch = task.init_theta(0)[None], task.batches([0]).batches[0]
    kept: dict[int, int] = {}  # bytes by place: one tensor may be kept by several functions

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        seconds = timed(lambda: gradients_and_losses(task.loss, theta, batch), task.device)
    if seconds < LONG_S:
        seconds = timed(lambda: gradients_and_losses(task.loss, theta, batch), task.device)
    return Pilot(seconds, sum(kept.values()), batch.x.numel() * batch.x.element_size())


def estimated(piece: Piece, task: RandomTask, limits: Limits, one: Pilot) -> Needs:
    """What a truncation of a piece of work takes, and the reference's of one of its optimizees."""
    network = learned_optimizer(piece).network
    assert network is not None
    everyone = task.parameters * piece.meta_batch  # coordinates
    once = flops(network, piece.work) / limits.flops_per_s * TRUNCATION
    passes = 2 if piece.work == "meta-train-sam" else 1
    eager_passes = 1 if piece.work == "frozen" else 1 + passes  # the last backward goes through the optimizee again
    optimizee = one.seconds * TRUNCATION
    graphs = 1 if piece.work == "frozen" else passes * TRUNCATION  # of one optimizee, alive at once in the reference
    numbers, eager_numbers = _numbers(piece, network, everyone, task.device)
    beside = (one.kept_bytes + DISTINCT_BATCHES * one.batch_bytes) * piece.meta_batch
    return Needs(
        once * everyone / OUR_SHARE + optimizee * passes * piece.meta_batch,
        once * task.parameters / EAGER_SHARE + optimizee * eager_passes,
        ITEM * everyone * numbers + beside,
        ITEM * task.parameters * eager_numbers + one.kept_bytes * graphs,
    )


def _numbers(piece: Piece, network: Network, coordinates: int, device: torch.device) -> tuple[float, float]:
    """Numbers kept by coordinate, by the way that the kernels take and by the reference."""
    state = len(network.units) * network.hidden
    if piece.work == "frozen":
        return 4.0 * state + 10, 4.0 * state + 10
    smooth = piece.work == "meta-train-smooth"
    graph = float(TRUNCATION * ALIVE * state)
    beside = TRUNCATION * ((network.features + 1) * (2 if smooth else 1) + 4.0)  # features, slopes, theta
    return beside + _state_numbers(graph, state, coordinates, device), graph * (3 if smooth else 1)


def _state_numbers(graph: float, state: int, coordinates: int, device: torch.device) -> float:
    way = kernels.describe(device)
    if not way.startswith(("plain", "recompute")):
        return min(float(KEPT_STATES * state), graph)
    too_large = kernels.chosen() == "auto" and ITEM * coordinates * graph > kernels.LARGEST_GRAPH
    anew = way.startswith("recompute") or too_large  # block by block
    return min(graph, 4.0 * state + GRAPH_BYTES / (ITEM * coordinates)) if anew else graph
