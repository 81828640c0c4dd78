"""The figure of loss landscapes: one panel a run, computed when it is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import LregError
from engine.comparison import ArmRun, MetricAt, TaskOutcomes
from engine.evaluation.transfer_plan import target
from engine.figures.base import Evaluated
from engine.presets.tables import stages
from engine.runs.evaluations import SHARPNESS, task_name

if TYPE_CHECKING:
    import torch

    from engine.evaluation.landscape import LandscapeSlice

MOST_RUNS = 9
SEED = 0  # of the optimizee
CAPTION = (
    "Train loss around the minimum that optimizee {seed} reached after {steps} inner steps on {task}, in two random "
    "directions with the norms of its filters (Li et al. 2018)."
)


@dataclass(frozen=True)
class LandscapePanel:
    """A run's landscape. `sharpness` is that of the transfer evaluation at `radius`; None where there is none."""

    title: str
    landscape: LandscapeSlice
    radius: str
    sharpness: float | None


def landscapes(
    evaluated: Evaluated,
    device: torch.device,
    *,
    task: str | None = None,
    steps: int | None = None,
    points: int = 25,
    extent: float = 1.0,
    data_dir: Path | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> tuple[list[LandscapePanel], str]:
    """A panel for each run, and a sentence for the caption. `report` is told what is being computed.

    `task`: DATASET/OPTIMIZEE, None for the one that the first run was trained on; `steps`: inner steps, None for the
    most that were evaluated there. Raises LregError where a run has no checkpoint, or the task is not known or lacks
    its data.
    """
    runs = [(arm, run) for arm in evaluated.ordered_arms for run in arm.runs]
    if len(runs) > MOST_RUNS:
        raise LregError(f"--figure landscape: {len(runs)} runs are too many for one page; at most {MOST_RUNS}")
    from engine.evaluation.frozen import load_learned_optimizer
    from engine.evaluation.landscape import landscape
    from engine.tasks.table import build_task

    values = _task_values(evaluated.ordered_arms[0].runs[0], task)
    optimizers = [load_learned_optimizer(run.reader) for _, run in runs]  # before anything is computed
    target_task = build_task(values, data_dir=data_dir, device=device)
    outcomes = evaluated.marks.get(task_name(target_task.facts), TaskOutcomes(""))
    steps = _steps(evaluated, outcomes) if steps is None else steps
    panels = []
    for (arm, run), (optimizer, phi) in zip(runs, optimizers, strict=True):
        title = arm.label if len(arm.runs) == 1 else f"{arm.label}, meta-seed {run.meta_seed}"
        report(f"landscape of {title}")
        phi = {name: tensor.to(device, target_task.dtype) for name, tensor in phi.items()}
        made = landscape(target_task, optimizer, phi, seed=SEED, steps=steps, points=points, extent=extent)
        entry = outcomes.main(arm)
        outcome = entry.at(steps).get(run.meta_seed, {}).get(SEED) if entry else None
        sharpness = outcome.metrics.get(MetricAt(SHARPNESS, evaluated.radius)) if outcome else None
        panels.append(LandscapePanel(title, made, evaluated.radius, sharpness))
    return panels, CAPTION.format(seed=SEED, steps=steps, task=target_task.name)


def _task_values(run: ArmRun, name: str | None) -> dict[str, Any]:
    """A [task] table: one of the run's own, or another dataset and optimizee with its batch size."""
    preset = run.reader.preset()
    tasks = preset.fixed_tasks()
    own = next((task for task in tasks if name in (None, f"{task['dataset']}/{task['optimizee']}")), None)
    return own if own is not None else target(str(name), preset, {}, "--task")


def _steps(evaluated: Evaluated, outcomes: TaskOutcomes) -> int:
    """The longest that was evaluated on the task, else the longest that the first run was meta-trained for."""
    if outcomes.steps:
        return max(outcomes.steps)
    return max(stages(evaluated.ordered_arms[0].runs[0].reader.preset()["meta"]))
