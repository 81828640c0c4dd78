"""How much memory a piece of work wants, estimated before it is begun."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

from engine import kernels
from engine.base.device import timed
from engine.base.flat import gradients_and_losses
from engine.bench.limits import FORWARD, ITEM
from engine.bench.scene import DISTINCT_BATCHES, PAIRS, PROBES, RandomTask, network_of, state_bytes
from engine.bench.works import BATCH_SIZE, PARTICLES, PROBED, TRUNCATION, Workload
from engine.kernels.recompute import ALIVE, GRAPH_BYTES

KEPT_STATES = 8  # of the optimizer, along a truncation, besides features and slopes
USABLE = 0.85  # of the memory that is free
LONG_S = 1.0


@dataclass(frozen=True)
class Pilot:
    """One gradient of one optimizee: seconds, bytes that autograd keeps for it, and those of its batch."""

    seconds: float
    kept_bytes: int
    batch_bytes: int


def lacking(memory: float, free: float, words: str = "needs") -> str:
    """What does not fit, in words; empty where it does."""
    return f"{words} about {memory / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free" if memory > free else ""


def free_memory(device: torch.device) -> float:
    """Bytes that may be used on the device."""
    if device.type == "cuda":
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch may use them again
        return USABLE * (torch.cuda.mem_get_info(device)[0] + reusable)
    return USABLE * psutil.virtual_memory().available


def pilot(task: RandomTask) -> Pilot:
    """Take one gradient of one optimizee, and another one where the first was so short that starting weighs."""
    theta, batch = task.init_theta(0)[None], task.batches([0]).batches[0]
    saved: dict[int, int] = {}  # bytes by place: one tensor may be kept by several functions

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        seconds = timed(lambda: gradients_and_losses(task.loss, theta, batch), task.device)
    if seconds < LONG_S:
        seconds = timed(lambda: gradients_and_losses(task.loss, theta, batch), task.device)
    return Pilot(seconds, sum(saved.values()), batch.x.numel() * batch.x.element_size())


def estimated(piece: Workload, task: RandomTask, pilot: Pilot) -> tuple[float, float]:
    """Bytes of a truncation of a piece of work, and of the reference's of one of its optimizees."""
    times = 2 * PAIRS if piece.work in PARTICLES else 1  # that every optimizee is trained
    network, everyone = network_of(piece), task.parameters * piece.meta_batch * times  # coordinates
    state = state_bytes(piece) // ITEM
    numbers = eager_numbers = 4.0 * state + 10  # kept by coordinate
    graphs = 1  # of one optimizee, alive at once in the reference
    if piece.work not in FORWARD:
        graphs = TRUNCATION * (2 if piece.work == "meta-train-sam" else 1)
        updates = 2 if piece.work == "meta-train-smooth" else 1
        graph = float(TRUNCATION * ALIVE * state)
        features = network.features if network else 0
        beside = TRUNCATION * ((features + 1) * updates + 4.0)  # features, slopes, theta
        numbers = beside + _state_numbers(graph, state, everyone, task.device)
        eager_numbers = graph * (2 * updates - 1)
    of_optimizee: float = times * pilot.kept_bytes + DISTINCT_BATCHES * pilot.batch_bytes  # activations and batches
    if piece.work in PROBED:  # a graph of gradients of gradients on all examples in float64
        of_optimizee += 2 * PROBES.examples / BATCH_SIZE * pilot.kept_bytes
    ours = ITEM * everyone * numbers + of_optimizee * piece.meta_batch
    return ours, ITEM * task.parameters * eager_numbers + pilot.kept_bytes * graphs


def _state_numbers(graph: float, state: int, coordinates: int, device: torch.device) -> float:
    way = kernels.describe(device)
    if not way.startswith(("plain", "rows", "recompute")):
        return min(float(KEPT_STATES * state), graph)
    too_large = kernels.chosen() == "auto" and ITEM * coordinates * graph > kernels.LARGEST_GRAPH
    anew = way.startswith("recompute") or too_large  # block by block
    return min(graph, 4.0 * state + GRAPH_BYTES / (ITEM * coordinates)) if anew else graph
