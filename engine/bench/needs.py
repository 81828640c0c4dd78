"""MemoryNeeds: how long a piece of work would take and how much memory it wants, estimated before it is begun."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

from engine import kernels
from engine.base.flat import gradients_and_losses
from engine.bench.limits import FORWARD, ITEM, Limits, flops, timed
from engine.bench.scene import DISTINCT_BATCHES, PAIRS, PROBES, RandomTask, network_of, state_bytes
from engine.bench.works import BATCH_SIZE, PARTICLES, PROBED, TRUNCATION, Workload
from engine.kernels.recompute import ALIVE, GRAPH_BYTES

PATIENCE_S = 100.0  # longer only where it was asked for by name
EAGER_SHARE, OUR_SHARE = 0.08, 0.3  # of the limit, roughly
KEPT_STATES = 8  # of the optimizer, along a truncation, besides features and slopes
USABLE = 0.85  # of the memory that is free
LONG_S = 1.0
PROBE_GRADIENTS = 2000  # of all searches at default settings, on as many examples as a batch has, in float32
RUNS = 3  # a warm-up and two measurements


@dataclass(frozen=True)
class Pilot:
    """One gradient of one optimizee: seconds, bytes that autograd keeps for it, and those of its batch."""

    seconds: float
    kept_bytes: int
    batch_bytes: int


@dataclass(frozen=True)
class MemoryNeeds:
    """Estimates for one truncation: ours, and the reference's with one optimizee."""

    seconds: float
    eager_seconds: float
    memory: float  # bytes
    eager_memory: float

    def problem(self, free: float, by_name: bool) -> str:
        """Why the work is left out; empty where it is not."""
        if lacks := lacking(self.memory, free):
            return lacks
        eager_seconds = 0.0 if self.eager_problem(free) else self.eager_seconds
        if not by_name and (total := RUNS * (self.seconds + eager_seconds)) > PATIENCE_S:
            return f"would take about {total / 60:.0f} min on this device: ask for it with --only"
        return ""

    def eager_problem(self, free: float) -> str:
        """Why the reference is left out; empty where it is not."""
        return lacking(self.eager_memory, free, "plain eager PyTorch needs")


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


def estimated(piece: Workload, task: RandomTask, limits: Limits, pilot: Pilot) -> MemoryNeeds:
    """What a truncation of a piece of work takes, and the reference's of one of its optimizees."""
    times = 2 * PAIRS if piece.work in PARTICLES else 1  # that every optimizee is trained
    network, everyone = network_of(piece), task.parameters * piece.meta_batch * times  # coordinates
    is_frozen = piece.work in FORWARD
    once = (flops(network, piece.work) if network else 0) / limits.flops_per_s * TRUNCATION
    passes = 2 if piece.work == "meta-train-sam" else 1
    eager_passes = 1 if is_frozen else 1 + passes  # the last backward goes through the optimizee again
    optimizee = pilot.seconds * TRUNCATION * times
    graphs = 1 if is_frozen else passes * TRUNCATION  # of one optimizee, alive at once in the reference
    state = state_bytes(piece) // ITEM
    numbers = eager_numbers = 4.0 * state + 10  # kept by coordinate
    if not is_frozen:
        updates = 2 if piece.work == "meta-train-smooth" else 1
        graph = float(TRUNCATION * ALIVE * state)
        features = network.features if network else 0
        beside = TRUNCATION * ((features + 1) * updates + 4.0)  # features, slopes, theta
        numbers = beside + _state_numbers(graph, state, everyone, task.device)
        eager_numbers = graph * (2 * updates - 1)
    of_optimizee: float = times * pilot.kept_bytes + DISTINCT_BATCHES * pilot.batch_bytes  # activations and batches
    if piece.work in PROBED:  # a graph of gradients of gradients on all examples in float64, and searches there
        examples = PROBES.examples / BATCH_SIZE
        of_optimizee += 2 * examples * pilot.kept_bytes
        optimizee += PROBE_GRADIENTS * examples * pilot.seconds
    return MemoryNeeds(
        once * everyone / OUR_SHARE + optimizee * passes * piece.meta_batch,
        once * task.parameters * times / EAGER_SHARE + optimizee * eager_passes,
        ITEM * everyone * numbers + of_optimizee * piece.meta_batch,
        ITEM * task.parameters * eager_numbers + pilot.kept_bytes * graphs,
    )


def _state_numbers(graph: float, state: int, coordinates: int, device: torch.device) -> float:
    way = kernels.describe(device)
    if not way.startswith(("plain", "rows", "recompute")):
        return min(float(KEPT_STATES * state), graph)
    too_large = kernels.chosen() == "auto" and ITEM * coordinates * graph > kernels.LARGEST_GRAPH
    anew = way.startswith("recompute") or too_large  # block by block
    return min(graph, 4.0 * state + GRAPH_BYTES / (ITEM * coordinates)) if anew else graph
