"""A run on several processes is the run on one: the same meta-gradients, whatever dies, and however many go on."""

from __future__ import annotations

import functools
import itertools
import json
import signal
import time
from pathlib import Path

import psutil
import pytest
import test_meta
import torch
from ranks import Ranks

from engine.base.control import Stopped
from engine.base.errors import PresetError, TrainingError
from engine.distributed import parallel
from engine.distributed.parallel import ALONE, ProcessGroup, dealt_back
from engine.jobs import spawn
from engine.jobs.from_preset import meta_trainer
from engine.meta_training.meta_train import MetaTrainer
from engine.penalties.base import get, normal
from engine.presets.preset import from_mapping, merge
from engine.runs.store import Run, RunReader, RunStore
from engine.worker import work

F64 = torch.float64
CASES = {
    "penalties": {
        "penalty": {
            **test_meta.ALL_PENALTIES,
            "l2": {"weight": 1e-3, "relative": True},
            "smooth": {"ascent_steps": 2, "start": 3},
        },
    },
    "several tasks": {
        "task": test_meta.TWO_TASKS,
        "penalty": {"gsam": {"relative": True}, "smooth": {"ascent_steps": 3}, "l2": {"relative": True}},
    },
    "drawn tasks": {
        "task": {"hidden": [[4], [6]], "activation": ["sigmoid", "relu", "tanh"], "init": ["normal", "kaiming"]},
        "penalty": {"gsam": {"relative": True}, "smooth": {"ascent_steps": 1}},
    },
    "random scaling": {
        "optimizer": {"kind": "rnnprop"},
        "meta": {"random_scaling": 1.0, "loss_batch": "validation", "inner_steps": 13},
    },
    "some diverge": {
        "optimizer": {"output_scale": 30.0},
        "meta": {"divergence_cap": 1.2, "inner_steps": 20},
        "penalty": {"smooth": {}, "sam": {}},
    },
    "all diverge": {
        "optimizer": {"output_scale": 100.0},
        "meta": {"divergence_cap": 1.2, "inner_steps": 20},
        "penalty": {"smooth": {"ascent_steps": 1}},
    },
    "es": {
        "task": test_meta.TWO_TASKS,
        "meta": {"estimator": "es", "pairs": 3, "sigma": 0.01},
        "objective": {"loss": "last", "log": True, "terms": {"adaptive_sharpness": {"log": True, "examples": 30}}},
        "penalty": {"smooth": {"ascent_steps": 1}, "l2": {}},
    },
    "pes": {"meta": {"estimator": "pes", "pairs": 3, "fitness": "raw", "staggered": 2}, "penalty": {"gsam": {}}},
    "second order": {"meta": {"second_order": True, "optimizer": "sgd"}, "penalty": {"smooth": {"ascent_steps": 1}}},
}  # every one with a meta-batch of 5, which 2 and 3 processes cannot share out evenly
CONTINUED = ("penalties", "drawn tasks", "random scaling")  # by other numbers of processes


@pytest.fixture(scope="module")
def ranks(zygote):
    processes = Ranks(3, zygote)
    yield processes
    processes.end()


@pytest.fixture
def together(ranks, tmp_path):
    """Call a function in every process of a team of a size: what each gives."""
    numbers = itertools.count()
    return lambda size, function, *arguments: ranks.call(
        function, tmp_path / f"meeting-{next(numbers)}", size, *arguments
    )


def trainer(team: ProcessGroup, case: str, dtype: torch.dtype = F64, **changes) -> MetaTrainer:
    """The case's trainer in a precision of its own, with meta-gradients that are not clipped."""
    usual = {"meta": {"meta_batch": 5, "clip": "none"}, "evaluation": {"optimizees": 3}}
    document = functools.reduce(merge, (test_meta.TINY, usual, CASES[case], changes))
    return meta_trainer(from_mapping(document), device=torch.device("cpu"), dtype=dtype, team=team)


def unit(one: MetaTrainer) -> tuple[dict, torch.Tensor | None]:
    """The record of the next unit of work, and the meta-gradient where it is a meta-step."""
    (record,) = one.advance()
    grads = [tensor.grad.flatten() for tensor in one.phi.values() if tensor.grad is not None]
    return record, torch.cat(grads).clone() if "meta_loss" in record else None


def whole(team: ProcessGroup, case: str) -> list[tuple[dict, torch.Tensor | None]]:
    one, found = trainer(team, case), []
    while not one.finished:
        found.append(unit(one))
    return found


def assert_same(found: list[dict], expected: list[dict], rel: float) -> None:
    assert len(found) == len(expected)
    for own, other in zip(test_meta.steady(found), test_meta.steady(expected), strict=True):
        assert own == pytest.approx(other, rel=rel, abs=rel)


