"""The memory plan: what meta-training takes is predicted within a fifth, and said before a run begins."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from typing import Any

import pytest
import torch

from engine.base.live_memory import LiveMemory
from engine.jobs.from_preset import memory_plan, meta_trainer
from engine.kernels.arrays import forget_arrays
from engine.presets.preset import Preset, from_mapping, load_preset

CPU = torch.device("cpu")
MLP = {"optimizee": "mlp", "hidden": [400], "batch_size": 16}
CONV3 = {"optimizee": "conv3", "batch_size": 16}
EPISODES = {"dataset": "digits-episodes", "optimizee": "cosine", "shots": 20, "queries": 40}

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("dm", "tbptt", {}),
    ("dm", "second_order", {}),
    ("rnnprop", "pes", {}),
    ("simple", "tbptt", {"task": CONV3, "meta_batch": 3}),
    ("simple", "tbptt", {"penalty": {"gsam": {}, "smooth": {}}, "loss_batch": "validation"}),
    ("simple", "second_order", {"penalty": {"gam": {}}}),
    ("simple", "es", {"task": CONV3}),
    ("lin", "tbptt", {"staggered": 2}),
    ("lin", "es", {"meta_batch": 2}),
    ("mlp", "tbptt", {}),
    ("mlp", "tbptt", {"penalty": {"smooth": {}}}),
    ("mlp", "pes", {}),
    ("adafac", "tbptt", {"random_scaling": 1.0}),
    ("sib", "tbptt", {"task": EPISODES}),
    ("sib", "tbptt", {"task": EPISODES, "penalty": {"smooth": {"every_step": True}}, "meta_batch": 3}),
]


def preset(optimizer: str, estimator: str, task: Any = MLP, penalty: Any = (), **meta: Any) -> Preset:
    pairs = {"pairs": 2} if estimator in ("es", "pes") else {}
    meta = {"truncation": 3, "inner_steps": 6, "estimator": estimator, "divergence_cap": 1e30, **pairs, **meta}
    shape = {"ways": 2, "inputs": 64} if optimizer == "sib" else {}
    tables = {"task": task, "optimizer": {"kind": optimizer, **shape}, "meta": meta, "penalty": dict(penalty)}
    return from_mapping(tables)


def measured(of: Preset) -> int:
    """The peak of a meta-step once meta-training is under way; examples are not counted."""
    forget_arrays()
    gc.collect()
    with LiveMemory() as live:
        trainer = meta_trainer(of, device=CPU)
        for _ in range(2):  # the last one begins in the middle of an unroll
            trainer.pending = ""  # no evaluation
            live.begin()
            trainer.advance()
        return live.peak


@pytest.mark.parametrize(("optimizer", "estimator", "more"), CASES)
def test_the_peak_of_a_meta_step_is_predicted_within_a_fifth(optimizer, estimator, more):
    described = preset(optimizer, estimator, **more)
    plan = memory_plan(described, device=CPU)
    predicted, peak = plan.training - plan.parts["data"], measured(described)
    assert 0.8 * peak < predicted < 1.2 * peak, (plan, predicted / peak)


@pytest.mark.parametrize("way", ["rows", "recompute", "plain"])
def test_the_plan_knows_which_kernels_take_the_steps(way, monkeypatch):
    monkeypatch.setenv("LREG_KERNELS", way)
    described = preset("dm", "tbptt", task={**MLP, "hidden": [100]})
    plan = memory_plan(described, device=CPU)
    assert plan.way == {"rows": "tape", "recompute": "recompute", "plain": "autograd"}[way]
    assert plan.training - plan.parts["data"] == pytest.approx(measured(described), rel=0.2)


def test_steps_of_particles_let_go_of_their_states():
    """Not when the garbage collector comes: a truncation's states are gone with the truncation."""
    gc.collect()
    gc.disable()
    try:
        peaks = [measured(preset("simple", "pes", truncation=2, inner_steps=2 * steps)) for steps in (2, 8)]
    finally:
        gc.enable()
    assert peaks[1] < 1.05 * peaks[0]


RESIDENT = """
import json, sys, torch
torch.set_num_threads(1)
from engine.bench.memory import peak_bytes
from engine.jobs.from_preset import meta_trainer
from engine.presets.preset import from_mapping
trainer = meta_trainer(from_mapping(json.loads(sys.argv[1])), device=torch.device("cpu"))
def work():
    for _ in range(2):
        trainer.pending = ""
        trainer.advance()
print(peak_bytes(work, torch.device("cpu")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process begins anew on Linux alone")
def test_a_process_takes_what_was_predicted_at_a_tenth_of_resnet_18():
    """1.1 million parameters: resident memory, with all that operations use inside themselves."""
    tables = {
        "task": {"optimizee": "mlp", "hidden": [1000, 1000], "batch_size": 32},
        "optimizer": {"kind": "simple"},
        "meta": {"truncation": 3, "inner_steps": 6, "divergence_cap": 1e30},
    }
    plan = memory_plan(from_mapping(tables), device=CPU)
    assert plan.parameters > 1e6
    command = [sys.executable, "-c", RESIDENT, json.dumps(tables)]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    predicted = plan.training - plan.parts["data"]
    assert 0.8 * peak < predicted < 1.2 * peak, predicted / peak


def test_of_several_tasks_and_draws_the_largest_counts():
    small, large = {"optimizee": "mlp", "hidden": [8]}, {"optimizee": "mlp", "hidden": [64, 128], "depth": 1}
    several = from_mapping({"task": [small, large]})
    drawn = memory_plan(several, device=CPU)
    assert drawn.parameters == 64 * 128 + 128 + 128 * 10 + 10
    assert drawn.total == memory_plan(from_mapping({"task": {**large, "hidden": [128]}}), device=CPU).total


def test_resnet18_is_planned_without_its_memory():
    """Tens of gigabytes are foretold, and not taken."""
    described = load_preset("quickstart", ["task.optimizee=resnet18", "optimizer.kind=dm", "meta.truncation=20"])
    with LiveMemory() as live:
        plan = memory_plan(described, device=CPU)
    assert "resnet18" in plan.task and plan.parameters > 11e6
    assert plan.training > 20e9
    assert live.now < 1e9
