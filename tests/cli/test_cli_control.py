"""run, resume, stop, pause, continue with the real trainer, as a user meets them."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
from driving import TINY, eventually, forked_lreg, records

from engine.runs.store import RunReader, RunStore

METRICS_ALONE = ("--set", "evaluation.final_optimizees=0")
LONG = ("--set", "meta.epochs=2000", "--set", "evaluation.every=2000", "--set", "meta.checkpoint_every=0.1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, zygote):
    """A finished tiny run and what `lreg run --json` printed for it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.toml").write_text(TINY)
    done = forked_lreg(zygote, folder, "run", "tiny.toml", "--json")
    assert done.code == 0, done.err
    return folder / "runs", done.lines


def the_run(home: Path) -> RunReader:
    (reader,) = RunStore(home / "runs").list()
    return reader


def test_json_is_the_whole_story(trained):
    runs, events = trained
    reader = RunStore(runs).resolve("last")
    assert events[0] == {"event": "run", "id": reader.id, "path": str(reader.path)}
    told = [event for event in events if event["event"] == "record"]
    written = [json.loads(line) for line in (reader.path / "metrics.jsonl").read_text().splitlines()]
    assert [{**record, "event": "record"} for record in written] == told
    assert [event["event"] for event in events[-2:]] == ["result", "end"]
    assert {row["label"] for row in events[-2]["rows"]} >= {"simple (best)", "simple (untrained)", "sgd", "adam"}
    assert events[-1]["state"] == "finished"


def test_a_finished_run_cannot_be_resumed_stopped_paused_or_continued(lreg, trained):
    for command in ("resume", "stop", "pause", "continue"):
        outcome = lreg(command, "last", "--runs-dir", str(trained[0]))
        assert outcome.code == 2 and outcome.out == ""
        assert re.fullmatch(rf"error: run \S+ is finished: nothing to {command}\n", outcome.err)


def test_running_its_preset_again_repeats_the_run(lreg, trained, home):
    reader = RunStore(trained[0]).resolve("last")
    outcome = lreg("run", str(reader.path / "preset.toml"), *METRICS_ALONE, "--json")
    assert outcome.code == 0, outcome.err
    assert records(the_run(home).path) == records(reader.path)


def test_a_run_for_people_ends_with_its_table_and_id(lreg, home):
    outcome = lreg("run", "tiny.toml", "--name", "My Run!", "--seed", "5", "--set", "meta.epochs=1")
    assert outcome.code == 0, outcome.err
    reader = the_run(home)
    assert reader.facts["name"] == "My Run!" and reader.facts["seed"] == 5 and "-my-run-" in reader.id
    for word in ("simple (best)", "simple (untrained)", "sgd", "adam", "95% confidence", f"finished: {reader.id}"):
        assert word in outcome.out


def test_ctrl_c_checkpoints_exits_130_and_resumes(lreg, lreg_forked, home):
    process = lreg_forked("run", "tiny.toml", *LONG)
    eventually(lambda: RunStore(home / "runs").list() and the_run(home).figures().get("meta_loss"))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    reader = the_run(home)
    assert reader.state == "stopped" and f"lreg resume {reader.id}" in out and "Traceback" not in err
    steps = [record["step"] for record in records(reader.path)]
    assert steps == list(range(len(steps)))

    process = lreg_forked("resume", "last", "--json")
    first = json.loads(eventually(lambda: process.stdout.readline()))
    assert first["event"] == "run"
    record = json.loads(eventually(lambda: process.stdout.readline()))
    assert record["step"] == steps[-1] + 1  # only what is new
    process.send_signal(signal.SIGTERM)
    assert process.wait(240) == 130


