"""The worker: nothing is lost, repeated or reordered, whatever happens to its process."""

from __future__ import annotations

import errno
import json
import os
import platform
import signal
import subprocess
import sys
import threading
from functools import partial

import fakes
import pytest
from fakes import TOTAL, FakeTrainer, preset, trained_by
from tui.driving import make_job, make_run

from engine import worker
from engine.base.control import Control
from engine.base.device import pick_device, wait_politely
from engine.base.errors import LregError, RunError, TrainingError
from engine.presets import catalog as catalogs
from engine.runs import checkpoint
from engine.runs.store import Run, RunReader
from engine.worker import work


@pytest.fixture(autouse=True)
def small_catalog(monkeypatch):
    monkeypatch.setattr(catalogs, "load", fakes.catalog)


def new_run(tmp_path, name="tiny", **tables) -> Run:
    return Run.create(tmp_path / "runs", preset(name, **tables))


def lines(run: Run) -> list[dict]:
    found = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "t"} for record in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[dict]:
    """The records of a run that nothing happened to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogs, "load", fakes.catalog)
        run = new_run(tmp_path_factory.mktemp("whole"), "whole")
        assert work(run, make_runner=trained_by(FakeTrainer)) == "finished"
    return lines(run)


def test_a_run_leaves_what_the_contract_names(tmp_path):
    run = new_run(tmp_path)
    assert work(run, make_runner=trained_by(FakeTrainer)) == "finished"
    reader = RunReader(run.path)
    status = reader.status()
    assert (status.state, status.step, status.total, status.device) == ("finished", TOTAL, TOTAL, "cpu")
    assert set(reader.checkpoints()) == {"last", "best", "initial"}
    transfers = reader.transfers()
    assert set(transfers) == {"result-dm-best", "result-dm-untrained", "result-sgd"}
    assert transfers["result-dm-best"]["run"] == run.id and transfers["result-sgd"]["run"] is None
    assert [record["step"] for record in lines(run)][:3] == [0, 1, 2]


class StopAt(FakeTrainer):
    """Asks its own process to stop at a step."""

    def __init__(self, *arguments, at, control, **options):
        super().__init__(*arguments, **options)
        self.at, self.control = at, control

    def advance(self, tick=None):
        records = super().advance(tick)
        self.control.stop = self.control.stop or self.step == self.at
        return records


@pytest.mark.parametrize("at", [0, 1, 7, 10, 39])
def test_stopped_and_resumed_is_the_same_as_never_stopped(tmp_path, whole, at):
    run, control = new_run(tmp_path), Control()
    assert work(run, control=control, make_runner=trained_by(partial(StopAt, at=at, control=control))) == "stopped"
    assert RunReader(run.path).state == "stopped" and len(lines(run)) < len(whole)
    assert work(Run(run.path), make_runner=trained_by(FakeTrainer)) == "finished"
    assert lines(run) == whole


def test_a_stop_while_the_result_is_measured_leaves_only_that(tmp_path, whole):
    class StopLate(FakeTrainer):
        def result(self, on_progress):
            control.stop = True
            return super().result(on_progress)

    run, control = new_run(tmp_path), Control()
    assert work(run, control=control, make_runner=trained_by(StopLate)) == "stopped"
    assert lines(run) == whole and not RunReader(run.path).transfers()
    assert work(Run(run.path), make_runner=trained_by(FakeTrainer)) == "finished"
    assert lines(run) == whole and RunReader(run.path).transfers()


def test_a_stop_in_the_middle_of_a_unit_of_work_leaves_it_to_the_resume(tmp_path, whole):
    class StopInside(FakeTrainer):
        def advance(self, tick=None):
            if self.step == 20 and self.evaluated != 20:
                control.stop = True
                tick()
            return super().advance(tick)

    run, control = new_run(tmp_path), Control()
    assert work(run, control=control, make_runner=trained_by(StopInside)) == "stopped"
    assert lines(run)[-1]["step"] == 20 and "validation_loss" not in lines(run)[-1]
    assert work(Run(run.path), make_runner=trained_by(FakeTrainer)) == "finished"
    assert lines(run) == whole


def test_progress_of_the_result_is_written_when_it_changes_only(tmp_path, monkeypatch):
    class Talkative(FakeTrainer):
        def result(self, on_progress):
            for _ in range(1000):
                on_progress("result: the same")
            return super().result(on_progress)

    messages, set_status = [], Run.set_status

    def noted(run, **changes):
        messages.extend([changes["message"]] if "message" in changes else [])
        set_status(run, **changes)

    monkeypatch.setattr(Run, "set_status", noted)
    assert work(new_run(tmp_path), make_runner=trained_by(Talkative)) == "finished"
    assert messages == ["starting", "", "result: the same", "measuring", "a remark"]


def test_results_with_long_names_that_begin_alike_are_all_kept(tmp_path):
    labels = [f"rnnprop (untrained) on cifar100/resnet18-with-{end}" for end in "abc"]

    class Several(FakeTrainer):
        def result(self, on_progress):
            return [{"label": label, "run": "", "seeds": []} for label in labels]

    run = new_run(tmp_path)
    assert work(run, make_runner=trained_by(Several)) == "finished"
    assert sorted(found["label"] for found in RunReader(run.path).transfers().values()) == labels


def test_a_late_interrupt_does_not_disturb_the_last_words(tmp_path, monkeypatch):
    set_status = Run.set_status

    def interrupted(run, **changes):
        for _ in range(3 if changes.get("state") == "finished" else 0):
            signal.raise_signal(signal.SIGINT)
        set_status(run, **changes)

    monkeypatch.setattr(Run, "set_status", interrupted)
    run = new_run(tmp_path)
    with Control().listening() as control:
        assert work(run, control=control, make_runner=trained_by(FakeTrainer)) == "finished"
    assert RunReader(run.path).state == "finished"


def test_the_worker_leaves_what_is_no_run_alone(tmp_path, capsys):
    assert worker.main([str(tmp_path / "nowhere")]) == 2
    assert "no preset.toml there" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_bug_in_the_worker_is_said_aloud(tmp_path, capsys):
    run = new_run(tmp_path)
    factory = partial(FakeTrainer, fail_at=2, error=ZeroDivisionError("ours"))
    assert worker.main([str(run.path)], make_runner=trained_by(factory)) == 1
    assert capsys.readouterr().err.startswith("error: ZeroDivisionError: ours")
    assert "Traceback" in (run.path / "log.txt").read_text()


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (TrainingError("meta-loss is not finite"), TrainingError, "meta-loss is not finite"),
        (OSError(errno.ENOSPC, "No space left on device"), TrainingError, "No space left on device"),
        (LregError("bad\ninput"), LregError, r"bad\ninput"),
        (ZeroDivisionError("ours"), ZeroDivisionError, "ZeroDivisionError: ours"),
    ],
)
def test_an_error_is_noted_and_raised_and_can_be_resumed_from(tmp_path, whole, error, raised, message):
    run = new_run(tmp_path, meta={"checkpoint_every": 1e-6})
    with pytest.raises(raised):
        work(run, make_runner=trained_by(partial(FakeTrainer, fail_at=15, error=error)))
    status = RunReader(run.path).status()
    assert status.state == "failed" and message in status.message and "\n" not in status.message
    traceback_logged = "Traceback" in (run.path / "log.txt").read_text()
    assert traceback_logged == isinstance(error, ZeroDivisionError)
    assert work(Run(run.path), make_runner=trained_by(FakeTrainer)) == "finished"
    assert lines(run) == whole


def test_a_disk_that_fills_up_costs_nothing_but_the_rest(tmp_path, whole, monkeypatch):
    run = new_run(tmp_path, meta={"checkpoint_every": 1e-6})
    save, calls = checkpoint.save, []

    def full(folder, name, *contents):
        calls.append(name)
        if len(calls) > 12:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder / name))
        save(folder, name, *contents)

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(TrainingError, match="No space left on device; the last checkpoint is untouched"):
        work(run, make_runner=trained_by(FakeTrainer))
    monkeypatch.undo()
    monkeypatch.setattr(catalogs, "load", __import__("fakes").catalog)
    assert work(Run(run.path), make_runner=trained_by(FakeTrainer)) == "finished"
    assert lines(run) == whole


def test_a_damaged_checkpoint_is_refused_and_kept(tmp_path):
    run, control = new_run(tmp_path), Control()
    work(run, control=control, make_runner=trained_by(partial(StopAt, at=5, control=control)))
    path = run.path / "checkpoint" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    metrics = (run.path / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"last\.safetensors: damaged checkpoint"):
        work(Run(run.path), make_runner=trained_by(FakeTrainer))
    assert (run.path / "metrics.jsonl").read_bytes() == metrics


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    run = new_run(tmp_path)
    checkpoint.save(run.checkpoints, "last", {}, {"trainer": {"other": 1}, "metrics_size": 0})
    with pytest.raises(RunError, match="does not fit this version or preset"):
        work(run, make_runner=trained_by(FakeTrainer))


def test_in_a_thread_no_signals_are_taken(tmp_path):
    run, seen = new_run(tmp_path), []

    def target():
        with Control().listening() as control:
            seen.append(control.listens)
            seen.append(work(run, control=control, make_runner=trained_by(FakeTrainer)))

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    assert seen == [False, "finished"]


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with Control().listening():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_interrupt_aborts_at_once(tmp_path):
    class Twice(FakeTrainer):
        def advance(self, tick=None):
            if self.step == 5:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
            return super().advance(tick)

    run = new_run(tmp_path)
    with Control().listening() as control, pytest.raises(KeyboardInterrupt):
        work(run, control=control, make_runner=trained_by(Twice))
    assert RunReader(run.path).state == "stopped"


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cpu:0", "", "cuda:99", "cuda:-1", "cuda:99999"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(LregError, match="--device"):
        pick_device(device)


def test_idle_threads_wait_politely_unless_told_otherwise(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    wait_politely()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE" and "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    wait_politely()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE" and os.environ["GOMP_SPINCOUNT"] == "1000"


BLOCKS = """
import ctypes, resource, sys
from engine.base.device import prepare_process
prepare_process()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def touch():
    block = libc.malloc(2**28)
    ctypes.memset(block, 1, 2**28)
    libc.free(block)
