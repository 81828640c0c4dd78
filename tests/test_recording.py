"""Recorded truncations. A recorder that does the work again stands in for CUDA graphs where there is no GPU."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine import kernels
from engine.base.errors import LregError
from engine.jobs.from_preset import meta_trainer
from engine.kernels import trial as trials
from engine.meta_training import inner_steps, penalty_terms, recording, unroll
from engine.meta_training.inner_steps import Inputs
from engine.meta_training.recording import MOST_RECORDINGS, CudaGraphs, RecordedTruncations, tensors_of
from engine.optimizers.learned.dm import DM
from engine.optimizers.learned.rnnprop import RNNProp
from engine.penalties.base import GeometricPenalty
from engine.presets.preset import from_mapping, merge

TINY = {
    "task": {"dataset": "digits", "optimizee": "mlp", "hidden": [4], "batch_size": 16},
    "optimizer": {"kind": "dm", "hidden": 5},
    "meta": {"epochs": 3, "inner_steps": 20, "truncation": 5, "meta_batch": 2},
    "evaluation": {
        "every": 100,
        "optimizees": 1,
        "final_optimizees": 0,
        "examples": 10,
        "restarts": 1,
        "ascent_steps": 1,
    },
}
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Again:
    """Does recorded work again whenever it is replayed, and puts the results where the first ones were."""

    def __init__(self):
        self.records = self.replays = 0

    def record(self, work):
        self.records += 1
        results = work()

        def replay():
            self.replays += 1
            for first, now in zip(list(tensors_of(results)), list(tensors_of(work())), strict=True):
                first.detach().copy_(now.detach())

        return results, replay


@functools.cache
def plain_records():
    """Those of TINY without a recorder."""
    return records_of(TINY)


def records_of(values, run_truncation=None, device=CPU):
    trainer = meta_trainer(from_mapping(copy.deepcopy(values)), device=device)
    if run_truncation is not None:
        object.__setattr__(trainer.estimator, "run_truncation", run_truncation)
    found, trainer.pending = [], ""  # no evaluation
    while not trainer.finished:
        found += trainer.advance()
    keep = ("meta_loss", "meta_grad_norm", "sam_penalty", "diverged", "update_norm", "validation_loss", "step")
    return [{name: record[name] for name in keep if name in record} for record in found], trainer.phi


SAM = {"penalty": {"sam": {"weight": 1.0, "rho": 0.05}}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"meta": {"loss_batch": "same", "weights": "linear"}},
        {"meta": {"loss_batch": "validation", "random_scaling": 1.0}},
        {"meta": {"weights": "xh_code", "truncation": 8}},
        {"meta": {"second_order": True}},
        merge(SAM, {"penalty": {"sam": {"start": 7}}}),
        merge(SAM, {"penalty": {"sam": {"relative": True}}}),
        {"penalty": {"smooth": {"weight": 10.0}}},
        {"task": [TINY["task"], {**TINY["task"], "hidden": [3]}]},
        {"optimizer": {"kind": "rnnprop", "hidden": 5, "output_scale": 100.0}},
    ],
    ids=str,
)
def test_recorded_meta_training_is_the_same(changes):
    values = {**merge(TINY, changes), **({"task": changes["task"]} if "task" in changes else {})}
    recorder = Again()
    found, phi = records_of(values, RecordedTruncations(recorder))
    expected, plain = records_of(values)
    assert found == expected
    assert all(torch.equal(phi[name], plain[name]) for name in plain)
    assert (recorder.replays > 0) == ("penalty" not in changes or "smooth" not in changes["penalty"])


def test_a_recording_is_replayed_for_all_truncations_like_it():
    recorder = Again()
    records_of(TINY, RecordedTruncations(recorder))
    # 12 truncations: the first of an unroll and the later ones are two kinds, each done once plainly and recorded once
    assert (recorder.records, recorder.replays) == (2, 10)


def test_weights_that_never_come_again_leave_no_recordings_behind():
    recorder, values = Again(), merge(TINY, {"meta": {"weights": "xh_code", "inner_steps": 5 * (MOST_RECORDINGS + 3)}})
    run_truncation = RecordedTruncations(recorder)
    assert records_of(values, run_truncation)[0] == records_of(values)[0]
    assert recorder.records <= MOST_RECORDINGS


def test_results_of_a_replay_outlive_the_next_one():
    trainer = meta_trainer(from_mapping(TINY), device=CPU)
    run_truncation, trainer.pending = RecordedTruncations(Again()), ""
    epoch = trainer._new_epoch(0, 10).begin(2)
    (group,) = epoch.groups
    carry, found = group.carry, []
    for _ in range(4):
        partial, carry = run_truncation(group.objective, trainer.phi, carry, Inputs(group.stream.draw(5), [1.0] * 5))
        found.append((list(tensors_of([partial, carry])), [t.clone() for t in tensors_of([partial, carry])]))
    assert all(torch.equal(one, copied) for pair in found for one, copied in zip(*pair, strict=True))
    assert (carry.inner_step, carry.truncations) == (20, 4)


def test_only_on_a_gpu_and_not_where_it_is_refused(monkeypatch):
    monkeypatch.delenv("LREG_GRAPHS", raising=False)
    assert recording.chosen(CPU) is recording.run_truncation and recording.describe(CPU) == ""
    assert isinstance(recording.chosen(CUDA), RecordedTruncations)
    assert "where their trials say so" in recording.describe(CUDA)
    monkeypatch.setenv("LREG_GRAPHS", "1")
    assert recording.chosen(CPU) is recording.run_truncation
    assert "as LREG_GRAPHS says" in recording.describe(CUDA)
    monkeypatch.setenv("LREG_GRAPHS", "0")
    assert recording.chosen(CUDA) is recording.run_truncation
    monkeypatch.setenv("LREG_GRAPHS", "yes")
    with pytest.raises(LregError, match=r"LREG_GRAPHS: found 'yes'; allowed: auto, 0, 1"):
        recording.chosen(CPU)


@pytest.fixture
def tried(monkeypatch, tmp_path):
    """Trials of recordings, of which one takes a quarter of the time or what is said; and the lines of the log."""
    lines, pace = [], {"replay": 0.25}
    monkeypatch.setattr(trials, "folder", lambda: tmp_path)
    monkeypatch.setattr(trials, "log", trials.logging.getLogger("a test"))
    monkeypatch.setattr(
        trials, "timed", lambda call, device: (call(), pace["replay"] if "replay" in str(call.func) else 1.0)[1]
    )
    trials.trial_of.cache_clear()
    trials.tell(lines.append)
    yield lines, pace
    trials.trial_of.cache_clear()


KINDS, TRUNCATIONS = 2, 12  # the first truncation of an unroll, and later ones; of TINY


def test_a_recording_that_is_right_and_fast_is_taken(tried):
    recorder, (lines, _) = Again(), tried
    found, phi = records_of(TINY, RecordedTruncations(recorder, CPU))
    expected, plain = plain_records()
    assert found == expected and all(torch.equal(phi[name], plain[name]) for name in plain)
    assert recorder.records == KINDS and recorder.replays > KINDS * (1 + trials.ROUNDS)
    assert len(lines) == KINDS and all("taken: 4 times as fast as plain PyTorch" in line for line in lines)
    trials.trial_of.cache_clear()  # the next process
    later = Again()
    records_of(TINY, RecordedTruncations(later, CPU))
    assert later.replays == TRUNCATIONS - 2 * KINDS and len(lines) == KINDS  # no trial, and none is timed


def test_a_slow_recording_is_not_taken(tried):
    (lines, pace), recorder = tried, Again()
    pace["replay"] = 2.0
    assert records_of(TINY, RecordedTruncations(recorder, CPU))[0] == plain_records()[0]
    assert len(lines) == KINDS and all("not taken: 0.5 times as fast" in line for line in lines)
    assert recorder.replays <= KINDS * (1 + trials.ROUNDS)


class Stale(Again):
    """Gives what it has recorded, whatever the inputs are: from the beginning, or from some replay on."""

    def __init__(self, fresh=0):
        super().__init__()
        self.fresh = fresh

    def record(self, work):
        results, again = super().record(work)

        def replay():
            if self.replays < self.fresh:
                again()

        return results, replay


class Failing(Again):
    """Cannot record, or cannot replay from some replay on."""

    def __init__(self, fine=None):
        super().__init__()
        self.fine = fine

    def record(self, work):
        if self.fine is None:
            raise RuntimeError("operation not permitted when stream is capturing")
        results, again = super().record(work)

        def replay():
            if self.replays >= self.fine:
                raise RuntimeError("CUDA error: unspecified launch failure")
            again()

        return results, replay


@pytest.mark.parametrize(
    "recorder",
    [Stale(), Failing(), Failing(0), Failing(7), Failing(9)],
    ids=["stale", "not recorded", "fails at once", "fails later", "fails last"],
)
def test_a_recording_that_is_wrong_or_fails_is_left_and_nothing_is_lost(tried, recorder):
    lines, _ = tried
    found, phi = records_of(TINY, RecordedTruncations(recorder, CPU))
    expected, plain = plain_records()
    assert found == expected and all(torch.equal(phi[name], plain[name]) for name in plain)
    problems = ("wrong: error", "operation not permitted", "unspecified launch failure")
    assert any(problem in lines[-1] for problem in problems)
    before = recorder.records
    records_of(TINY, RecordedTruncations(recorder, CPU))  # by the verdicts of before
    assert recorder.records <= before + KINDS


def test_a_recording_that_turns_wrong_is_left_at_a_check(tried):
    lines, _ = tried
    records_of(TINY, RecordedTruncations(Stale(fresh=KINDS * (1 + trials.ROUNDS)), CPU))
    assert "no longer taken, plain PyTorch from here on: wrong: error" in lines[-1]


class HostTensors(TorchDispatchMode):
    """Notes every operation with a tensor on the CPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)}
        if "cpu" in devices:
            self.found.append(str(func))
        return out


