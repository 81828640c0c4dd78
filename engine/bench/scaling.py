"""Scaling: how time grows with coordinates, inner steps and meta-batch, and memory with the truncation."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from engine.base.errors import LregError, printable
from engine.bench.limits import timed
from engine.bench.memory import peak_bytes, process_peak_bytes
from engine.bench.runs import run
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
        places = [_scene(axis, factor, device) for factor in FACTORS]
        fastest = [_round(place, device) for place in places]
        for _ in range(1 if quick else ROUNDS):  # in turn: a disturbance meets all sizes
            again = [_round(place, device) for place in places]
            fastest = [min(pair) for pair in zip(fastest, again, strict=True)]
        for factor, place, seconds in zip(FACTORS, places, fastest, strict=True):
            sizes = {"coordinates": place.coordinates, "truncation": place.steps, "meta_batch": place.piece.meta_batch}
            each = 1e9 * seconds / (place.coordinates * place.steps)
            yield {"scaling": axis, "factor": factor, **sizes, "ms": 1e3 * seconds, "ns_per_coordinate_step": each}


def _round(place: Scene, device: torch.device) -> float:
    return timed(lambda: run(place), device)


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
        yield {"scaling": "memory", "truncation": steps, **_in_a_child(steps, device)}


def _in_a_child(steps: int, device: torch.device) -> dict[str, Any]:
    root = str(Path(__file__).parents[2])
    folders = sys.path if root in sys.path else [root, *sys.path]
    code = "import sys; sys.path[:] = sys.argv[4:]; from engine.bench import scaling; scaling.main(sys.argv[1:4])"
    arguments = [str(steps), str(device), str(torch.get_num_threads()), *folders]
    child = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
    )
    if child.returncode:
        said = child.stderr.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
        raise LregError(f"truncation {steps} in a process of its own: {printable(said[0])}")
    return json.loads(child.stdout.splitlines()[-1])


def main(arguments: list[str]) -> None:
    """What the child does: one truncation; prints its memory as JSON."""
    steps, device = int(arguments[0]), torch.device(arguments[1])
    torch.set_num_threads(int(arguments[2]))
    place = scene(Piece("meta-train", "dm", "mlp", 1), RandomTask("mlp", device=device), steps)
    taken = peak_bytes(lambda: run(place), device)
    print(json.dumps({"memory_bytes": taken, "process_bytes": process_peak_bytes()}))
