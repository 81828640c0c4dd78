"""Runs with transfer evaluations whose figures are known in closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.presets.preset import from_mapping
from engine.runs.store import Run

TASK = {"dataset": "fmnist", "optimizee": "mlp", "batch_size": 128}
RADII = ("0.01", "0.1")
Figures = Callable[[int, int], Mapping[str, Any]]  # of seed and inner step


def make_run(root: Path, name: str, *, seed: int = 0, **tables: Any) -> Run:
    """A run folder with a preset, and nothing measured yet."""
    preset = from_mapping({"name": name, "seed": seed, "task": {"dataset": "digits"}, **tables})
    return Run.create(root / "runs", preset)


def mark(loss: float, sharpness: float = 0.1, **others: Any) -> dict[str, Any]:
    """Figures at one inner step; sharpness and the gradient norm at each radius are multiples of `sharpness`."""
    return {
        "train_loss": loss,
        "test_loss": 1.1 * loss,
        "test_accuracy": 1 - loss / 3,
        "parameter_norm": 10.0,
        "top_eigenvalue": 5 * sharpness,
        "sharpness": {radius: float(radius) * sharpness for radius in RADII},
        "max_grad_norm": {radius: 2 * sharpness for radius in RADII},
        **others,
    }


def evaluation(
    figures: Figures, *, seeds: Sequence[int] = (0, 1, 2), steps: Sequence[int] = (100,), **facts: Any
) -> dict[str, Any]:
    """A transfer file. `figures`: the mark of a seed at an inner step. `diverged`: the seeds that have."""
    diverged = facts.pop("diverged", ())
    return {
        "run": "some",
        "optimizer": "simple",
        "label": "simple (best)",
        "checkpoint": "best",
        "scale": 1.0,
        "task": TASK,
        "created": "2026-11-20T10:00:00Z",
        "protocol": {"inner_steps": max(steps), "examples": 1000, "restarts": 3, "ascent_steps": 20},
        **facts,
        "seeds": [
            {
                "seed": seed,
                "diverged": seed in diverged,
                "curve": {"inner_step": [], "train_loss": []},
                "marks": [{"inner_step": step, **figures(seed, step)} for step in steps],
            }
            for seed in seeds
        ],
    }


def baseline(figures: Figures, name: str = "sgd", **facts: Any) -> dict[str, Any]:
    """A transfer file of a baseline."""
    own = {
        "run": None,
        "optimizer": name,
        "label": name,
        "checkpoint": None,
        "learning_rate": 0.1,
        "passes_per_step": 1,
    }
    return evaluation(figures, **{**own, **facts})


def readers(*runs: Run) -> list:
    from engine.runs.store import RunReader

    return [RunReader(run.path) for run in runs]
