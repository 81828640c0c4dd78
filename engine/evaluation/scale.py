"""The scale of a learned optimizer: one constant factor of its updates, chosen on validation.

Meta-training may leave a learned optimizer too timid; a factor is the cheapest improvement there is, and a fair one
where it is chosen on the validation split of the tasks that the run was meta-trained on, never on a test.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from engine.base.errors import RunError
from engine.base.files import write_atomic
from engine.evaluation.transfer_plan import Planned
from engine.runs.reader import RunReader

BEST = "best"
Finished = tuple[Planned, Mapping[str, Any]]
"""An evaluation of a plan and what it gave."""


def best_scale(reader: RunReader) -> float:
    """The scale that is kept with a run. Raises RunError where none was chosen yet."""
    recorded = reader.best_scale()
    if not recorded:
        command = f"lreg transfer {reader.id} --scales 0.5,0.7,1,1.4,2,2.8"
        raise RunError(f"run {reader.id} has no scale chosen on validation yet: {command}")
    return float(recorded["scale"])


def keep_best(reader: RunReader, finished: Iterable[Finished]) -> float | None:
    """Choose among the scales of checkpoint best that were evaluated on the run's own tasks; write scale.json.

    Other checkpoints have other scales, and whoever loads the run's scale takes the best checkpoint with it. Returns
    the scale; None where not all of the run's tasks were evaluated at two scales, or every scale diverged.
    """
    own_tasks = {(task["dataset"], task["optimizee"], task["classes"]) for task in reader.preset().fixed_tasks()}
    losses: dict[float, dict[Any, list[float]]] = {}
    for item, evaluation in finished:
        name = (item.task["dataset"], item.task["optimizee"], item.task["classes"])
        is_scaled = not item.weight_decay and not item.sam
        if is_scaled and item.run == str(reader.path) and item.source == BEST and name in own_tasks:
            losses.setdefault(item.scale, {}).setdefault(name, []).append(_validation_loss(evaluation))
            facts = {"checkpoint": item.source, "inner_steps": item.protocol.inner_steps}
    means = {
        scale: statistics.fmean(map(statistics.fmean, by_task.values()))
        for scale, by_task in losses.items()
        if set(by_task) == own_tasks
    }
    best = min(means, key=lambda scale: means[scale], default=None)
    if best is None or len(means) < 2 or not math.isfinite(means[best]):
        return None
    loss_by_scale = {f"{scale:g}": loss for scale, loss in sorted(means.items()) if math.isfinite(loss)}
    record = {"scale": best, "chosen_on": "validation loss", **facts, "validation_loss": loss_by_scale}
    write_atomic(reader.path / "scale.json", json.dumps(record, indent=1) + "\n")
    return best


def _validation_loss(evaluation: Mapping[str, Any]) -> float:
    """Mean over the optimizees at the last inner step; infinite where one of them diverged."""
    losses = [seed["marks"][-1].get("validation_loss") for seed in evaluation["seeds"] if seed["marks"]]
    sound = [loss for loss in losses if isinstance(loss, (int, float))]
    diverged = any(seed["diverged"] for seed in evaluation["seeds"])
    return statistics.fmean(sound) if sound and len(sound) == len(evaluation["seeds"]) and not diverged else math.inf
