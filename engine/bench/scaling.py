"""Scaling: how time grows with coordinates, inner steps and meta-batch, and memory with the truncation."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

import torch

from engine.base.errors import LregError
from engine.bench.limits import timed
from engine.bench.memory import peak_bytes, process_peak_bytes
from engine.bench.scene import RandomTask, Scene, scene
from engine.bench.works import TRUNCATION, Piece

AXES = ("coordinates", "steps", "meta_batch")
FACTORS = (1, 2, 4, 8)
HIDDEN = 20  # of the mlp: 15,910 coordinates
TRUNCATIONS = (20, 100, 200)
ROUNDS = 3


def growth(device: torch.device, quick: bool = False) -> Iterator[dict[str, Any]]:
    """Meta-training by dm on an mlp with one thing made larger: linear cost is a constant ns_per_coordinate_step.

    Yields a dict for each size: "scaling" (what grows), "factor", its sizes, "ms" of a truncation, the fastest of
    three, and "ns_per_coordinate_step".
    """
    for axis in AXES:
        scenes = [_scene(axis, factor, device) for factor in FACTORS]
        rounds = [  # after a warm-up; in turn: a disturbance meets all sizes
            [timed(one.run, device) for one in scenes] for _ in range(1 + (1 if quick else ROUNDS))
        ]
        for factor, one, seconds in zip(FACTORS, scenes, map(min, zip(*rounds, strict=True)), strict=True):
            sizes = {"coordinates": one.coordinates, "truncation": one.steps, "meta_batch": one.piece.meta_batch}
            each = 1e9 * seconds / (one.coordinates * one.steps)
            yield {"scaling": axis, "factor": factor, **sizes, "ms": 1e3 * seconds, "ns_per_coordinate_step": each}


def _scene(axis: str, factor: int, device: torch.device) -> Scene:
    hidden = HIDDEN * factor if axis == "coordinates" else HIDDEN
    task = RandomTask("mlp", device=device, hidden=[hidden])
    piece = Piece("meta-train", "dm", "mlp", factor if axis == "meta_batch" else 1)
    return scene(piece, task, TRUNCATION * factor if axis == "steps" else TRUNCATION)


def memory(device: torch.device) -> Iterator[dict[str, Any]]:
    """Peak memory of one truncation of each length at 15,910 coordinates, each in a process of its own.

    Yields "scaling": "memory", "truncation", "memory_bytes" of the truncation alone (None where it cannot be told), and
    "process_bytes", the peak of the whole process, torch included. Raises LregError where a process fails.
    """
    for steps in TRUNCATIONS:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            try:
                taken = pool.submit(_memory_of, steps, str(device), torch.get_num_threads()).result()
            except BrokenProcessPool:
                raise LregError(f"truncation {steps} in a process of its own: killed, perhaps for its memory") from None
        yield {"scaling": "memory", "truncation": steps, **taken}


def _memory_of(steps: int, device: str, threads: int) -> dict[str, Any]:
    """What the process of its own does: one truncation."""
    torch.set_num_threads(threads)
    place = torch.device(device)
    one = scene(Piece("meta-train", "dm", "mlp", 1), RandomTask("mlp", device=place), steps)
    return {"memory_bytes": peak_bytes(one.run, place), "process_bytes": process_peak_bytes()}
