"""Scaling: how time and memory grow with coordinates, meta-batch, truncation, unroll and population."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from engine.base.device import timed
from engine.bench.memory import peak_bytes
from engine.bench.needs import free_memory, lacking
from engine.bench.scene import RandomTask, Setup, scene
from engine.bench.works import TRUNCATION, Workload
from engine.meta_training.estimators import ESTIMATORS
from engine.meta_training.inner_steps import Inputs

WIDTHS = (1, 13, 126, 1258, 12578)  # of the mlp: 805 to 10 million coordinates
META_BATCHES = (1, 4, 16, 64)
TRUNCATIONS = (20, 50, 100, 200)
UNROLLS = (200, 1000, 10_000)
POPULATIONS = (2, 8, 32, 64)
WIDTH, SMALL_WIDTH = 20, 2  # where something else grows: 15,910 coordinates; 1,600 for the long unrolls
ROUNDS, ENOUGH_S = 5, 1.0  # a call is timed so often, or so long; the fastest counts


@dataclass(frozen=True)
class Size:
    """Meta-training by dm on an mlp, of a size."""

    axis: str  # what grows
    value: int
    width: int
    meta_batch: int = 1
    truncation: int = TRUNCATION
    unroll: int = TRUNCATION
    population: int = 1  # particles of evolution strategies; 1: back-propagation

    def work(self, device: torch.device) -> tuple[Setup, Callable[[], object]]:
        task = RandomTask("mlp", device=device, hidden=[self.width])
        piece = Workload("meta-train" if self.population == 1 else "es", "dm", "mlp", self.meta_batch)
        setup = scene(piece, task, self.truncation)
        if self.population > 1:
            estimator = ESTIMATORS.create("es", pairs=self.population // 2, sigma=setup.estimator.sigma, fitness="raw")
            setup = replace(setup, estimator=estimator)
        return setup, partial(_unroll, setup, self.unroll) if self.unroll > self.truncation else setup.run


def sizes() -> list[Size]:
    """All of them, axis by axis, the small ones first."""
    base = partial(Size, width=WIDTH)
    return [
        *(Size("coordinates", 795 * width + 10, width) for width in WIDTHS),
        *(base("meta-batch", number, meta_batch=number) for number in META_BATCHES),
        *(base("truncation", steps, truncation=steps, unroll=steps) for steps in TRUNCATIONS),
        *(Size("unroll", steps, SMALL_WIDTH, unroll=steps) for steps in UNROLLS),
        *(base("population", number, population=number) for number in POPULATIONS),
    ]


def growth(device: torch.device, quick: bool = False) -> Iterator[dict[str, Any]]:
    """A row for each size: "scaling" (what grows) and its "value", "ms", "memory_bytes" (the peak beyond what was there
    before; None where it cannot be told), and both by what they should be proportional to: "ns_per_coordinate_step"
    (coordinates of all optimizees and particles times inner steps) and "bytes_per_coordinate".

    Cost is linear where these are constant. What would not fit in memory has "skipped", the reason, instead.
    """
    before: dict[str, Any] = {}
    for size in sizes():
        row: dict[str, Any] = {"scaling": size.axis, "value": size.value}
        if reason := _too_large(row, before, device):
            yield {**row, "skipped": reason}
            continue
        setup, call = size.work(device)
        seconds, memory = _measured(call, device, 1 if quick else ROUNDS)
        coordinates = setup.coordinates * size.population
        row |= {"coordinates": setup.coordinates, "meta_batch": size.meta_batch, "population": size.population}
        row |= {"truncation": size.truncation, "unroll": size.unroll, "ms": 1e3 * seconds, "memory_bytes": memory}
        row["ns_per_coordinate_step"] = 1e9 * seconds / (coordinates * size.unroll)
        row["bytes_per_coordinate"] = None if memory is None else memory / coordinates
        before = row
        yield row
        del setup, call  # before the next one is made
        gc.collect()


def _too_large(row: dict[str, Any], before: dict[str, Any], device: torch.device) -> str:
    """Why a size is left out, from what the one before it took; empty where it is not."""
    if before.get("scaling") != row["scaling"] or not before["memory_bytes"]:
        return ""
    return lacking(before["memory_bytes"] * row["value"] / before["value"], free_memory(device))


def _measured(call: Callable[[], object], device: torch.device, rounds: int) -> tuple[float, int | None]:
    """Seconds and bytes. The first call is timed as well: a long one is not made twice."""
    taken: list[float] = []
    memory = peak_bytes(lambda: taken.append(timed(call, device)), device)
    while len(taken) < rounds and sum(taken) < ENOUGH_S:
        taken.append(timed(call, device))
    return min(taken), memory


def _unroll(setup: Setup, steps: int) -> None:
    """Truncation after truncation, each with its meta-gradient."""
    carry, weights = setup.carry, [1.0] * setup.steps
    for _ in range(steps // setup.steps):
        inputs = Inputs(setup.window, weights, setup.generator())
        done, carry = setup.run_truncation(setup.objective, setup.phi, carry, inputs)
        done.meta_gradient(setup.objective, setup.phi, carry.inner_step - 1)