@pytest.mark.parametrize("case", [case for case in CASES if case not in CONTINUED])
def test_a_run_on_several_processes_is_the_run_on_one(together, case):
    """In float64 nothing but the order of the sums differs: meta-gradients to 1e-12 at every step, and all figures."""
    expected = whole(ALONE, case)
    records = [record for record, _ in expected]
    assert ("diverge" in case) == (records[-2 if "meta_loss" in records[-2] else -3]["diverged"] > 0)
    for found in together(2, whole, case):
        assert_same([record for record, _ in found], records, 1e-9)
        for (_, own), (_, other) in zip(found, expected, strict=True):
            assert other is None or (own - other).norm() <= 1e-12 * other.norm()


def one_by_one(team: ProcessGroup, case: str, states: list) -> list[torch.Tensor | None]:
    """The meta-gradient from each state."""
    one, found = trainer(team, case, torch.float32), []
    for tensors, values in states:
        one.load_state_dict(tensors, values)
        found.append(unit(one)[1])
    return found


def test_meta_gradients_in_float32_differ_by_rounding_only(together):
    case = "penalties"
    one, states, expected = trainer(ALONE, case, torch.float32), [], []
    while not one.finished:
        states.append(one.state_dict())
        expected.append(unit(one)[1])
    for found in together(2, one_by_one, case, states):
        for own, other in zip(found, expected, strict=True):
            assert other is None or (own - other).norm() <= 1e-6 * other.norm()


def some(team: ProcessGroup, case: str, state: tuple | None, units: int) -> tuple[list[dict], tuple]:
    """So many units of work from a state: their records, and the state after them."""
    one = trainer(team, case)
    if state is not None:
        one.load_state_dict(*state)
    records = [unit(one)[0] for _ in range(units) if not one.finished]
    tensors, values = one.state_dict()
    return records, (tensors, json.loads(json.dumps(values)))


@pytest.mark.parametrize("case", CONTINUED)
def test_any_number_of_processes_goes_on_from_the_checkpoint_of_any_other(together, case):
    """2, 1 and 3 processes, changing in the middle of meta-epochs, are one process all the way."""
    expected = [record for record, _ in whole(ALONE, case)]
    first, state = together(2, some, case, None, 2)[0]
    assert state[1]["epochs"], "in the middle of a meta-epoch"
    second, state = some(ALONE, case, state, 7 if case == "random scaling" else 5)
    assert state[1]["epochs"]
    third, state = together(3, some, case, state, 100)[0]
    assert_same(first + second + third, expected, 1e-9)


def drift(team: ProcessGroup, rank: int) -> str:
    one = trainer(team, "penalties")
    one.advance()
    if team.rank == rank:
        with torch.no_grad():
            next(iter(one.phi.values())).view(-1)[0].add_(1e-15)
    try:
        while not one.finished:
            one.advance()
    except TrainingError as error:
        return str(error)
    return "nothing was noticed"


def test_processes_that_drift_apart_are_noticed_by_all(together):
    for said in together(2, drift, 1):
        assert said.startswith("after meta-step 4 the meta-parameters of process 1 are not those of process 0")


def stop_in_an_evaluation(team: ProcessGroup) -> tuple[bool, str, int]:
    one = trainer(team, "penalties")

    def tick() -> None:
        if team.stopping(team.rank == 1):
            raise Stopped

    try:
        one.advance(tick)
    except Stopped:
        return True, one.pending, one.step
    return False, one.pending, one.step


def test_a_stop_of_one_in_an_evaluation_stops_all_and_changes_nothing(together):
    assert together(2, stop_in_an_evaluation) == [(True, "baseline", 0)] * 2


def result(team: ProcessGroup) -> list[tuple]:
    rows = trainer(team, "several tasks").result(lambda text: None)
    return [(row["label"], row["seeds"][1]["marks"][-1]["test_loss"]) for row in rows]


def test_the_result_is_measured_together(together):
    labels, losses = zip(*result(ALONE), strict=True)
    assert len(set(labels)) == len(labels) == 8  # of 2 tasks: best, untrained, sgd, adam
    for found in together(2, result):
        assert [label for label, _ in found] == list(labels)
        assert [loss for _, loss in found] == pytest.approx(losses, rel=1e-9)


def test_what_was_dealt_out_comes_back_in_order():
    items = list("abcdefg")
    assert dealt_back([items[rank::3] for rank in range(3)]) == items and dealt_back([[], []]) == []


def test_more_processes_than_optimizees_are_refused():
    with pytest.raises(PresetError, match=r"meta.meta_batch: found 2; allowed: 3 or more"):
        parallel.check_processes(from_mapping(test_meta.TINY), 3)


def test_random_numbers_are_an_optimizees_own():
    def generators(*own: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in own]

    like = torch.zeros(3, 500, 2)
    numbers = normal(like, generators(7, 8, 9))
    assert torch.equal(normal(like[:2], generators(8, 9)), numbers[1:])
    assert abs(float(numbers.mean())) < 0.05 and abs(float(numbers.std()) - 1) < 0.05
    start = get("smooth", noise=0.05, epsilon=0.1).start_of_ascent(None, like, generators(7, 8, 9))
    assert torch.equal(start, (0.05 * numbers).clamp(-0.1, 0.1))