touch()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
@pytest.mark.parametrize("setup", [{}, {"MALLOC_MMAP_THRESHOLD_": "1000000"}], ids=["ours", "the user's"])
def test_large_blocks_are_used_again_unless_the_allocator_was_set_up(setup):
    program = [sys.executable, "-c", BLOCKS]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    faults = int(subprocess.run(program, env={**outside, **setup}, check=True, capture_output=True).stdout)
    assert (faults < 100) == (not setup), f"{faults} page faults for a block of 256 MiB that had just been freed"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
    ],
)
def test_memory_that_does_not_suffice_is_one_line_of_advice(tmp_path, error):
    with pytest.raises(TrainingError, match="lower meta.meta_batch") as caught:
        work(new_run(tmp_path), make_runner=trained_by(partial(FakeTrainer, fail_at=2, error=error)))
    assert "\n" not in str(caught.value)

    def raising(*_):
        raise error

    with pytest.raises(TrainingError, match="lower evaluation.examples or"):
        work(make_job(tmp_path, [make_run(tmp_path)], state="queued"), make_runner=raising)


def test_a_run_whose_checkpoint_was_deleted_keeps_its_metrics(tmp_path):
    """Starting over would throw the curves away; that is for the user to decide."""
    run, control = new_run(tmp_path), Control()
    stopping = trained_by(partial(StopAt, at=5, control=control))
    assert work(run, control=control, make_runner=stopping) == "stopped"
    before = (run.path / "metrics.jsonl").read_bytes()
    assert before
    (run.checkpoints / "last.safetensors").unlink()
    with pytest.raises(RunError, match=r"last.safetensors: no such checkpoint.*start again with: lreg run"):
        work(Run(run.path), make_runner=trained_by(FakeTrainer))
    assert (run.path / "metrics.jsonl").read_bytes() == before


def test_train_takes_a_name_or_a_path(tmp_path):
    with pytest.raises(LregError, match="did you mean quickstart"):
        worker.train("quikstart", runs_dir=tmp_path)
