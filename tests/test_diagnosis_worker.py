"""Diagnoses of runs: what is kept, what is read back, what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from comparing import make_run

from engine.base.errors import LregError
from engine.jobs import diagnosis_worker
from engine.jobs.diagnosis_worker import DiagnosisRequest, diagnose, keep
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS
from engine.runs import checkpoint as checkpoints
from engine.runs import diagnoses
from engine.runs.diagnoses import DiagnosedPart, Slope
from engine.runs.store import RunReader

CPU = torch.device("cpu")
SMALL = DiagnosisRequest(optimizees=3)
META = {"inner_steps": 8, "truncation": 4}


def run_with_checkpoint(tmp_path, **tables) -> RunReader:
    """A run whose learned optimizer is as it was drawn."""
    task = {"dataset": "digits", "hidden": [2], "batch_size": 16}
    made = make_run(tmp_path, "small", **{"optimizer": {"kind": "simple"}, "task": task, "meta": META, **tables})
    phi = LEARNED_OPTIMIZERS.create("simple").init_phi(torch.Generator().manual_seed(0))
    checkpoints.save(made.path / "checkpoint", "best", {f"frozen/{name}": t for name, t in phi.items()}, {})
    return RunReader(made.path)


@pytest.fixture
def run(tmp_path) -> RunReader:
    penalty = {"gsam": {"weight": 0.5}, "smooth": {"weight": 2.0, "ascent_steps": 1}, "l2": {}}
    return run_with_checkpoint(tmp_path, penalty=penalty)


def by_name(report: diagnoses.DiagnosisReport) -> dict[str, DiagnosedPart]:
    return {part.label: part for part in report.parts}


def test_every_part_has_both_derivatives_and_the_whole_is_their_weighted_sum(run):
    parts = by_name(diagnose(run, SMALL, CPU))
    assert list(parts) == ["whole objective", "loss", "gsam", "smooth"]  # l2 is of phi alone
    whole = parts.pop("whole objective")
    for kind in ("true", "estimated"):
        total = sum(part.weight * getattr(part, kind).mean for part in parts.values())
        assert getattr(whole, kind).mean == pytest.approx(total, rel=1e-9)
    assert whole.value == pytest.approx(sum(part.weight * part.value for part in parts.values()))


@pytest.mark.parametrize("step_scale", ["none", "rms"])
def test_the_smoothness_of_scaled_steps_grows_with_their_square(tmp_path, step_scale):
    """Along a frozen path of inputs R is of exp(2 a): what the estimator sees is 2 R, with factors of tensors, too."""
    optimizer = {"kind": "simple", "step_scale": step_scale}
    run = run_with_checkpoint(tmp_path, penalty={"smooth": {"ascent_steps": 1}}, optimizer=optimizer)
    smooth = by_name(diagnose(run, SMALL, CPU))["smooth"]
    assert smooth.estimated is not None and smooth.estimated.mean == pytest.approx(2 * smooth.value, rel=0.02)


def test_penalties_that_the_run_did_not_have_are_looked_at_and_count_nothing(run):
    request = DiagnosisRequest(optimizees=2, penalties=("gsam", "gsam:rho=0.5", "sam"))
    parts = by_name(diagnose(run, request, CPU))
    assert list(parts) == ["whole objective", "loss", "gsam", "gsam:rho=0.5", "sam", "smooth"]
    assert parts["gsam:rho=0.5"].weight == parts["sam"].weight == 0.0 and parts["gsam"].weight == 0.5
    assert parts["gsam:rho=0.5"].value > 5 * parts["gsam"].value


def test_windows_are_parts_of_the_unroll(run):
    parts = by_name(diagnose(run, DiagnosisRequest(optimizees=2, windows=True), CPU))
    first, second = parts["loss, inner steps 0-4"], parts["loss, inner steps 4-8"]
    assert (first.true.mean + second.true.mean) / 2 == pytest.approx(parts["loss"].true.mean)


def test_an_unbiased_estimator_is_the_truth_and_terms_are_measured(tmp_path):
    es = {"estimator": "es", "pairs": 2, **META}
    objective = {"loss": "last", "log": True, "terms": {"parameter_norm": {"weight": 3.0}}}
    run = run_with_checkpoint(tmp_path, meta=es, objective=objective)
    report = diagnose(run, SMALL, CPU)
    parts = by_name(report)
    assert list(parts) == ["whole objective", "loss", "term parameter_norm"]
    assert all(part.estimated is None for part in report.parts)
    total = parts["loss"].true.mean + 3 * parts["term parameter_norm"].true.mean
    assert parts["whole objective"].true.mean == pytest.approx(total)
    assert "es estimates it without bias" in report.sentences()[0]
    first_order = by_name(diagnose(run, DiagnosisRequest(optimizees=3, estimator="tbptt"), CPU))
    assert first_order["loss"].true == parts["loss"].true and first_order["loss"].estimated is None


def test_what_is_kept_is_read_back(run):
    report = diagnose(run, SMALL, CPU)
    path = keep(run, SMALL, report)
    assert path.parent == run.path and path.name.startswith("diagnosis-best-")
    (kept,) = diagnoses.read_all(run)
    assert kept.parts == report.parts and kept.sentences() == report.sentences() and kept.file == path.stem
    assert json.loads(path.read_text())["parts"][0]["sentence"] == report.sentences()[0]
    keep(run, SMALL, report)
    assert len(list(run.path.glob("*diagnosis-*"))) == 1  # replaced, and nothing left over


@pytest.mark.parametrize(
    "damage",
    [
        lambda facts: facts.update(format=2),
        lambda facts: facts.update(parts=[]),
        lambda facts: facts.update(parts=[1]),
        lambda facts: facts.update(inner_steps="many"),
        lambda facts: facts["parts"][0].update(kind="joke"),
        lambda facts: facts["parts"][0].update(steps=[0]),
        lambda facts: facts["parts"][0].update(true=None),
        lambda facts: facts["parts"][0]["true"].update(mean=True),
    ],
)
def test_damaged_files_are_left_out(run, damage):
    part = DiagnosedPart("loss", "", 1.0, (0, 8), False, "", 1.0, Slope(1.0), None)
    facts = diagnoses.DiagnosisReport("best", "", "es", True, 8, 8, 2, 0.1, 0, "", "", (part,)).to_json()
    assert diagnoses.from_json(json.loads(json.dumps(facts))) is not None
    damage(facts)
    (run.path / "diagnosis-x.json").write_text(json.dumps(facts))
    (run.path / "diagnosis-y.json").write_text("{")
    assert diagnoses.read_all(run) == []


@pytest.mark.parametrize(
    ("estimated", "true", "words"),
    [
        (Slope(0.2, 0.1, 0.1, 0.3), Slope(-0.8, 0.1, -0.9, -0.7), "points the wrong way here"),
        (Slope(0.2, 0.1, 0.1, 0.3), Slope(0.8, 0.1, 0.7, 0.9), "both say step less"),
        (Slope(-0.2, 0.1, -0.3, -0.1), Slope(-0.8, 0.1, -0.9, -0.7), "both say step more"),
        (Slope(0.2, 0.1, 0.1, 0.3), Slope(-0.8, 1.0, -1.8, 0.2), "too noisy to tell"),
        (Slope(0.2, 0.1, -0.1, 0.5), Slope(-0.8, 0.1, -0.9, -0.7), "too noisy to tell"),
        (Slope(0.2), Slope(0.3), "too noisy to tell"),
        (None, Slope(-0.8, 0.1, -0.9, -0.7), "the truth is step more"),
        (None, Slope(-0.8, 1.0, -1.8, 0.2), "the truth is too noisy"),
    ],
)
def test_the_sign_test_in_words(estimated, true, words):
    part = DiagnosedPart("penalty", "gsam", 1.0, (0, 8), False, "", 1.0, true, estimated)
    assert words in part.words("tbptt", False)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (DiagnosisRequest(checkpoint="last"), "no such checkpoint"),
        (DiagnosisRequest(penalties=("gsm",)), "--penalty: penalty.gsm"),
        (DiagnosisRequest(penalties=("gsam:rho=x",)), "--penalty: penalty.gsam.rho"),
        (DiagnosisRequest(penalties=("spectral",)), "of the meta-parameters alone"),
        (DiagnosisRequest(estimator="nix"), "--estimator"),
        (DiagnosisRequest(preset="nix"), "no such file and no shipped preset"),
        (DiagnosisRequest(sets=("meta.truncation=0",)), "meta.truncation"),
    ],
)
def test_what_cannot_be_diagnosed_says_why(run, request_, words):
    with pytest.raises(LregError, match=words):
        diagnose(run, request_, CPU)
    assert not list(run.path.glob("*diagnosis-*"))


def test_the_worker_tells_how_far_it_is_and_keeps_its_diagnosis(run, capsys):
    assert diagnosis_worker.main(["--device", "cpu", str(run.path)]) == 0
    *progress, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert last["event"] == "diagnosis" and all(event["done"] <= event["total"] for event in progress)
    assert len(diagnoses.read_all(run)) == 1
    (run.path / "checkpoint" / "best.safetensors").unlink()
    assert diagnosis_worker.main(["--device", "cpu", str(run.path)]) == 2
    assert "no such checkpoint" in capsys.readouterr().err
