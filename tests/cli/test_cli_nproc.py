"""`lreg run --nproc`: one run on several processes, as a user meets it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest
import zygote
from driving import records

from engine.runs.store import RunReader, RunStore

SMALL = ("--set", "meta.meta_batch=2", "--set", "evaluation.final_optimizees=0")


def the_run(home: Path) -> RunReader:
    (reader,) = RunStore(home / "runs").list()
    return reader


def test_two_processes_tell_the_story_of_one_are_stopped_and_resumed_as_two(lreg, lreg_forked, home):
    long = ("--set", "meta.epochs=12", "--set", "evaluation.every=6")
    process = lreg_forked("run", "tiny.toml", *SMALL, *long, "--nproc", "2", "--json")
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1].get("step") == 6:
            break
    process.send_signal(signal.SIGINT)
    events += map(json.loads, process.communicate(timeout=240)[0].splitlines())
    reader = the_run(home)
    assert process.returncode == 130 and reader.state == "stopped"
    resumed = lreg("resume", "last", "--json")
    assert resumed.code == 0 and reader.state == "finished" and reader.status().processes == 2
    events += resumed.lines
    assert events[0]["event"] == "run" and events[-1]["state"] == "finished"
    written = [json.loads(line) for line in (reader.path / "metrics.jsonl").read_text().splitlines()]
    assert [event for event in events if event["event"] == "record"] == [{**r, "event": "record"} for r in written]
    assert [record["step"] for record in written if "meta_loss" in record] == list(range(1, 25))
    shorter = ("--set", "meta.epochs=3", "--runs-dir", "alone")
    assert lreg("run", str(reader.path / "preset.toml"), *shorter).code == 0
    (alone,) = RunStore(home / "alone").list()
    for own, other in zip(records(reader.path)[:7], records(alone.path)[:7], strict=True):
        assert own == pytest.approx(other, rel=1e-3, abs=1e-6)


def test_nproc_0_leaves_the_run_to_a_torchrun_of_the_users(lreg, home, forked):
    made = lreg("run", "tiny.toml", *SMALL, "--nproc", "0")
    reader = the_run(home)
    assert made.code == 0 and made.out.strip() == reader.id and reader.state == "stopped"
    words = shlex.split(made.err.partition("with: ")[2])
    assert words[0] == "torchrun" and words[-3:] == ["-m", "engine.worker", str(reader.path)]
    own = {"NODES": "1", "N": "2", "HOST:29400": "localhost:0"}
    command = [sys.executable, "-m", "torch.distributed.run", *(own.get(word, word) for word in words[1:])]
    done = zygote.run(command, cwd=home, env={**os.environ}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert reader.state == "finished" and reader.status().processes == 2


@pytest.mark.parametrize(
    ("number", "said"),
    [("3", "meta.meta_batch: found 2; allowed: 3 or more"), ("-1", "--nproc"), ("two", "--nproc")],
)
def test_a_number_of_processes_that_cannot_be_is_refused(lreg, home, number, said):
    outcome = lreg("run", "tiny.toml", *SMALL, "--nproc", number)
    assert outcome.code == 2 and said in outcome.err and not (home / "runs").exists()
