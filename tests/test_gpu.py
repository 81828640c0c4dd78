"""On a GPU where there is one: verdicts, numbers, recordings, a preset. The report's own logic on the CPU as well."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from engine import kernels
from engine.bench import check, gpu, limits, works
from engine.bench.scene import RandomTask, scene
from engine.kernels import trial as trials
from engine.kernels import triton_tape
from engine.kernels.recompute import RecomputeTape
from engine.meta_training import recording
from engine.meta_training.inner_steps import Inputs

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_cuda = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def on_cuda(test):
    for mark in needs_cuda:
        test = mark(test)
    return test


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Verdicts of one test, and the log as it was."""
    monkeypatch.setattr(trials, "folder", lambda: tmp_path / "trials")
    monkeypatch.setattr(trials, "log", trials.logging.getLogger("a test of the GPU"))
    trials.trial_of.cache_clear()
    yield
    trials.trial_of.cache_clear()


class Wrong(RecomputeTape):
    def pull_back(self, slopes, side=None):
        return {name: 1.01 * slope for name, slope in super().pull_back(slopes, side).items()}


def test_the_report_names_a_kernel_that_is_wrong_and_one_that_fails(monkeypatch):
    """On a pretended device, whose second piece of work does not even run."""
    monkeypatch.setattr(limits, "measured", lambda device: limits.Limits(1e12, 1e11))
    monkeypatch.setattr(gpu, "PIECES", ("meta-train/simple/mlp/1", "meta-train/dm/conv3/1"))
    monkeypatch.setattr(gpu, "RandomTask", lambda name, **how: RandomTask(name, **how, hidden=[2]))  # conv3 has none
    monkeypatch.setattr(check, "agreement", lambda *_: {"max_error_float32": 1e-6, "error_bound_float32": 2e-3})
    monkeypatch.setattr(kernels, "native_problem", lambda: "pretended away")
    monkeypatch.setattr(triton_tape, "supports", lambda *arguments: True)
    monkeypatch.setattr(triton_tape, "TritonTape", Wrong)
    lines = list(gpu.report(CPU))
    trial, failed = (next(line for line in lines if line.name == what) for what in ("trial", "meta-train/dm/conv3/1"))
    assert trial.problem and "not taken: wrong: error 1.0e-02" in trial.text
    assert failed.problem and "hidden" in failed.text
    assert not any(line.problem for line in lines if line not in (trial, failed))
    assert any(torch.__version__ in line.text for line in lines) and any("1000 GFLOP/s" in line.text for line in lines)


@on_cuda
def test_every_verdict_is_that_numbers_are_right():
    """Speed may decide either way; a wrong kernel, or one that cannot run, is a defect."""
    lines = list(gpu.report(CUDA))
    assert [line for line in lines if line.problem] == []
    verdicts = [kept.subject.kernel for kept in trials.verdicts()]
    assert recording.GRAPH in verdicts and (kernels.TRITON in verdicts or torch.cuda.get_device_capability() < (8, 0))


@on_cuda
@pytest.mark.parametrize("graphs", ["0", "1"])
@pytest.mark.parametrize("work", ["meta-train", "meta-train-sam", "meta-train-smooth"])
@pytest.mark.parametrize("optimizer", ["dm", "rnnprop"])
def test_a_meta_gradient_by_triton_is_that_of_plain_pytorch(optimizer, work, graphs, monkeypatch):
    found = {}
    for way in ("triton", "plain"):
        monkeypatch.setenv("LREG_KERNELS", way)
        monkeypatch.setenv("LREG_GRAPHS", graphs if way == "triton" else "0")
        one = scene(works.Workload(work, optimizer, "mlp", 2), RandomTask("mlp", device=CUDA))
        found[way] = [one.meta_gradient() for _ in range(3)][-1]  # the third is a replay
    errors = [check.relative(found["triton"][name], found["plain"][name]) for name in found["plain"]]
    assert check.largest(errors) < check.BOUNDS[torch.float32]


@on_cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one device")
def test_a_recording_is_made_on_the_device_of_the_work(monkeypatch):
    """The first device is the current one: what is not recorded is done once, and a replay changes nothing."""
    monkeypatch.setenv("LREG_GRAPHS", "1")
    second = torch.device("cuda:1")
    one = scene(works.piece("meta-train/dm/mlp/1"), RandomTask("mlp", device=second))
    plain = recording.run_truncation(one.objective, one.phi, one.carry, Inputs(one.window, [1.0] * one.steps))
    for _ in range(3):
        replayed = one.run_truncation(one.objective, one.phi, one.carry, Inputs(one.window[::-1], [1.0] * one.steps))
    replayed = one.run_truncation(one.objective, one.phi, one.carry, Inputs(one.window, [1.0] * one.steps))
    assert check.relative(replayed[1].theta, plain[1].theta) < 1e-4


@on_cuda
def test_a_preset_runs_and_says_which_kernels_it_took(tmp_path):
    settings = ("meta.epochs=4", "evaluation.every=4", "evaluation.final_optimizees=2")
    sets = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "lreg_tui.cli.app", "run", "quickstart", "--device", "cuda", "--json"]
    done = subprocess.run([*command, "--runs-dir", str(tmp_path), *sets], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [json.loads(line) for line in done.stdout.splitlines()]
    (log,) = tmp_path.glob("*/log.txt")
    assert "where its trial says so" in log.read_text()
