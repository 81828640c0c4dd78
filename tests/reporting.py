"""What the tests of the report share: studies whose runs and transfers were made by hand, with known figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import studying

from engine.study.plan.plan import ArmPlan, Cell, StudyAxis, StudyPlan, TransferSpec
from engine.study.schedule.loop import StudyJob

RADII = ("0.01", "0.05", "0.1")
STEPS = (50, 100)
SEEDS = (0, 1, 2, 3, 4)
FACTS = {"versions": {"lreg": "0.1.0", "torch": "2.6.0"}, "host": "somewhere", "git": "5e577e36"}
LOG = """2026-11-20T21:15:00Z process 7: lreg study tried
2026-11-20T21:15:00Z device cpu, torch 2.6.0, 4 CPU threads
2026-11-20T21:45:00Z paused
2026-11-20T22:45:00Z continued
2026-11-20T22:55:00Z step 1: checkpoint best written
2026-11-21T08:00:00Z process 8: lreg study tried
2026-11-21T08:00:00Z device cpu, torch 2.6.0, 2 CPU threads
2026-11-21T08:20:00Z finished at step 2
"""
MLP, RELU = "digits/mlp", "digits/mlp-relu"


@dataclass
class Level:
    """What an arm reaches on a task: accuracy, loss at the last mark, and sharpness as a factor, by radius if need be.

    `wobble` goes up and down from pair to pair, so that a difference of its size is not found.
    """

    accuracy: float = 0.9
    loss: float = 0.5
    sharpness: float | Mapping[str, float] = 1.0
    wobble: float = 0.0
    diverged: bool = False
    others: dict[str, Any] = field(default_factory=dict)


def at(step: int, level: Level, meta_seed: int, seed: int) -> dict[str, Any]:
    """A mark. Every optimizee has its own level, the same for all arms; losses fall as 1 / step."""
    own = 1 + 0.01 * seed + 0.02 * meta_seed
    wobble = level.wobble * (-1) ** (seed + meta_seed)
    factors = level.sharpness if isinstance(level.sharpness, Mapping) else dict.fromkeys(RADII, level.sharpness)
    rise = {radius: float(radius) * own * factor * (1 + wobble) for radius, factor in factors.items()}
    return {
        "inner_step": step,
        "train_loss": level.loss * own * STEPS[-1] / step,
        "validation_loss": 1.1 * level.loss * own * STEPS[-1] / step,
        "test_loss": 1.2 * level.loss * own * STEPS[-1] / step,
        "test_accuracy": level.accuracy + 0.001 * seed + wobble / 100,
        "top_eigenvalue": rise[RADII[0]] * 100,
        "sharpness": rise,
        "max_grad_norm": {radius: 2 * value for radius, value in rise.items()},
        **level.others,
    }


def evaluation(task: str, level: Level, meta_seed: int = 0, steps: Sequence[int] = STEPS, **facts: Any) -> dict:
    dataset, _, optimizee = task.partition("/")
    seeds = [
        {
            "seed": seed,
            "diverged": level.diverged,
            "curve": {"inner_step": [0, *steps], "train_loss": [2.3, *(level.loss * steps[-1] / s for s in steps)]},
            "marks": [at(step, level, meta_seed, seed) for step in steps],
        }
        for seed in SEEDS
    ]
    usual = {"run": "some", "optimizer": "simple", "label": "simple (best)", "checkpoint": "best", "scale": 1.0}
    named = {"dataset": dataset, "optimizee": optimizee, "batch_size": 128}
    return {**usual, "task": named, "created": "2026-11-20T10:00:00Z", "seeds": seeds, **facts}


def baseline(task: str, level: Level, name: str, **facts: Any) -> dict:
    own = {"run": None, "optimizer": name, "label": name, "checkpoint": None, "learning_rate": 0.1}
    return evaluation(task, level, **{**own, "passes_per_step": 1, **facts})


def untrained(task: str, level: Level, meta_seed: int) -> dict:
    return evaluation(task, level, meta_seed, label="simple (untrained)", checkpoint="initial")


@dataclass
class Study:
    """A study in a folder. `levels` are by arm and task; `losses` what a cell is picked by."""

    root: Path
    arms: Sequence[ArmPlan]
    levels: Mapping[str, Mapping[str, Level]] = field(default_factory=dict)
    loss: Callable[[Cell], float] = lambda cell: 0.3
    figures: Callable[[Cell], Mapping[str, Any]] = lambda cell: {}  # of the last record of meta-training
    changes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        usual = {"seeds": SEEDS, "arms": tuple(self.arms), "reference": self.arms[0].name}
        tasks = tuple(dict.fromkeys(task for own in self.levels.values() for task in own))
        usual["transfer"] = TransferSpec(to=tasks, untrained=False) if tasks else None
        self.plan: StudyPlan = studying.study("tried", **{**usual, **self.changes})
        self.store = self.root / "runs"
        self.folder = StudyJob.start(self.store, self.plan).path

    def run(self, cell: Cell, state: str = "finished", message: str = "") -> Path:
        """Make a run's folder, with the evaluations of its arm."""
        path = self.store / cell.run_id(self.plan.stamp)
        path.mkdir()
        status = {"state": state, "message": message, "step": 2, "total": 2, "device": "cpu"}
        record = {"t": 1.0, "step": 2, "validation_loss": self.loss(cell), **self.figures(cell)}
        (path / "preset.toml").write_text(cell.preset.dumps())
        (path / "run.json").write_text(json.dumps(FACTS))
        (path / "status.json").write_text(json.dumps(status))
        (path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
        (path / "log.txt").write_text(LOG)
        for task, level in self.levels.get(cell.arm, {}).items():
            self.put(path, evaluation(task, level, cell.seed))
        return path

    def put(self, run: Path, found: dict) -> None:
        """One more transfer file."""
        (run / "transfer").mkdir(exist_ok=True)
        (run / "transfer" / f"{len(list((run / 'transfer').iterdir()))}.json").write_text(json.dumps(found))

    def finish(self) -> Study:
        """Make the run of every cell, and the transfer jobs as if they had been done."""
        for cell in self.plan.grid():
            self.run(cell)
        self.transfer()
        return self

    def transfer(self) -> None:
        from engine.study.plan.snapshot import Watcher

        for item in Watcher(self.plan, self.folder).look().transfers:
            item.run.path.mkdir(parents=True, exist_ok=True)
            for name in ("run.json", "plan.json"):
                (item.run.path / name).write_text("{}")
            (item.run.path / "status.json").write_text(json.dumps({"state": "finished"}))

    def runs_of(self, arm: str) -> list[Path]:
        """The folders of an arm's runs by meta-seed, of its first point."""
        return [self.store / cell.run_id(self.plan.stamp) for cell in self.plan.grid() if cell.arm == arm]


def plain(name: str = "none", **tables: Any) -> ArmPlan:
    return studying.arm(name, **tables)


def sam(name: str = "sam", *axes: StudyAxis, **values: Any) -> ArmPlan:
    return studying.arm(name, *axes, penalty={"sam": values})
