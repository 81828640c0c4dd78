"""A run folder from a stranger: nothing is written, read, locked or sent a signal outside of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from functools import partial

import pytest
from comparing import make_run
from fakes import FakeTrainer, preset, trained_by

from engine.base.control import Control
from engine.base.errors import LregError, RunError
from engine.base.status import process_started
from engine.evaluation.transfer_plan import Plan, Protocol, TransferSettings
from engine.jobs import landscape_worker, spawn
from engine.jobs.job_runner import JobRunner
from engine.jobs.transfer_job import TransferJob
from engine.presets import catalog as catalogs
from engine.runs import checkpoint, notes
from engine.runs.kinds import TRANSFER
from engine.runs.notes import Notes
from engine.runs.store import Run, RunReader, RunStore
from engine.study.schedule.loop import StudyJob
from engine.worker import work
from lreg_tui.runs.actions import Trash


@pytest.fixture(autouse=True)
def small_catalog(monkeypatch):
    import fakes

    monkeypatch.setattr(catalogs, "load", fakes.catalog)


@pytest.fixture
def run(tmp_path) -> Run:
    """A run that stopped half way, with a checkpoint."""
    made = Run.create(tmp_path / "runs", preset(meta={"checkpoint_every": 1e-6}))
    with pytest.raises(LregError):
        work(made, make_runner=trained_by(partial(FakeTrainer, fail_at=15)))
    return made


@pytest.fixture
def outside(tmp_path):
    """A folder of the user's, which looks like anything that a link may want to reach."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("last.safetensors", "best.safetensors", ".x.tmp", "secret"):
        (folder / name).write_text('{"secret": 1}\n')
    yield folder
    assert {path.name: path.read_text() for path in folder.iterdir()} == dict.fromkeys(
        ("last.safetensors", "best.safetensors", ".x.tmp", "secret"), '{"secret": 1}\n'
    )


def resume(run: Run) -> str:
    return work(Run(run.path), make_runner=trained_by(FakeTrainer))


