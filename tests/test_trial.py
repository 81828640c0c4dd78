"""Trials of kernels, on a pretended device: kernels that are right, wrong, slow, that crash, that turn bad later."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import time

import pytest
import torch

from engine import kernels
from engine.jobs.from_preset import meta_trainer
from engine.kernels import trial as trials
from engine.kernels import triton_tape
from engine.kernels.recompute import RecomputeTape
from engine.kernels.tape import SideInput
from engine.kernels.trial import PLAIN, Trial, TrialOutcome, TrialSubject, Verdict, judge
from engine.kernels.tried_tape import TriedTape
from engine.optimizers.box_ascent import BoxAscent
from engine.optimizers.learned.dm import DM
from engine.presets.preset import from_mapping, merge

CPU = torch.device("cpu")
SUBJECT = TrialSubject("fast", "a sum", "float32", "a device (sm_90)", "0123", "torch 2")
KERNEL = kernels.TRITON
TINY = {
    "task": {"dataset": "digits", "optimizee": "mlp", "hidden": [4], "batch_size": 16},
    "optimizer": {"kind": "dm", "hidden": 5},
    "meta": {"epochs": 2, "inner_steps": 6, "truncation": 3, "meta_batch": 2},
    "evaluation": {"every": 100, "optimizees": 1, "final_optimizees": 1},
}
TRIED = 1 + trials.ROUNDS  # how often a trial asks a kernel: compared, then timed


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of verdicts for one test."""
    monkeypatch.setattr(trials, "folder", lambda: tmp_path / "trials")
    trials.trial_of.cache_clear()
    yield tmp_path / "trials"
    trials.trial_of.cache_clear()


@pytest.fixture
def told():
    """The lines of the log."""
    lines = []
    before = trials.log.handlers, trials.log.propagate, trials.log.level
    trials.tell(lines.append)
    yield lines
    trials.log.handlers, trials.log.propagate, level = before
    trials.log.setLevel(level)


# ---- the judge -------------------------------------------------------------------------------------------------------


def away_from(expected):
    return lambda found: abs(found - expected)


def slowly():
    time.sleep(0.02)
    return 1.0


def crashing():
    raise RuntimeError("no kernel image is available\nfor execution on the device")


def test_the_fastest_that_is_right_is_taken():
    candidates = {
        "wrong": lambda: 1.01,
        "no number": lambda: math.nan,
        "crashing": crashing,
        "slow": lambda: (time.sleep(0.04), 1.0)[1],
        "fast": lambda: 1.0 + trials.BOUND / 2,
    }
    verdict = judge(slowly, candidates, away_from(1.0), 0.0, CPU)
    assert verdict.chosen == "fast"
    problems = {name: outcome.problem for name, outcome in verdict.outcomes.items()}
    assert problems["crashing"] == "RuntimeError: no kernel image is available"
    assert "error 1.0e-02" in problems["wrong"] and "error nan" in problems["no number"]
    assert not problems["slow"] and verdict.outcomes["slow"].seconds > verdict.outcomes[PLAIN].seconds
    del candidates["fast"]
    assert judge(slowly, candidates, away_from(1.0), 0.0, CPU).chosen == PLAIN


def test_what_is_hopelessly_slow_is_timed_once():
    calls = []
    judge(lambda: 1.0, {"slow": lambda: (calls.append(1), time.sleep(0.01), 1.0)[2]}, away_from(1.0), 0.0, CPU)
    assert len(calls) == 2  # compared, then timed


def test_where_plain_pytorch_errs_as_much_a_kernel_is_not_to_blame():
    kernel, noise = {"rough": lambda: 1.0 + 10 * trials.BOUND}, 5 * trials.BOUND
    assert judge(slowly, kernel, away_from(1.0), noise, CPU).chosen == "rough"
    assert judge(slowly, kernel, away_from(1.0), 0.0, CPU).chosen == PLAIN


# ---- what is kept ----------------------------------------------------------------------------------------------------


VERDICT = Verdict("fast", {PLAIN: TrialOutcome(0.2, 1e-7), "fast": TrialOutcome(0.1, 2e-6)})


def settled(verdict=VERDICT):
    trial = Trial(SUBJECT)
    trial.settle(lambda: verdict)
    return trial


