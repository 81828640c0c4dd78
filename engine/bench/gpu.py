"""GPU: what it is and can do, with every kernel and recording tried anew: a report for an issue."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from typing import NamedTuple

import torch

from engine import kernels
from engine.base.device import timed
from engine.bench import check, limits, works
from engine.bench.scene import RandomTask, scene
from engine.kernels import trial
from engine.meta_training import recording

PIECES = (
    "meta-train/dm/mlp/1",
    "meta-train/rnnprop/mlp/1",
    "meta-train-smooth/dm/mlp/1",
    "meta-train/dm/mlp/8",
    "meta-train-sam/dm/conv3/1",
)
CALLS = 6  # of each: kernels are tried, the truncation is recorded, the recording is tried, then checked


class ReportLine(NamedTuple):
    """A line of the report. `problem`: that is what the issue is about."""

    name: str
    text: str
    problem: bool = False


def report(device: torch.device) -> Iterator[ReportLine]:
    """Everything at once, a line as soon as it is known. What was known of the device is forgotten first."""
    yield ReportLine("device", trial.machine(device))
    yield ReportLine("software", _software())
    yield ReportLine("kernels", kernels.describe(device) + recording.describe(device))
    limit = limits.measured(device)
    yield ReportLine("limits", f"{limit.flops_per_s / 1e9:.0f} GFLOP/s in float32, {limit.bytes_per_s / 1e9:.0f} GB/s")
    trial.forget(device)
    verdicts: list[str] = []
    trial.tell(verdicts.append)
    for piece in map(works.piece, PIECES):
        try:
            yield _measured(piece, device)
        except Exception as error:  # what fails is what the report is for
            yield ReportLine(piece.name, trial.reason_of(error), problem=True)
        for verdict in verdicts:
            yield ReportLine("trial", verdict, problem="times as fast" not in verdict)
        verdicts.clear()


def _software() -> str:
    versions = [f"torch {torch.__version__}", f"CUDA {torch.version.cuda}"]
    for package in ("triton", "torchvision", "numpy"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    return ", ".join(versions)


def _measured(piece: works.Workload, device: torch.device) -> ReportLine:
    setup = scene(piece, RandomTask(piece.optimizee, device=device))
    seconds = [timed(setup.run, device) for _ in range(CALLS)]
    agreement = check.agreement(piece, device)
    error, bound = agreement["max_error_float32"], agreement["error_bound_float32"]
    times = f"{1e3 * seconds[0]:.0f} ms at first, {1e3 * min(seconds):.1f} ms later"
    return ReportLine(
        piece.name, f"{times}; error {error:.1e}, at most {bound:g} is allowed", problem=not error <= bound
    )
