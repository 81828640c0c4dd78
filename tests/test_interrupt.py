"""Evaluations can be interrupted, and done again as if nothing had been."""

from __future__ import annotations

import pytest
import torch

from engine.jobs.from_preset import meta_trainer
from engine.meta_training.meta_train import MetaTrainer
from engine.presets.preset import from_mapping

TINY = {
    "task": {"dataset": "digits", "optimizee": "mlp", "batch_size": 16},
    "optimizer": {"kind": "simple"},
    "meta": {"epochs": 1, "inner_steps": 10, "truncation": 5},
    "evaluation": {
        "every": 1,
        "optimizees": 2,
        "examples": 10,
        "restarts": 1,
        "ascent_steps": 1,
        "final_optimizees": 2,
    },
}
TIMING = ("inner_steps_per_s", "coordinate_steps_per_s", "memory_bytes")


class Enough(Exception):
    """What the tick raises."""


def make() -> MetaTrainer:
    spectral = {"penalty": {"spectral": {}}}  # it has a memory that an evaluation must leave alone
    return meta_trainer(from_mapping({**TINY, **spectral}), device=torch.device("cpu"))


def advance_after_interruptions(trainer: MetaTrainer) -> list[dict]:
    """Interrupt at the first tick, at the second, and so on, until a unit of work gets through."""
    allowed = 0
    while True:
        ticks = iter(range(allowed))

        def tick(ticks=ticks) -> None:
            if next(ticks, None) is None:
                raise Enough

        try:
            return trainer.advance(tick)
        except Enough:
            allowed += 1


def records(trainer: MetaTrainer, advance) -> list[dict]:
    found = []
    while not trainer.finished:
        found += advance(trainer)
    return [{key: value for key, value in record.items() if key not in TIMING} for record in found]


def test_an_interrupted_evaluation_is_done_again_bit_for_bit():
    assert records(make(), advance_after_interruptions) == records(make(), MetaTrainer.advance)


def test_the_result_ticks_between_optimizees_and_windows():
    trainer, said = make(), []

    def stop_late(text: str) -> None:
        said.append(text)
        if len(said) == 3:
            raise Enough

    with pytest.raises(Enough):
        trainer.result(stop_late)
    assert len(set(said)) == 1 and len(trainer.result(said.append)) == 4
