"""What a run's process takes of its machine: measured, kept beside the metrics, and never among them."""

from __future__ import annotations

import json
import time

import pytest
from fakes import preset

from engine.base import machine
from engine.base.machine import MIB, ProcessMeter
from engine.base.metrics import MACHINE, metric
from engine.runs import machine_log
from engine.runs.reader import RunReader
from engine.runs.writer import Run

NVIDIA_SMI = """#!/bin/sh
echo "$@" >> {told}
case "$1" in
  --query-compute-apps*) printf '7, 100\\n7, 28\\n8, [N/A]\\n';;
  *) echo '2048, 81920, 45, 61';;
esac
"""


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A driver's program that prints what nvidia-smi does, and notes what it is asked."""
    folder, told = tmp_path / "bin", tmp_path / "asked"
    folder.mkdir()
    (folder / "nvidia-smi").write_text(NVIDIA_SMI.format(told=told))
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return told


def test_a_process_at_work_takes_a_core(monkeypatch):
    meter = ProcessMeter()
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    load = meter.look()
    assert 0.0 < load.cpu < 64 and load.memory > 2**20
    assert load.written_per_s is None or load.written_per_s >= 0


@pytest.mark.parametrize(
    ("visible", "device", "wanted"),
    [
        ("", "cuda", "0"),
        ("", "cuda:1", "1"),
        ("5,GPU-abc", "cuda:1", "GPU-abc"),
        ("5", "cuda:0", "5"),
        ("", "cpu", ""),
        ("", "mps", ""),
        ("", "", ""),
    ],
)
def test_the_gpu_is_that_of_the_run(visible, device, wanted, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.gpu_of(device) == wanted


def test_what_nvidia_smi_says_of_the_runs_gpu(nvidia_smi, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    values = machine_log.look(ProcessMeter(), "cuda:1")
    assert (values["gpu_percent"], values["gpu_memory_bytes"], values["gpu_temperature_c"]) == (45, 2048 * MIB, 61)
    assert "--id=6" in nvidia_smi.read_text()
    assert machine.gpu_memory_of_processes() == {7: 128 * MIB}
    assert "gpu_percent" not in machine_log.look(ProcessMeter(), "cpu")


def test_a_run_keeps_it_apart_from_its_metrics(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_log, "FIRST_AFTER_S", 0.01)
    monkeypatch.setattr(machine_log, "EVERY_S", 0.02)
    run = Run.create(tmp_path, preset())
    reader = RunReader(run.path)
    with run, machine_log.sampled(run):
        run.append([{"step": 3, "meta_loss": 0.5}])
        run.progress(3, 10, None)
        deadline = time.monotonic() + 60
        while len(reader.series("process_memory_bytes")[1]) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
            reader.poll()
    assert set(reader.columns) - {"meta_loss"} <= set(MACHINE)
    steps, values = reader.series("process_memory_bytes")
    assert steps[-1] == 3 and values[-1] > 2**20 and metric("process_memory_bytes").unit == "bytes"
    assert [record["meta_loss"] for record in RunReader(run.path).records()] == [0.5]
    assert json.loads((run.path / "metrics.jsonl").read_text()).keys() == {"t", "step", "meta_loss"}
    assert not set(RunReader(run.path).status().latest) & set(MACHINE)


def test_a_run_that_goes_back_forgets_what_came_after(tmp_path):
    run = Run.create(tmp_path, preset())
    machine_log.truncate(run, 2)  # of a run of before, which has none
    lines = [json.dumps({"t": 0.0, "step": step, "process_cpu_percent": 100.0}) + "\n" for step in (1, 2, 3)]
    path = run.path / machine_log.NAME
    path.write_text("".join(lines) + '{"t": 0.0, "st')
    reader = RunReader(run.path)
    reader.poll()
    assert list(reader.series("process_cpu_percent")[0]) == [1, 2, 3]
    machine_log.truncate(run, 2)
    assert path.read_text() == "".join(lines[:2])
    reader.poll()
    assert reader.restarts == 1 and list(reader.series("process_cpu_percent")[0]) == [1, 2]