def test_a_verdict_is_there_for_the_next_process_and_for_no_other_subject(told):
    settled()
    again = Trial(SUBJECT)
    assert again.takes_kernel and again.verdict == VERDICT
    assert Trial(TrialSubject("fast", "a sum", "float32", "a device (sm_90)", "0124", "torch 2")).is_open
    expected = (
        "fast on a device (sm_90): a sum, float32: taken: 2 times as fast as plain PyTorch (100 ms), error 2.0e-06"
    )
    assert told == [expected]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"subject": 3}', '{"verdict": null, "unfinished": "many"}'])
def test_a_damaged_file_is_no_verdict(cache, text):
    settled()
    (path,) = cache.glob("*.json")
    path.write_text(text)
    assert Trial(SUBJECT).is_open
    assert settled().takes_kernel and json.loads(path.read_text())["verdict"]["chosen"] == "fast"


def test_a_file_of_another_subject_is_no_verdict(cache):
    settled()
    (path,) = cache.glob("*.json")
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "subject": {**kept["subject"], "device": "another one"}}))
    assert Trial(SUBJECT).is_open


def test_a_cache_that_cannot_be_written_is_done_without(cache):
    cache.write_text("no folder")
    trial = settled()
    assert trial.takes_kernel and Trial(SUBJECT).is_open and trials.verdicts() == []


def test_no_memory_for_a_trial_says_nothing_of_the_kernel(told):
    def judge():
        raise torch.OutOfMemoryError("CUDA out of memory")

    trial = Trial(SUBJECT)
    trial.settle(judge)
    assert not trial.is_open and not trial.takes_kernel
    assert Trial(SUBJECT).is_open and "no memory" in told[0]


def test_an_interrupted_trial_is_begun_again():
    def judge():
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            Trial(SUBJECT).settle(judge)
    assert Trial(SUBJECT).is_open


def test_a_kernel_that_brings_its_process_down_is_tried_twice():
    for is_open in (True, True, False):
        trial = Trial(SUBJECT)
        assert trial.is_open == is_open and not trial.takes_kernel
        process = multiprocessing.get_context("fork").Process(target=trial.settle, args=(lambda: os._exit(1),))
        process.start()
        process.join()


def test_the_first_call_is_checked_and_then_ever_fewer():
    trial = settled()
    assert [call for call in range(1, 300) if trial.due()] == [1, 4, 16, 64, 256]
    with trials.thorough():
        assert trial.due()
    assert not trial.due()


# ---- a tape on a pretended device ------------------------------------------------------------------------------------


class Kernel(RecomputeTape):
    """A kernel that is right until a truncation of which it is not. Of the class: how many it has taken."""

    taken = 0
    bad_from, badness = math.inf, staticmethod(lambda value: value)
    part = ""

    def __init__(self, *arguments):
        type(self).taken += 1
        super().__init__(*arguments)
        self._spoil("new", None)

    def _spoil(self, part, value):
        return self.badness(value) if self.part == part and self.taken >= self.bad_from else value

    def step(self, features, observed):
        return self._spoil("step", super().step(features, observed))

    def ascend(self, offset, ascent):
        return self._spoil("ascend", super().ascend(offset, ascent))

    def state(self):
        return self._spoil("state", super().state())

    def pull_back(self, slopes, side=None):
        part = "pull_back" if side is None else "pull_back of a side"
        return self._spoil(part, super().pull_back(slopes, side))


@pytest.fixture
def pretend(monkeypatch):
    """Pretend that a device has a kernel, twice as fast as plain PyTorch."""

    def device(part="", badness=None, bad_from=0, seconds=1.0):
        kind = type("Kernel", (Kernel,), {"part": part, "bad_from": bad_from, "taken": 0})
        if badness is not None:
            kind.badness = staticmethod(badness)

        def timed(call, device):
            call()
            if call.func.__name__ == "take_steps":
                return 1.0  # what a graph does not need
            return seconds if kind in call.args else 2.0

        monkeypatch.setattr(kernels, "LARGEST_GRAPH", 0)  # without the kernel it is a RecomputeTape
        monkeypatch.setattr(kernels, "native_problem", lambda: "pretended away")
        monkeypatch.setattr(triton_tape, "supports", lambda *arguments: True)
        monkeypatch.setattr(triton_tape, "TritonTape", kind)
        monkeypatch.setattr(trials, "timed", timed)
        return kind

    monkeypatch.delenv("LREG_KERNELS", raising=False)
    return device


