"""Landscape worker: computes loss landscapes in a process of its own, for a console that must not import torch.

`python -m engine.jobs.landscape_worker --task D/O --steps N RUN_PATH...` prints a JSON line as each run begins, and
one with each run's landscape. What it computes is kept in the runs' folders, so that nobody pays twice.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.base.device import pick_device, prepare_process
from engine.base.errors import LregError
from engine.base.files import make_folder, read_json, read_limited, strict, write_atomic
from engine.base.status import is_number
from engine.runs.store import RunReader
from engine.runs.writer import slug

FOLDER = "landscape"  # of a run
LARGEST_CHECKPOINT = 2**30  # bytes
GRID = 25  # points in each direction
MOST_POINTS = 201


@dataclass(frozen=True)
class SliceSettings:
    """Whose surroundings are looked at: those of the minimum that optimizee 0 reaches on `task` after `steps` steps."""

    task: str
    steps: int
    points: int = GRID
    extent: float = 1.0


def cache_path(run_path: Path, where: SliceSettings) -> Path | None:
    """Where a run's landscape is kept; another checkpoint has another. None for a run without a checkpoint."""
    try:
        checkpoint = read_limited(run_path / "checkpoint" / "best.safetensors", LARGEST_CHECKPOINT, run_path)
    except OSError:
        return None
    decisive = json.dumps(asdict(where), sort_keys=True).encode() + hashlib.sha256(checkpoint).digest()
    identity = hashlib.sha256(decisive).hexdigest()[:8]
    return run_path / FOLDER / f"{slug(f'{where.task}-{where.steps}')[:40]}-{identity}.json"


def read(run_path: Path, where: SliceSettings) -> dict[str, Any]:
    """A landscape that was kept: offsets, losses (rows of numbers or None), train_loss, test_...; else empty."""
    path = cache_path(run_path, where)
    landscape = read_json(path, below=run_path) if path is not None else {}
    return landscape if is_landscape(landscape) else {}


def is_landscape(landscape: dict[str, Any]) -> bool:
    """Whether that is a square grid of numbers: files may hold anything."""
    offsets, losses = landscape.get("offsets"), landscape.get("losses")
    if not isinstance(offsets, list) or not isinstance(losses, list) or not 2 <= len(offsets) <= MOST_POINTS:
        return False
    is_square = len(losses) == len(offsets) and all(
        isinstance(row, list) and len(row) == len(offsets) and all(is_number(value, True) for value in row)
        for row in losses
    )
    return is_square and all(map(is_number, offsets))


def compute(run_path: Path, where: SliceSettings, device: Any, data_dir: Path | None) -> dict[str, Any]:
    """A run's landscape, kept in its folder where that can be written. Raises LregError."""
    from engine.comparison import group_arms
    from engine.figures.base import Evaluated
    from engine.figures.landscapes import landscapes

    alone = Evaluated(group_arms([RunReader(run_path)]), {}, {}, 0, "", None)
    (panel,), _ = landscapes(alone, device, **asdict(where), data_dir=data_dir)
    values = asdict(panel.landscape)
    test = {f"test_{name}": value for name, value in values.pop("test").items()}
    landscape: dict[str, Any] = strict(values | test | asdict(where))
    path = cache_path(run_path, where)
    try:
        if path is not None:
            make_folder(path.parent)
            write_atomic(path, json.dumps(landscape) + "\n", durable=False)
    except OSError as error:
        print(f"{path}: not kept: {error.strerror}", file=sys.stderr, flush=True)
    return landscape


def main(arguments: list[str] | None = None) -> int:
    name = "python -m engine.jobs.landscape_worker"
    parser = argparse.ArgumentParser(prog=name, description="Compute loss landscapes.")
    parser.add_argument("run_paths", nargs="+", type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--points", type=int, default=GRID)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args(arguments)
    where = SliceSettings(options.task, options.steps, options.points)
    prepare_process()
    try:
        device = pick_device(options.device)
        for path in options.run_paths:
            print(json.dumps({"event": "computing", "run": str(path)}), flush=True)
            landscape = read(path, where) or compute(path, where, device, options.data_dir)
            print(json.dumps({"event": "landscape", "run": str(path), **landscape}), flush=True)
    except LregError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
