"""A trainer that is quick and exact, to test what drives it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from engine.base.errors import TrainingError
from engine.base.settings import Setting, schema_of
from engine.jobs.meta_training_job import MetaTrainingJob
from engine.presets.catalog import Catalog
from engine.presets.preset import Preset, from_mapping
from engine.presets.tables import EvaluationSettings, MetaSettings, ObjectiveSettings

TOTAL = 40
EVALUATE_EVERY = 10


class FakeTrainer:
    """Draws random numbers and adds them up: its records show whether anything was lost, repeated or reordered."""

    remark = "a remark"

    def __init__(self, preset, *, device, data_dir=None, init_phi=None, fail_at=None, error=None):
        self.step, self.total = 0, TOTAL
        self.improved = False
        self.generator = torch.Generator().manual_seed(preset.seed)
        self.phi = torch.zeros(3, dtype=torch.float64)
        self.evaluated = -1  # step of the last evaluation
        self.best = float("inf")
        self.best_phi = self.phi.clone()
        self.fail_at, self.error = fail_at, error or TrainingError("meta-loss is not finite")

    measured = ()

    @property
    def finished(self):
        return self.step >= self.total and self.evaluated == self.step

    def advance(self, tick=None):
        self.improved = False
        if self.step % EVALUATE_EVERY == 0 and self.evaluated != self.step:
            self.evaluated = self.step
            loss = float(self.phi.abs().sum())
            self.improved = loss < self.best
            if self.improved:
                self.best, self.best_phi = loss, self.phi.clone()
            return [{"step": self.step, "validation_loss": loss, "test_accuracy": 0.5}]
        if self.fail_at is not None and self.step >= self.fail_at:
            raise self.error
        self.phi = self.phi + torch.randn(3, generator=self.generator, dtype=torch.float64)
        self.step += 1
        return [{"step": self.step, "meta_loss": float(self.phi.sum()), "sam_penalty_share": 0.25}]

    def state_dict(self):
        tensors = {"phi": self.phi, "best_phi": self.best_phi, "generator": self.generator.get_state()}
        return tensors, {"step": self.step, "evaluated": self.evaluated, "best": self.best}

    def load_state_dict(self, tensors, values):
        self.phi, self.best_phi = tensors["phi"], tensors["best_phi"]
        self.generator.set_state(tensors["generator"])
        self.step, self.evaluated, self.best = values["step"], values["evaluated"], values["best"]

    def frozen_state(self, which):
        return {"phi": self.best_phi if which == "best" else self.phi}, {"kind": "fake"}

    def result(self, on_progress):
        on_progress("measuring")
        seeds = [
            {
                "seed": seed,
                "diverged": False,
                "curve": {"inner_step": [1], "train_loss": [1.0]},
                "marks": [
                    {
                        "inner_step": 20,
                        "train_loss": 0.5 + 0.01 * seed,
                        "test_loss": 0.6,
                        "test_accuracy": 0.8,
                        "sharpness": {"0.01": 0.001, "0.05": 0.02},
                    }
                ],
            }
            for seed in range(3)
        ]
        own = {"optimizer": "dm", "scale": 1.0, "seeds": seeds, "task": {"dataset": "digits"}}
        return [
            {**own, "label": "dm (best)", "checkpoint": "best", "run": ""},
            {**own, "label": "dm (untrained)", "checkpoint": "initial", "run": ""},
            {**own, "label": "sgd", "optimizer": "sgd", "learning_rate": 0.1, "run": None},
        ]


def catalog() -> Catalog:
    """A small catalog, so that presets can be checked without the members."""
    task = (
        Setting("dataset", ("str",), "digits", "data"),
        Setting("optimizee", ("str",), "mlp", "network"),
        Setting("batch_size", ("int",), 128, "examples", minimum=1),
        Setting("classes", ("int[]",), (), "classes", allow_empty=True),
    )
    weight = Setting("weight", ("float",), 1.0, "factor", minimum=0.0)
    return Catalog(
        sections={
            "task": task,
            "meta": schema_of(MetaSettings),
            "objective": schema_of(ObjectiveSettings),
            "evaluation": schema_of(EvaluationSettings),
        },
        datasets={"digits": (), "mnist": ()},
        optimizees={"mlp": ()},
        learned_optimizers={"dm": (), "simple": ()},
        penalties={"sam": (weight, Setting("rho", ("float",), 0.05, "radius", minimum=0.0))},
        estimators={"tbptt": ()},
        terms={"sharpness": (weight,)},
        unused={},
    )


def preset(name: str = "tiny", **tables) -> Preset:
    return from_mapping({"name": name, **tables}, catalog=catalog())


def trained_by(factory: Callable[..., Any]) -> Callable[..., MetaTrainingJob]:
    """What meta-trains with another trainer, for `work`."""
    return partial(MetaTrainingJob, trainer_factory=factory)