STEPS, TRUNCATIONS = 3, 8


def drive(ascends=False, truncations=TRUNCATIONS, steps=STEPS, layers=2):
    """An unroll on random features, by whatever tape there is: everything that it gives."""
    generator, optimizer = torch.Generator().manual_seed(1), DM(hidden=5, layers=layers)
    phi, theta = optimizer.init_phi(generator), torch.zeros(2, 9)
    state, given = optimizer.init(theta), []
    for _ in range(truncations):
        draw = [torch.randn(2, 9, 2, generator=generator) for _ in range(2 * steps)]
        features, others = draw[:steps], draw[steps:]
        tape = kernels.tape(optimizer, phi, state, theta, steps, ascends=ascends)
        tape = RecomputeTape(optimizer, phi, state, steps) if tape is None else tape
        for one, other in zip(features, others, strict=True):
            given.append(tape.step(one, state).clone())
            if ascends:
                given += tape.ascend(0.1 * other, BoxAscent(0.3, 0.1, 3))
        slopes = [one[..., 0] for one in features]
        pulls = [tape.pull_back(slopes)]
        if ascends:
            pulls.append(
                tape.pull_back(slopes, SideInput([None, *others[1:]], [None, *(one[..., 1] for one in others[1:])]))
            )
        state = {**state, **tape.state()}
        given += [tensor for part in (*pulls, state) for tensor in part.values()]
        tape.close()
    return given


def driven_without(monkeypatch, **how):
    with monkeypatch.context() as patch:
        patch.setenv("LREG_KERNELS", "recompute")
        return drive(**how)


def equal(given, expected):
    return all(torch.equal(one, other) for one, other in zip(given, expected, strict=True))


def crash(value):
    raise RuntimeError("an illegal instruction was encountered")


def scaled(value, factor=1.01):
    if isinstance(value, dict):
        return {name: factor * tensor for name, tensor in value.items()}
    return tuple(factor * tensor for tensor in value) if isinstance(value, tuple) else factor * value


def spoilt(value):
    return scaled(value, math.nan)


def verdict():
    (kept,) = trials.verdicts()
    return kept.verdict


def test_a_kernel_that_is_right_and_fast_takes_all_truncations_but_the_first(pretend, told):
    kind = pretend()
    drive()
    assert verdict().chosen == KERNEL and len(told) == 1 and "taken: 2 times as fast" in told[0]
    assert kind.taken == TRIED + TRUNCATIONS - 1
    trials.trial_of.cache_clear()  # the next process
    drive()
    assert kind.taken == TRIED + 2 * TRUNCATIONS - 1 and len(told) == 1


@pytest.mark.parametrize("badness", [scaled, spoilt, crash])
@pytest.mark.parametrize("part", ["step", "ascend", "state", "pull_back", "pull_back of a side"])
def test_a_kernel_that_is_wrong_in_any_part_is_not_taken(pretend, part, badness, monkeypatch, told):
    kind = pretend(part, badness)
    given = drive(ascends=True)
    assert verdict().chosen == PLAIN and verdict().outcomes[KERNEL].problem
    assert kind.taken == 1 and len(told) == 1
    assert equal(given, driven_without(monkeypatch, ascends=True))


def test_a_kernel_that_cannot_be_made_is_not_taken(pretend, monkeypatch):
    pretend("new", crash)
    assert equal(drive(), driven_without(monkeypatch))
    assert "illegal instruction" in verdict().outcomes[KERNEL].problem


def test_a_slow_kernel_is_not_taken(pretend, monkeypatch, told):
    pretend(seconds=4.0)
    assert equal(drive(), driven_without(monkeypatch))
    assert verdict().chosen == PLAIN and "not taken: 0.5 times as fast" in told[0]


@pytest.mark.parametrize(("largest_graph", "taken"), [(0, KERNEL), (2**31, PLAIN)])
def test_a_graph_is_not_charged_for_steps_that_it_does_not_take_twice(pretend, largest_graph, taken, monkeypatch):
    pretend(seconds=1.5)
    monkeypatch.setattr(kernels, "LARGEST_GRAPH", largest_graph)
    drive(truncations=1)
    assert verdict().chosen == taken