class StandInTape:
    """Steps in plain PyTorch and no gradient: autograd wants a real GPU."""

    def __init__(self, optimizer, phi, state):
        self.optimizer, self.phi, self.now = optimizer, {name: t.detach() for name, t in phi.items()}, state

    def step(self, features, observed):
        update, self.now = self.optimizer.step(self.phi, features, {**self.now, **observed})
        return update

    def state(self):
        return self.now

    def pull_back(self, slopes, side=None):
        return {name: torch.zeros_like(t) * slopes[0].sum() for name, t in self.phi.items()}

    def close(self):
        pass


class Bowl(GeometricPenalty):
    def at(self, loss, theta, value, gradient):
        return value + 1.0, gradient * 2.0


@pytest.mark.parametrize("optimizer", [DM(), RNNProp()], ids=["dm", "rnnprop"])
@pytest.mark.parametrize("loss_batch", ["next", "same", "validation"])
@pytest.mark.parametrize("relative", [False, True])
def test_a_truncation_neither_waits_for_the_gpu_nor_gets_anything_from_the_host(
    optimizer, loss_batch, relative, monkeypatch
):
    """On tensors without numbers of a GPU that need not be there: to look at one of them raises."""
    monkeypatch.setattr(
        kernels, "tape", lambda optimizer, phi, state, *rest, **more: StandInTape(optimizer, phi, state)
    )
    for module in (unroll, inner_steps):
        monkeypatch.setattr(module, "gradients_and_losses", lambda loss, theta, batch: (theta * 2.0, theta.sum(-1)))
    sizes = {name: tensor.shape for name, tensor in optimizer.init_phi(torch.Generator().manual_seed(1)).items()}
    penalty = Bowl(weight=0.5, relative=relative)
    objective = unroll.Objective(torch.sum, optimizer, {"bowl": penalty}, loss_batch=loss_batch)
    monkeypatch.setattr(penalty_terms, "side_by_side", one_after_another)
    with FakeTensorMode(), HostTensors() as host:
        phi = {name: torch.zeros(size, device="cuda") for name, size in sizes.items()}
        theta = torch.zeros(3, 50, device="cuda")
        carry = unroll.begin(objective, theta, () if loss_batch == "next" else None)
        inputs = Inputs([()] * 4, [1.0] * 4, scoring=[()] * 4)
        partial, carry = unroll.run_truncation(objective, phi, carry, inputs)
        gradient, figures = partial.meta_gradient(objective, phi, 3)
        assert host.found == []
        assert {part.device.type for part in tree_leaves((gradient, figures, carry.theta))} == {"cuda"}
        theta.new_tensor([1.0])
        assert host.found  # a number from the host is noticed


def one_after_another(function):
    """`side_by_side` for tensors without numbers, which vmap does not take."""

    def call(theta, batch, *rest):
        each = [function(point, 0, *(part[row] for part in rest)) for row, point in enumerate(theta)]
        return tuple(map(torch.stack, zip(*each, strict=True)))

    return call


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kernels", ["plain", "recompute", "triton"])
@pytest.mark.parametrize("changes", [{}, SAM], ids=str)
def test_cuda_graphs(kernels, changes, monkeypatch):
    monkeypatch.setenv("LREG_KERNELS", kernels)
    cuda = torch.device("cuda")
    monkeypatch.setenv("LREG_GRAPHS", "0")
    found, _ = records_of(merge(TINY, changes), RecordedTruncations(CudaGraphs(cuda)), cuda)
    expected, _ = records_of(merge(TINY, changes), device=cuda)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
