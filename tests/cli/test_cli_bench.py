"""lreg bench: figures for scripts and for people, and one clear error for bad input."""

from __future__ import annotations

import signal

import pytest
from driving import Outcome

KEYS = {
    *("work", "optimizer", "optimizee", "meta_batch", "device", "ms_per_inner_step", "coordinate_steps_per_s"),
    *("ratio_to_eager", "share_of_limit", "memory_bytes", "max_error"),
}
PIECE = "frozen/simple/mlp/1"


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    """The machine's limits from small products and copies, which take no second."""
    from engine.bench import busy, limits

    monkeypatch.setattr(busy, "LOOK_S", 0.01)
    monkeypatch.setattr(limits, "GEMM_SIZES", {"cpu": (256,)})
    monkeypatch.setattr(limits, "COPY_BYTES", {"cpu": 2**22})
    monkeypatch.setattr(limits, "SECONDS", 0.01)


def bench(lreg, *arguments: str) -> Outcome:
    return lreg("bench", "--quick", "--device", "cpu", *arguments)


def test_json_is_a_line_for_each_piece_of_work(lreg):
    outcome = bench(lreg, "--json", "--only", PIECE, "--only", "meta-train/simple/mlp/2")
    assert outcome.code == 0, outcome.err
    assert [(line["work"], line["meta_batch"]) for line in outcome.lines] == [("frozen", 1), ("meta-train", 2)]
    assert all(set(line) >= KEYS for line in outcome.lines)


def test_what_is_left_out_is_told_with_its_reason(lreg, monkeypatch):
    from engine.bench import needs

    monkeypatch.setattr(needs, "free_memory", lambda device: 1e3)
    (line,) = bench(lreg, "--json", "--only", PIECE).lines
    assert "are free" in line["skipped"] and line["optimizer"] == "simple"
    assert f"{PIECE}: left out: needs" in bench(lreg, "--only", PIECE).out


def test_people_get_a_table(lreg):
    outcome = bench(lreg, "--only", PIECE)
    assert outcome.code == 0, outcome.err
    for words in ("times", "frozen", "simple", "GFLOP/s", "float64"):
        assert words in outcome.out


def test_numbers_that_are_not_the_references_are_a_failure(lreg, monkeypatch):
    from engine.bench import check

    monkeypatch.setattr(check, "largest_error", lambda place: 0.5)
    outcome = bench(lreg, "--json", "--only", PIECE)
    assert outcome.code == 1 and "not the reference's numbers" in outcome.err and PIECE in outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "meta-trian/dm/mlp/1"), ("meta-trian", "meta-train-sam", "did you mean meta-train?")),
        (("--only", "\x1b[2J/dm/mlp/1"), ("allowed",)),
        (("--only", PIECE, "--all"), ("exclude",)),
        (("--threads", "0"), ("--threads", ">= 1")),
        (("--threads", "many"), ("--threads", "many")),
        (("--device", "tpu"), ("--device", "tpu")),
    ],
)
def test_bad_input_is_one_clear_error(lreg, arguments, words):
    outcome = lreg("bench", *arguments)
    assert outcome.code == 2 and outcome.out == "" and len(outcome.err.splitlines()) == 1
    assert all(word in outcome.err for word in words) and "\x1b" not in outcome.err


def test_an_interruption_ends_it(lreg_forked):
    process = lreg_forked("bench", "--device", "cpu", "--json", "--only", PIECE)
    for line in process.stderr:
        if line.startswith("1/1"):
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=240) == 130
    assert "Traceback" not in process.stderr.read()


def test_doctor_says_what_the_cpu_does(lreg):
    findings = {finding["what"]: finding["found"] for finding in lreg("doctor", "--json").lines}
    assert findings["CPU kernels"] and findings["speed"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "none that CUDA can use"),
        (("--device", "cpu"), "cpu is no GPU"),
        (("--set", "seed=1"), "--set is for --plan"),
    ],
)
def test_doctor_without_a_gpu_says_so_in_one_line(lreg, arguments, words, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    outcome = lreg("doctor", "--gpu", *arguments)
    assert outcome.code == 2 and outcome.out == "" and len(outcome.err.splitlines()) == 1 and words in outcome.err
    if not arguments:
        (line,) = lreg("doctor", "--gpu", "--json").lines
        assert line["what"] == "GPU" and line["problem"]


def test_doctor_lists_the_verdicts_of_trials(lreg, monkeypatch, tmp_path):
    """On a pretended GPU; those of other versions of torch say nothing any more."""
    import dataclasses
    from types import SimpleNamespace

    import torch

    from engine.kernels import trial

    pretended = {"is_available": True, "device_count": 1, "mem_get_info": (1, 2)}
    pretended["get_device_properties"] = SimpleNamespace(name="a GPU")
    for name, value in pretended.items():
        monkeypatch.setattr(torch.cuda, name, lambda *arguments, value=value: value)
    monkeypatch.setattr(trial, "folder", lambda: tmp_path)
    subject = trial.subject("a kernel", "a sum", torch.device("cpu"), torch.float32)
    for one, seconds in ((subject, 0.5), (dataclasses.replace(subject, versions="torch 0.4"), 0.1)):
        outcomes = {trial.PLAIN: trial.TrialOutcome(1.0, 0.0), "a kernel": trial.TrialOutcome(seconds, 1e-6)}
        trial.Trial(one).settle(lambda outcomes=outcomes: trial.Verdict("a kernel", outcomes))
    verdicts = [finding["found"] for finding in lreg("doctor", "--json").lines if finding["what"] == "trial"]
    assert len(verdicts) == 1 and "a kernel on cpu: a sum, float32: taken: 2 times as fast" in verdicts[0]