def test_an_ascent_that_does_not_climb_is_wrong(pretend, monkeypatch):
    """Its update is that of the features it gives: only the climb tells."""

    def stay(self, offset, ascent):
        return (start := self._features[-1] + offset), self.last_step()(start)

    monkeypatch.setattr(pretend(), "ascend", stay, raising=False)
    drive(ascends=True)
    assert "wrong" in verdict().outcomes[KERNEL].problem


@pytest.mark.parametrize("part", ["new", "step", "state", "pull_back"])
def test_a_kernel_that_fails_later_is_left_for_good_and_nothing_is_lost(pretend, part, monkeypatch, told):
    pretend(part, crash, bad_from=TRIED + 4)
    assert equal(drive(), driven_without(monkeypatch))
    assert verdict().chosen == PLAIN
    assert len(told) == 2 and "no longer taken, plain PyTorch from here on: RuntimeError: an illegal" in told[1]


def test_a_kernel_that_errs_later_is_left_at_the_next_check(pretend, told):
    kind = pretend("pull_back", scaled, bad_from=TRIED + 2)
    drive()
    assert verdict().chosen == PLAIN and "wrong: error 1.0e-02" in told[1]
    assert kind.taken == TRIED + 4  # the fourth truncation on the kernel is checked


def test_lack_of_memory_later_is_no_verdict(pretend, told):
    def full(value):
        raise torch.OutOfMemoryError("CUDA out of memory")

    pretend("step", full, bad_from=TRIED + 2)
    drive()
    assert "OutOfMemoryError" in told[1] and trials.verdicts() == []


@pytest.mark.parametrize("way", ["plain", "recompute", "triton"])
def test_a_way_that_is_asked_for_is_not_tried(pretend, way, monkeypatch, cache):
    kind = pretend()
    monkeypatch.setenv("LREG_KERNELS", way)
    drive()
    assert not cache.exists() and kind.taken == (TRUNCATIONS if way == "triton" else 0)


def test_meta_training_goes_on_as_without_the_kernel(pretend, monkeypatch):
    """Through everything that stands on a tape: the trial, a kernel that takes truncations, and its failure."""
    pretend("pull_back", crash, bad_from=TRIED + 3)
    values = merge(TINY, {"penalty": {"smooth": {"ascent_steps": 2, "weight": 10.0}}})
    found = {}
    for way in ("auto", "recompute"):
        monkeypatch.setenv("LREG_KERNELS", way)
        trainer = meta_trainer(from_mapping(values), device=CPU)
        trainer.pending = ""
        found[way] = [trainer.advance() for _ in range(4)], trainer.phi
    assert "illegal instruction" in verdict().outcomes[KERNEL].problem
    assert equal(found["auto"][1].values(), found["recompute"][1].values())


def test_numbers_that_are_not_finite_are_no_trial_and_three_of_them_are_enough(pretend):
    pretend()
    optimizer, theta = DM(hidden=5), torch.zeros(1, 7)
    phi, state = optimizer.init_phi(torch.Generator().manual_seed(1)), optimizer.init(theta)
    trial = kernels.triton_trial(optimizer, state, CPU, torch.float32, ascends=False)
    for is_open in (True, True, False):
        tape = kernels.tape(optimizer, phi, state, theta, 1)
        assert isinstance(tape, TriedTape)
        tape.step(torch.full((1, 7, 2), math.nan), state)
        tape.pull_back([theta])
        tape.state()
        tape.close()
        assert trial.is_open == is_open and not trial.takes_kernel
    assert trials.verdicts() == []


def test_other_sizes_and_penalties_are_other_trials(pretend):
    pretend()
    optimizer = DM(hidden=5)
    states = [optimizer.init(torch.zeros(1, size)) for size in (1000, 1024, 1025)]
    same, alike, larger = (kernels.triton_trial(optimizer, s, CPU, torch.float32, ascends=False) for s in states)
    assert same is alike and larger is not same
    assert kernels.triton_trial(optimizer, states[0], CPU, torch.float32, ascends=True) is not same
    assert kernels.tape_way(optimizer, states[0], CPU, torch.float32, 5) == "recompute"
    same.settle(lambda: Verdict(KERNEL))
    assert kernels.tape_way(optimizer, states[0], CPU, torch.float32, 5) == "triton"


def test_a_verdict_goes_into_the_runs_log(told):
    record = logging.LogRecord("lreg.kernels", logging.INFO, "", 0, "%s: taken", ("a kernel",), None)
    trials.log.handle(record)
    assert told == ["a kernel: taken"]