def test_killed_and_resumed_gives_the_uninterrupted_metrics_bit_for_bit(lreg, lreg_forked, home):
    """With a penalty, a curriculum and evaluations on the way."""
    settings = ["--set", "meta.epochs=8", "--set", "evaluation.every=4", "--set", "meta.checkpoint_every=0.05"]
    settings += ["--set", "meta.meta_batch=2", "--set", "penalty.sam.weight=0.5", "--set", "penalty.smooth.weight=0.1"]
    settings += METRICS_ALONE
    assert lreg("run", "tiny.toml", *settings, "--runs-dir", "whole").code == 0
    whole = records(RunStore(home / "whole").resolve("last").path)
    process = lreg_forked("run", "tiny.toml", *settings)
    for target in (len(whole) // 4, len(whole) // 2):
        eventually(lambda target=target: RunStore(home / "runs").list() and _count(the_run(home)) >= target)  # noqa: B023
        process.kill()
        process.communicate()
        assert the_run(home).state == "crashed" and lreg("watch", "last").code == 1
        refused = lreg("stop", "last")
        assert refused.code == 2 and "has crashed" in refused.err and "lreg resume" in refused.err
        process = lreg_forked("resume", "last")
    assert process.wait(240) == 0
    assert records(the_run(home).path) == whole


def _count(reader: RunReader) -> int:
    path = reader.path / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_detached_paused_continued_stopped(lreg, lreg_forked, home):
    outcome = lreg("run", "tiny.toml", *LONG, "--detach", "--json")
    assert outcome.code == 0, outcome.err
    (line,) = outcome.lines
    reader = the_run(home)
    assert line == {"run": reader.id, "path": str(reader.path)}
    assert os.getsid(reader.status().pid) != os.getsid(0)  # no terminal's end reaches it
    try:
        eventually(lambda: _count(reader) > 3)
        assert lreg("pause", "last").out.startswith(f"{reader.id}: paused at meta-step")
        count = _count(reader)
        assert lreg("resume", "last").err.startswith(f"error: run {reader.id} is paused (process")
        assert [run["state"] for run in lreg("runs", "--json").lines] == ["paused"]
        assert _count(reader) == count
        assert lreg("continue", "last", "--json").lines[0]["state"] == "running"
        eventually(lambda: _count(reader) > count)
        worker = lreg_forked("resume", "last")  # two processes on one run
        assert worker.wait(240) == 2 and "is running (process" in worker.stderr.read()
        assert lreg("stop", "last").out.startswith(f"{reader.id}: stopped at meta-step")
    finally:
        if reader.state in ("running", "paused"):
            os.kill(reader.status().pid, signal.SIGKILL)
    assert reader.state == "stopped"
    assert lreg("watch", "last").code == 130


def test_a_detached_worker_that_cannot_start_says_why(lreg, trained, home):
    reader = RunStore(trained[0]).resolve("last")
    copy = home / "runs" / reader.id
    copy.mkdir(parents=True)
    for name in ("run.json", "preset.toml"):
        (copy / name).write_bytes((reader.path / name).read_bytes())
    (copy / "status.json").write_text('{"state": "stopped"}')
    (copy / ".lock").mkdir()
    outcome = lreg("resume", "last", "--detach")
    assert outcome.code == 2 and outcome.err.startswith("error: ") and "cannot write there" in outcome.err


def test_a_meta_loss_that_is_not_finite_fails_the_run(lreg, home):
    outcome = lreg("run", "tiny.toml", "--set", "penalty.sam.weight=1e38", *LONG, "--json")
    assert outcome.code == 1
    assert re.fullmatch(r"run \S+\nerror: [^\n]+\n", outcome.err), outcome.err
    assert outcome.lines[-1]["state"] == "failed" and the_run(home).status().message
    assert "Traceback" not in outcome.err
    again = lreg("resume", "last")  # for people: the reason stands once, in the error line
    assert again.code == 1 and again.err.count("not finite") == 1 and "not finite" not in again.out


def test_a_full_disk_fails_the_run_in_one_line_and_loses_nothing(lreg, lreg_forked, home):
    settings = ["--set", "meta.epochs=32", "--set", "evaluation.every=32", "--set", "meta.checkpoint_every=0.05"]
    settings += METRICS_ALONE
    assert lreg("run", "tiny.toml", *settings, "--runs-dir", "whole").code == 0
    metrics = RunStore(home / "whole").resolve("last").path / "metrics.jsonl"
    limit = metrics.stat().st_size // 2  # no file may grow larger; the checkpoints are smaller than that
    small_disk = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    process = lreg_forked("run", "tiny.toml", *settings, before=small_disk)
    _, err = process.communicate(timeout=240)
    reader = the_run(home)
    assert process.returncode == 1 and err.startswith("error: ") and len(err.splitlines()) == 1, err
    assert "File too large" in err and reader.state == "failed"
    assert not list(reader.path.rglob("*.tmp"))
    assert lreg("resume", "last").code == 0
    assert records(reader.path) == records(metrics.parent)


def test_nobody_listening_does_not_stop_a_run(home, lreg_forked):
    process = lreg_forked("run", "tiny.toml", *METRICS_ALONE, "--json")
    process.stdout.readline()
    process.stdout.close()
    code = process.wait(240)
    assert code == 0, process.stderr.read()
    assert the_run(home).state == "finished" and "Traceback" not in process.stderr.read()


def test_a_second_ctrl_c_aborts(lreg_forked, home):
    process = lreg_forked("run", "tiny.toml", *LONG, "--set", "meta.truncation=4000", "--set", "meta.inner_steps=4000")
    eventually(lambda: RunStore(home / "runs").list() and _count(the_run(home)) == 1)  # the first evaluation is over
    evaluated = the_run(home).status().heartbeat
    eventually(lambda: the_run(home).status().heartbeat > evaluated + 1)  # and the truncation surely under way

    def interrupted() -> bool:  # one alone would wait for a truncation of 4,000 inner steps
        if the_run(home).state == "stopped":
            return True
        process.send_signal(signal.SIGINT)
        return False

    eventually(interrupted)
    assert process.wait(240) == 130
    assert the_run(home).state == "stopped" and the_run(home).status().message.startswith("aborted")
    assert "the last checkpoint stays" in process.stdout.read()


def test_a_stop_does_not_wait_for_an_evaluation(lreg_forked, home):
    process = lreg_forked("run", "tiny.toml", *LONG, "--set", "meta.inner_steps=2000000")
    eventually(lambda: RunStore(home / "runs").list() and "last" in the_run(home).checkpoints())
    process.send_signal(signal.SIGTERM)  # in the first evaluation, which takes minutes
    assert process.wait(240) == 130
    assert the_run(home).state == "stopped" and _count(the_run(home)) == 0


def test_init_from_another_run(lreg, trained, home):
    parent = RunStore(trained[0]).resolve("last")
    start = f"meta.init_from={parent.path}"
    outcome = lreg("run", "tiny.toml", "--set", start, "--set", "meta.epochs=1", *METRICS_ALONE)
    assert outcome.code == 0, outcome.err
    assert the_run(home).facts["parent"] == parent.id


def test_engine_train_from_python(trained, home):
    import torch

    import engine
    from engine.worker import train

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)  # the preset has one of its own
        reader = train(engine.load_preset("tiny.toml", ["evaluation.final_optimizees=0"]), runs_dir="runs")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert reader.state == "finished" and reader.id == the_run(home).id
    assert records(reader.path) == records(RunStore(trained[0]).resolve("last").path)