def put_link(path, target) -> None:
    """A link in place of what is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("name", ["checkpoint", "transfer", "partial"])
@pytest.mark.parametrize("target", ["folder", "nowhere", "circle"])
def test_a_run_with_a_link_in_place_of_a_folder_is_refused_before_anything_is_written(run, outside, name, target):
    put_link(run.path / name, {"folder": outside, "nowhere": outside / "new", "circle": name}[target])
    before = (run.path / "status.json").read_bytes()
    with pytest.raises(RunError, match=f"{name}: .*no symbolic links are followed"):
        resume(run)
    assert (run.path / "status.json").read_bytes() == before
    assert RunReader(run.path).transfers() == {} and (name != "checkpoint" or not RunReader(run.path).checkpoints())


@pytest.mark.parametrize("name", ["metrics.jsonl", "preset.toml", ".lock", "checkpoint/last.safetensors"])
@pytest.mark.parametrize("target", ["secret", "new"])
def test_a_link_in_place_of_a_file_that_is_read_or_grows_is_one_line(run, outside, name, target):
    put_link(run.path / name, outside / target)
    with pytest.raises(LregError) as caught:
        resume(run)
    assert name.split("/")[-1] in str(caught.value) or "cannot write there" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["status.json", "notes.json", "log.txt", "checkpoint/best.safetensors"])
def test_other_links_to_files_are_replaced_or_left_alone(run, outside, name):
    """And what they lead to is not read: nothing of it comes into the folder."""
    put_link(run.path / name, outside / "secret")
    notes.write(run.path, Notes(name="mine"))
    resume(run)
    assert RunReader(run.path).state == "finished" and notes.read(run.path).name == "mine"
    assert "secret" not in json.dumps([RunReader(run.path).facts, RunReader(run.path).figures()])


def test_a_second_name_of_a_file_elsewhere_is_not_written_to(run, outside):
    for name in ("log.txt", "metrics.jsonl"):
        (run.path / name).unlink()
        os.link(outside / "secret", run.path / name)
    with Run(run.path) as held:
        held.log("a line")
        held.append([{"step": 1}])
    assert "a line" in (run.path / "log.txt").read_text()


def test_a_planted_temporary_file_is_not_followed(run, outside, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 7)
    monkeypatch.setattr("engine.base.files.threading.get_ident", lambda: 8)
    (run.path / ".notes.json.7-8.tmp").symlink_to(outside / "secret")
    notes.write(run.path, Notes(name="mine"))
    assert notes.read(run.path).name == "mine" and not (run.path / "notes.json").is_symlink()


def test_a_runs_preset_extends_no_file(run, outside):
    (run.path / "preset.toml").write_text(f'extends = "{outside / "secret"}"\n')
    with pytest.raises(LregError, match="extends: found a preset to extend") as caught:
        RunReader(run.path).preset()
    assert "secret" not in str(caught.value)


def test_links_of_the_users_own_lead_to_their_runs(run, tmp_path):
    """To the store, and to a run of it; the run goes on where it is."""
    (tmp_path / "store").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "linked").symlink_to(shutil.move(run.path, tmp_path / "elsewhere"))
    reader = RunStore(tmp_path / "store").resolve("linked")
    assert set(reader.checkpoints()) == {"last", "best", "initial"}
    assert work(Run(reader.path), make_runner=trained_by(FakeTrainer)) == "finished"
    assert RunReader(tmp_path / "elsewhere").transfers()


def test_a_landscape_is_not_kept_through_a_link(tmp_path, outside, capsys, monkeypatch):
    monkeypatch.undo()
    import torch

    from engine.optimizers.learned.base import LEARNED_OPTIMIZERS

    made = make_run(tmp_path, "small", optimizer={"kind": "simple"}, task={"dataset": "digits", "hidden": [2]})
    phi = LEARNED_OPTIMIZERS.create("simple").init_phi(torch.Generator().manual_seed(0))
    checkpoint.save(made.path / "checkpoint", "best", {f"frozen/{name}": t for name, t in phi.items()}, {})
    put_link(made.path / "landscape", outside)
    where = ["--task", "digits/mlp", "--steps", "2", "--points", "2", "--device", "cpu"]
    assert landscape_worker.main([*where, str(made.path)]) == 0
    assert "not kept: a link" in capsys.readouterr().err


def test_jobs_and_studies_of_another_store_are_not_taken_for_this_ones(tmp_path, run):
    other = tmp_path / "other"
    (other / TRANSFER.home / "x").mkdir(parents=True)
    (other / TRANSFER.home / "x" / "run.json").write_text("{}")
    (tmp_path / "runs" / TRANSFER.home).symlink_to(other / TRANSFER.home)
    assert RunStore(other).transfers() and not RunStore(tmp_path / "runs").transfers()


def plan(*runs: str) -> Plan:
    protocol = Protocol(
        inner_steps=1,
        radii=(0.1,),
        examples=1,
        restarts=1,
        ascent_steps=1,
        precision="float32",
        extended=False,
        marks=(),
    )
    return Plan(runs, ("dm",) * len(runs), (), protocol, TransferSettings())


def test_results_are_kept_in_runs_alone(run, outside, tmp_path):
    job = TransferJob.start(tmp_path / "runs", plan(str(run.path), str(outside)))
    with pytest.raises(RunError, match="but no run"):
        TransferJob(job, Control()).do()
    elsewhere = TransferJob(Run(tmp_path / "copied" / "job"), Control())
    assert elsewhere.store is None  # so that no .baselines is made beside whatever it lies in


def test_a_job_of_a_copied_store_measures_its_own_runs(run, tmp_path):
    copy = shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    loop = TransferJob(Run(copy / TRANSFER.home / "job"), Control())
    assert loop._at_home(plan(str(run.path))).runs == (str(copy / run.id),)


def test_a_study_goes_on_in_a_run_store_only(tmp_path):
    loop = StudyJob(Run(tmp_path / "copied"), Control())
    with pytest.raises(RunError, match=r"in the folder \.studies of a run store only"):
        loop._prepare()


def test_the_data_folder_of_a_run_is_told_and_not_looked_into(run, tmp_path, monkeypatch):
    facts = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**facts, "data_dir": str(tmp_path / "theirs")}))
    assert JobRunner(Run(run.path), Control()).data_dir is None
    monkeypatch.setenv("LREG_DATA_DIR", str(tmp_path / "mine"))
    reader = RunReader(run.path)
    assert str(tmp_path / "theirs") in reader.other_data(None)
    assert reader.other_data(tmp_path / "theirs") == ""
    (run.path / "run.json").write_text(json.dumps({**facts, "data_dir": "/x\x1b[31m\ny"}))
    assert reader.other_data(None).isprintable()


def test_no_signal_reaches_a_process_that_does_not_hold_the_run(run, tmp_path):
    """Not even where the status tells its number, its start and its host, and something holds the lock."""
    other = subprocess.Popen(["sleep", "60"])
    with run:
        path = run.path / "status.json"
        told = {"state": "running", "pid": other.pid, "process_started": process_started(other.pid)}
        text = json.dumps({**json.loads(path.read_text()), **told, "controllable": True})
        copy = tmp_path / "runs" / "copy"
        shutil.copytree(run.path, copy)
        (copy / ".lock").unlink()
        (copy / ".lock").symlink_to(run.path / ".lock")
        for folder in (run.path, copy):
            (folder / "status.json").write_text(text)
            with pytest.raises(RunError, match="not held by process"):
                spawn.request(RunReader(folder), signal.SIGTERM, "stop")
    assert other.poll() is None
    other.kill()
    other.wait()


def test_a_delete_takes_links_and_not_what_they_lead_to(run, outside):
    for name in ("checkpoint", "transfer", "log.txt"):
        put_link(run.path / name, outside)
    trash = Trash(run.path.parent)
    trash.put(run.path, trash.begin())
    trash.empty()
    assert not run.path.exists()
