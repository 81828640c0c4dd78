"""Limits: what the machine can do, measured, and what a piece of work takes of it, counted.

FLOPs and bytes are those of the learned optimizer's network alone, by coordinate-step: the least that any program
needs. What a kernel computes twice to save memory is not counted, nor is the optimizee.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from engine.base.device import timed
from engine.bench.works import PARTICLES, PROBED
from engine.optimizers.learned.base import Network
from engine.penalties.smooth import Smooth

GEMM_SIZES = {"cpu": (512, 1024, 2048), "other": (2048, 4096, 8192)}
COPY_BYTES = {"cpu": 2**27, "other": 2**30}  # far beyond any cache
SECONDS = 0.3  # for each size
ITEM = 4  # bytes of a float32
FORWARD = ("frozen", *PARTICLES, *PROBED)  # works without a way back


@dataclass(frozen=True)
class Limits:
    """What the device can do in float32 with the threads of this run."""

    flops_per_s: float  # of the best square matrix product
    bytes_per_s: float  # of a copy: bytes read and bytes written

    def seconds(self, flops: float, moved: float) -> float:
        """The least time for so many FLOPs and bytes: they go side by side."""
        return max(flops / self.flops_per_s, moved / self.bytes_per_s)

    def least_seconds(self, work: str, network: Network | None, coordinate_steps: int) -> float:
        """The time below which no float32 program of this device does the network's part of the work; 0 without one."""
        if network is None:
            return 0.0
        return coordinate_steps * self.seconds(flops(network, work), moved_bytes(network, work))


def measured(device: torch.device) -> Limits:
    """Measure the device's limits: a second or two."""
    kind = "cpu" if device.type == "cpu" else "other"
    flops = 0.0
    for size in GEMM_SIZES[kind]:
        left, right = torch.randn(2, size, size, device=device)
        out = torch.empty_like(left)
        flops = max(flops, 2 * size**3 / _fastest(lambda a=left, b=right, o=out: torch.mm(a, b, out=o), device))  # type: ignore[misc]
    source = torch.ones(COPY_BYTES[kind] // ITEM, device=device)
    target = torch.empty_like(source)
    return Limits(flops, 2 * COPY_BYTES[kind] / _fastest(lambda: target.copy_(source), device))


def _fastest(call: Callable[[], object], device: torch.device) -> float:
    timed(call, device)
    taken = [timed(call, device) for _ in range(3)]
    while sum(taken) < SECONDS:
        taken.append(timed(call, device))
    return min(taken)


def forward_flops(network: Network) -> tuple[int, int]:
    """FLOPs of one update of one coordinate, 2 for every weight of every matrix (dm with 2 layers of 20: 9,960): those
    that depend on the features within a step, and those of the matrices that act on the state.
    """
    gates, hidden = (4 if network.cell == "lstm" else 1), network.hidden
    entered = hidden if network.entrance else network.features
    entrance = network.features * hidden if network.entrance else 0
    inputs = 2 * (entrance + gates * hidden * (entered + (network.layers - 1) * hidden) + hidden)
    return inputs, 2 * network.layers * gates * hidden**2


def flops(network: Network, work: str) -> int:
    """FLOPs of a coordinate-step of a piece of work.

    frozen, es, pes: one forward pass. meta-train: three (forward, slopes of inputs and of weights). With the smoothness
    penalty the state's part of the gates is the same in all passes of a step, and so counts once: an ascent step is a
    forward and a backward pass of the input's part, and the worst point three more.
    """
    inputs, state = forward_flops(network)
    if work in FORWARD:
        return inputs + state
    ascent = (2 * Smooth().ascent_steps + 3) * inputs if work == "meta-train-smooth" else 0
    return 3 * (inputs + state) + ascent


def moved_bytes(network: Network, work: str) -> int:
    """Bytes of a coordinate-step that must go through memory: the state in and out, gradient, theta and update.

    Meta-training writes features and the slope of the update as well, and reads them when it pulls back; that can be
    done for a block of coordinates at a time, whose state stays in cache.
    """
    written = 2 * network.features + 2  # features and a slope, and read again
    times = 0 if work in FORWARD else 2 if work == "meta-train-smooth" else 1
    state = 2 * len(network.units) * network.hidden
    return ITEM * (state + 4 + times * written)  # 4: gradient read, theta read and written, update written
