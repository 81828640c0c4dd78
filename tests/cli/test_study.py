"""`lreg study` as a user calls it."""

from __future__ import annotations

import json

import pytest
from driving import eventually

from engine.base.errors import DataError
from engine.runs.store import RunStore
from engine.study.plan.document import load_study
from engine.study.schedule import inputs
from engine.study.schedule.loop import StudyJob

STUDY = """
name = "pair"
seeds = [0]
preset = "tiny.toml"
[set]
"evaluation.final_optimizees" = 0
"meta.epochs" = 1
[[arm]]
name = "plain"
[[arm]]
name = "fast"
axes = { "meta.learning_rate" = [1e-2] }
[transfer]
to = ["digits/mlp"]
steps = 10
seeds = 1
untrained = false
evaluation = { examples = 20, restarts = 1, ascent_steps = 1 }
"""
LOCAL = ("--devices", "cpu", "--jobs", "2")


@pytest.fixture
def pair(home):
    (home / "pair.toml").write_text(STUDY)
    return home


def test_from_the_file_to_the_winners(forked, lreg, pair):
    planned = lreg("study", "pair.toml", "--dry-run", "--json")
    assert planned.code == 0 and not (pair / "runs").exists()
    assert [(line["arm"], line["seed"], line["state"]) for line in planned.lines] == [
        ("plain", 0, "missing"),
        ("fast", 0, "missing"),
    ]
    done = lreg("study", "pair.toml", *LOCAL, "--json")
    assert done.code == 0, done.err
    first, *changes, end = done.lines
    assert first["event"] == "study" and end["event"] == "end" and end["state"] == "finished"
    finished = [line for line in changes if line["state"] == "finished"]
    assert [line["event"] for line in finished].count("cell") == 2
    assert [line["event"] for line in finished].count("transfer") == 2
    assert all(line["value"] > 0 for line in finished if line["event"] == "cell")
    winners = {row["arm"]: row for row in end["winners"]}
    assert winners["fast"]["point"] == {"meta.learning_rate": 0.01} and winners["plain"]["n"] == 1
    assert json.loads((pair / "runs" / ".studies" / first["id"] / "status.json").read_text())["state"] == "finished"
    assert end["report"].endswith("report/report.md")

    store = RunStore(pair / "runs")
    assert {reader.id for reader in store.list()} == {line["run"] for line in changes if line["event"] == "cell"}
    shown = lreg("show", first["id"], "--json").lines[0]
    assert shown["preset"]["arm fast"] == "meta.learning_rate: 0.01" and shown["status"]["step"] == 4
    assert first["id"] not in lreg("runs").err
    again = lreg("resume", first["id"])
    assert again.code == 2 and "is finished: nothing to resume" in again.err

    for option in ((), ("--retry-failed",)):
        again = lreg("study", "pair.toml", *option, *LOCAL, "--json")
        assert again.code == 0 and "nothing to do (--new begins anew)" in again.err
        assert again.lines == [first, end]
    assert lreg("study", "pair.toml", "--detach").out == first["id"] + "\n"
    assert len(store.list()) == 2 and len(store.studies()) == 1
    assert "2 of them there already" in lreg("study", "pair.toml", "--dry-run").err
    assert "0 of them there already" in lreg("study", "pair.toml", "--dry-run", "--new").err


def test_going_on_without_the_data_is_told_before_anything_starts(lreg, pair, monkeypatch):
    """A shell that lacks LREG_DATA_DIR must not fail every run that is left."""
    begun = StudyJob.start(pair / "runs", load_study("pair.toml", (), "20261120-211500"))
    begun.set_status(state="stopped", message="")

    def missing(*_):
        raise DataError("digits: not there")

    monkeypatch.setattr(inputs, "check_study", missing)
    for command in (("study", "pair.toml"), ("resume", begun.id)):
        outcome = lreg(*command)
        assert outcome.code == 2 and outcome.err == "error: digits: not there\n"
    assert not RunStore(pair / "runs").list() and RunStore(pair / "runs").resolve("pair").state == "stopped"