# -- with torchrun ---------------------------------------------------------------------------------------------------


def start(tmp_path: Path, processes: int, module: str = spawn.WORKER, **changes):
    """A run of `processes` processes that torchrun has started."""
    pace = {"meta": {"meta_batch": 3, "checkpoint_every": 0.2}, "threads": 1}
    run = RunStore(tmp_path).create(from_mapping(functools.reduce(merge, (test_meta.TINY, pace, changes))))
    return RunReader(run.path), spawn.start_detached(RunReader(run.path), processes=processes, module=module)


def eventually(condition, limit_s: float = 240.0):
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
    return found


def steps(reader: RunReader) -> list[int]:
    lines = (reader.path / "metrics.jsonl").read_text().splitlines() if (reader.path / "metrics.jsonl").exists() else []
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return [record["step"] for record in records if "meta_loss" in record]


def process_of(torchrun, reader: RunReader, rank: int) -> psutil.Process:
    """Of two processes: the one that holds the run, or the other."""
    holder = reader.recorded_status().pid
    (process,) = [one for one in psutil.Process(torchrun.pid).children() if (one.pid == holder) == (rank == 0)]
    return process


def test_when_a_process_is_killed_the_others_begin_anew_from_the_checkpoint(tmp_path, forked):
    reader, torchrun = start(tmp_path, 2, meta={"epochs": 30}, evaluation={"every": 30, "final_optimizees": 0})
    try:
        for rank, at in ((1, 5), (0, 20)):
            eventually(lambda at=at: len(steps(reader)) >= at)
            holder = reader.recorded_status().pid
            process_of(torchrun, reader, rank).kill()
            eventually(lambda before=holder: reader.recorded_status().pid != before)
        assert torchrun.wait(240) == 0
    finally:
        parallel.end_at_once(torchrun.pid)
        torchrun.wait()
    assert reader.state == "finished" and reader.status().processes == 2
    assert steps(reader) == list(range(1, 61))
    log = reader.log_path.read_text()
    assert log.count("resumed at step") == 2 and "another process of this run is gone" in log


def test_a_run_of_two_processes_is_stopped_and_goes_on_with_one(tmp_path, forked):
    reader, torchrun = start(tmp_path, 2, meta={"epochs": 40}, evaluation={"every": 40, "final_optimizees": 0})
    try:
        eventually(lambda: len(steps(reader)) >= 3)
        spawn.request(reader, signal.SIGUSR1, "pause")
        assert spawn.wait_for(reader, ("paused",), 240).state == "paused"
        spawn.request(reader, signal.SIGTERM, "stop")
        assert torchrun.wait(240) == 0, "else torchrun would begin anew"
    finally:
        parallel.end_at_once(torchrun.pid)
        torchrun.wait()
    before = steps(reader)
    assert reader.state == "stopped" and before == list(range(1, len(before) + 1)) and len(before) < 80
    assert work(Run(reader.path)) == "finished"
    assert steps(reader) == list(range(1, 81)) and reader.recorded_status().processes == 1


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no such signal here")
def test_a_process_that_hangs_is_named_and_lets_a_stop_through(tmp_path, forked, monkeypatch):
    """It keeps its connections, so the others would wait for it for ever, and hear no signal while they do."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    reader, torchrun = start(
        tmp_path, 2, "impatient", meta={"epochs": 60}, evaluation={"every": 60, "final_optimizees": 0}
    )
    try:
        eventually(lambda: len(steps(reader)) >= 10)
        hanging = process_of(torchrun, reader, 1)
        hanging.suspend()
        eventually(lambda: reader.status().message == "waiting for process 1")
        eventually(lambda: "no sign of life from process 1" in reader.log_path.read_text())
        before = len(steps(reader))
        hanging.resume()
        eventually(lambda: len(steps(reader)) > before)
        eventually(lambda: reader.status().message == "")
        hanging.suspend()
        eventually(lambda: reader.status().message == "waiting for process 1")
        spawn.request(reader, signal.SIGTERM, "stop")
        assert torchrun.wait(240) == 0, "else torchrun would begin anew"
        assert not hanging.is_running() or hanging.status() == psutil.STATUS_ZOMBIE
    finally:
        parallel.end_at_once(torchrun.pid)
        torchrun.wait()
    assert reader.state == "stopped" and "process 1 did not come" in reader.status().message
    assert 0 < len(steps(reader)) < 120
    assert work(Run(reader.path)) == "finished"
    assert steps(reader) == list(range(1, 121))


def test_an_error_of_the_user_is_said_once_and_not_tried_again(tmp_path, forked):
    reader, torchrun = start(tmp_path, 2, optimizer={"output_scale": 1e30}, meta={"divergence_cap": 1.01, "epochs": 20})
    try:
        assert torchrun.wait(240) == 1
    finally:
        parallel.end_at_once(torchrun.pid)
        torchrun.wait()
    assert reader.state == "failed" and "every optimizee diverged" in reader.status().message
    assert "resumed" not in reader.log_path.read_text()