def test_a_detached_study_is_stopped_with_its_runs_and_goes_on_where_it_was(forked, lreg, pair):
    longer = ("--set", "set.meta.epochs=4000", "--set", "transfer.steps=5")
    started = lreg("study", "pair.toml", *LOCAL, *longer, "--detach", "--json")
    assert started.code == 0, started.err
    name = started.lines[0]["study"]
    store = RunStore(pair / "runs")
    (study,) = store.studies()
    try:
        assert study.id == name
        eventually(lambda: [run.state for run in store.list()] == ["running"] * 2)
        second = lreg("study", "pair.toml", *LOCAL, *longer)
        assert second.code == 2 and f"study {name} is running (process" in second.err
        assert f"study {name}: running" in lreg("runs").err
        eventually(lambda: all(run.recorded_status().step for run in store.list()))
    finally:
        assert lreg("stop", name).code == 0
    assert study.state == "stopped" and [run.state for run in store.list()] == ["stopped"] * 2
    there = lreg("study", "pair.toml", *longer, "--dry-run")
    assert f"2 runs of {name}, 2 of them there already" in there.err
    changed = lreg("study", "pair.toml", "--dry-run")
    assert "of a new study, 0 of them there already" in changed.err
    resumed = lreg("resume", name, "--detach")
    assert resumed.code == 0, resumed.err
    try:
        steps = [run.recorded_status().step for run in store.list()]
        eventually(lambda: all(run.recorded_status().step > n for run, n in zip(store.list(), steps, strict=True)))
        assert len(store.list()) == 2
    finally:
        lreg("stop", name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pair.toml", "--executor", "cloud"), '--executor: found "cloud"; allowed: one of: local, slurm'),
        (("pair.toml", "--jobs", "many"), '--jobs: found "many"'),
        (("pair.toml", "--set", "seeds=[]"), "--set: seeds: found []"),
        (
            ("pair.toml", "--set", "arm.fsat.preset=lo"),
            "allowed: an arm: plain, fast (did you mean fast?)",
        ),
        (("pair.toml", "--set", "meta.epochs=3"), "(keys of the preset go under set: set.meta)"),
        (("nowhere.toml",), "no such file and no shipped study of that name"),
        (("tiny.toml",), "tiny.toml: found a preset; allowed: a study (lreg run tiny.toml does one run of it)"),
        (("quickstart",), "(that is a preset: lreg run quickstart)"),
        (("pair.toml", "--report"), '"pair.toml": a file; --report wants the id, name or folder of a study'),
        (("pair", "--report"), 'no run "pair" in'),
        (("pair.toml", "--devices", "gpu"), "--devices: found 'gpu'; allowed: auto, cpu"),
        (("pair.toml", "--devices", "cuda:77"), "--devices: cuda:77 is not on this machine"),
    ],
)
def test_bad_input_is_one_line_and_starts_nothing(forked, lreg, pair, arguments, said):
    outcome = lreg("study", *arguments)
    assert outcome.code == 2 and said in outcome.err and len(outcome.err.splitlines()) == 1
    assert not (pair / "runs").exists()


@pytest.mark.parametrize(
    "changes",
    [{"seeds": list(range(20_000))}, {"pick": {"metric": ["x"]}}, {"transfer": {"settings": 5}}, {"arms": 5}],
)
def test_a_damaged_study_is_told_in_one_line_whatever_is_wanted(lreg, pair, changes):
    begun = StudyJob.start(pair / "runs", load_study("pair.toml", (), "20261120-211500"))
    begun.set_status(state="stopped", message="")
    path = begun.path / "study.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    for command in (
        ("study", "pair", "--report"),
        ("resume", "pair"),
        ("compare", "pair"),
        ("export", "pair", "--to", "csv"),
    ):
        outcome = lreg(*command)
        assert outcome.code == 2 and len(outcome.err.splitlines()) == 1 and "study.json: " in outcome.err


def test_resume_tells_what_the_runs_of_a_study_were_logged_to(lreg, home):
    plan = load_study("smoke", (), "20261201-000000")
    job = StudyJob.start(home / "runs", plan, argv=["lreg", "study", "smoke", "--log-to", "wandb", "--log-to=mlflow"])
    job.set_status(state="stopped")
    (job.path / "study.json").unlink()  # so that nothing is begun
    outcome = lreg("resume", job.id)
    assert outcome.code != 0 and "its runs were logged to wandb, mlflow before: --log-to" in outcome.err
