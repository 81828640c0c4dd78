"""The run folder: what is written survives, what is read may be anything."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from fakes import preset

from engine.base import files
from engine.base.control import Control
from engine.base.errors import PresetError, RunError
from engine.base.files import write_atomic
from engine.runs import reader as readers
from engine.runs.store import Run, RunReader, RunStore
from engine.runs.writer import slug

HOLD = """
import sys, time
from engine.runs.store import Run
with Run(sys.argv[1]) as run:
    run.append([{"step": 1, "meta_loss": 0.5}])
    run.progress(1, 10, 9.0)
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "runs", preset(), argv=["lreg", "run", "tiny"])


def hold(run: Run) -> subprocess.Popen:
    """Another process that holds the run."""
    command = [sys.executable, "-c", HOLD, str(run.path)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def eventually(condition, limit_s: float = 240.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_a_new_run_has_everything_the_contract_names(run):
    assert re.fullmatch(r"\d{8}-\d{6}-tiny-[a-z0-9]{4}", run.id)
    facts = json.loads((run.path / "run.json").read_text())
    for key in ("id", "name", "created", "argv", "seed", "device", "versions", "host", "platform", "git", "parent"):
        assert key in facts
    assert facts["created"].endswith("Z") and facts["versions"].keys() == {"python", "lreg", "torch", "numpy"}
    assert json.loads((run.path / "status.json").read_text())["state"] == "queued"
    assert 'name = "tiny"' in (run.path / "preset.toml").read_text()


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "", "..", "-rf", "\x1b[31mred", "a/b\x00c", "émile Ünï", "x" * 500, "日本", "CON ", "$(x)"],
)
def test_a_hostile_name_makes_a_safe_folder(name):
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,47}", slug(name))


def test_a_failing_write_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_records_stay_strict_json(run):
    with run:
        run.append([{"step": 1, "meta_loss": math.nan, "sharpness": math.inf, "test_accuracy": 0.5}])

    def forbidden(word):
        raise AssertionError(word)

    record = json.loads((run.path / "metrics.jsonl").read_text(), parse_constant=forbidden)
    assert record["meta_loss"] is None and record["sharpness"] is None and record["test_accuracy"] == 0.5
    reader = RunReader(run.path)
    reader.poll()
    assert math.isnan(reader.series("meta_loss")[1][0]) and reader.latest("meta_loss") is None
    figures = reader.figures()
    assert math.isnan(figures["meta_loss"]) and math.isnan(figures["sharpness"]) and figures["test_accuracy"] == 0.5


def test_a_torn_last_line_waits_for_its_rest(run):
    path = run.path / "metrics.jsonl"
    path.write_bytes(b'{"t": 1, "step": 1, "meta_loss": 2.0}\n{"t": 2, "step": 2, "me')
    reader = RunReader(run.path)
    assert [record["step"] for record in reader.records()] == [1]
    assert reader.poll() == 0
    with path.open("ab") as file:
        file.write(b'ta_loss": 1.5}\n')
    assert [record["meta_loss"] for record in reader.records()] == [1.5]
    assert list(reader.series("meta_loss")[0]) == [1, 2] and list(reader.series("meta_loss")[1]) == [2.0, 1.5]
    assert reader.bad_lines == 0


def test_bad_lines_are_counted_and_passed_over(run):
    lines = [b"\xff\xfe", b"[1, 2]", b'{"meta_loss": 1}', b'{"step": true}', b"[" * 100_000, b'{"step": 1e999}']
    lines += [b'{"step": 7, "meta_loss": "text", "nested": {"a": 1}, "huge": 1' + b"0" * 400 + b', "new_metric": 3}']
    (run.path / "metrics.jsonl").write_bytes(b"\n".join(lines) + b"\n\n")
    reader = RunReader(run.path)
    assert [record["step"] for record in reader.records()] == [7]
    assert reader.bad_lines == 6 and set(reader.columns) == {"new_metric"}


def test_a_rewritten_file_is_read_from_its_beginning(run):
    """A resume drops records; the file may be longer again before the reader looks."""
    with run:
        run.append({"step": step, "meta_loss": float(step)} for step in range(1, 4))
        size = run.sync_metrics()
        run.append({"step": step, "meta_loss": -1.0} for step in range(4, 6))
        reader = RunReader(run.path)
        assert reader.poll() == 5
        run.truncate_metrics(size)
        run.append({"step": step, "meta_loss": float(step)} for step in range(4, 12))
        assert [record["step"] for record in reader.records()] == list(range(1, 12))
    assert reader.restarts == 1
    assert list(reader.series("meta_loss")[1]) == [float(step) for step in range(1, 12)]


def test_truncating_drops_a_torn_tail_and_later_records_only(run):
    with run:
        run.append([{"step": 1}, {"step": 2}])
        size = run.sync_metrics()
        run.append([{"step": 3}])
        with open(run.path / "metrics.jsonl", "ab") as file:
            file.write(b'{"step": 4, "met')
        run.truncate_metrics(size)
        run.append([{"step": 3}])
    steps = [json.loads(line)["step"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3]


def test_a_series_may_be_kept_while_the_reader_goes_on(run):
    numpy = pytest.importorskip("numpy")
    with run:
        run.append([{"step": 1, "meta_loss": 1.0}])
        reader = RunReader(run.path)
        reader.poll()
        kept = numpy.asarray(reader.series("meta_loss")[1])
        run.append([{"step": 2, "meta_loss": 2.0}])
        reader.poll()  # an array that lends its memory cannot grow
    assert kept.tolist() == [1.0]


def test_one_writer_at_a_time_between_processes(run):
    child = hold(run)
    try:
        with pytest.raises(RunError, match=rf"being written by process {child.pid} on host"):
            run.__enter__()
    finally:
        child.communicate("\n")
    with run:
        assert RunReader(run.path).state == "running"


def test_a_killed_process_is_a_crash_even_before_it_is_reaped(run):
    child = hold(run)
    reader = RunReader(run.path)
    assert reader.state == "running"
    child.send_signal(signal.SIGKILL)
    eventually(lambda: reader.state == "crashed")
    assert reader.recorded_status().state == "running"
    child.wait()
    assert reader.state == "crashed"
    with run:  # the lock died with its holder
        pass


def test_the_pid_of_another_process_is_no_sign_of_life(run):
    status = json.loads((run.path / "status.json").read_text())
    status |= {"state": "running", "pid": os.getpid(), "process_started": 1000.0}
    (run.path / "status.json").write_text(json.dumps(status))
    assert RunReader(run.path).state == "crashed"


def on_another_host(run, heartbeat: float, written: float) -> RunReader:
    status = {"state": "running", "pid": 1, "host": "elsewhere", "heartbeat": heartbeat}
    (run.path / "status.json").write_text(json.dumps(status))
    os.utime(run.path / "status.json", (written, written))
    return RunReader(run.path)


@pytest.mark.parametrize(("silent_s", "state"), [(5.0, "running"), (600.0, "crashed")])
@pytest.mark.parametrize("skew_s", [-1000.0, 0.0, 1000.0])
def test_a_run_on_another_host_is_judged_by_when_it_was_written(run, silent_s, state, skew_s):
    """And not by that host's clock: a difference of two minutes would make a live run crashed."""
    now = time.time()
    assert on_another_host(run, now + skew_s - silent_s, now - silent_s).state == state


@pytest.mark.parametrize(("silent_s", "state"), [(5.0, "running"), (600.0, "crashed")])
@pytest.mark.parametrize("skew_s", [-1000.0, 1000.0])
def test_nor_by_this_hosts_clock(run, silent_s, state, skew_s, monkeypatch):
    """The file system of a server has a clock of its own."""
    real = time.time
    monkeypatch.setattr(files, "_clocks", {})
    monkeypatch.setattr(time, "time", lambda: real() + skew_s)
    assert on_another_host(run, real() - silent_s, real() - silent_s).state == state
    assert not [path for path in run.path.parent.iterdir() if path != run.path], "nothing is left there"


def test_a_copy_from_another_host_is_no_live_run(run):
    assert on_another_host(run, time.time() - 1e6, time.time()).state == "crashed"


def test_the_heartbeat_beats_while_the_run_is_held(run):
    reader = RunReader(run.path)
    with run:
        first = reader.status().heartbeat
        run.progress(3, 10, 7.0)
        eventually(lambda: reader.status().heartbeat > first and reader.status().step == 3)


def test_one_that_was_told_to_stop_says_so_until_it_has(run):
    reader, run.control = RunReader(run.path), Control()
    with run:
        assert reader.status().told == "running"
        run.control.stop = True
        eventually(lambda: reader.status().told == "stopping" and reader.status().state == "running")
        run.set_status(state="stopped")
    assert reader.status().told == "stopped"


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[]", '{"state": 3, "pid": "x", "latest": [1], "step": -1}', "\x00" * 9]
)
def test_a_damaged_status_is_read_as_far_as_it_goes(run, text):
    (run.path / "status.json").write_text(text)
    status = RunReader(run.path).status()
    assert (status.state, status.pid, status.step, status.latest) == ("crashed", 0, 0, {})  # nobody is known to live


def test_a_newer_status_is_read(run):
    text = '{"state": "hibernating", "mood": "good", "step": 4, "latest": {"x": 1, "y": "z", "n": null}}'
    (run.path / "status.json").write_text(text)
    status = RunReader(run.path).status()
    assert (status.state, status.step) == ("hibernating", 4)
    assert status.latest.keys() == {"x", "n"} and status.latest["x"] == 1 and math.isnan(status.latest["n"])


def put_there(path, what: str) -> None:
    """Something else in place of a file."""
    path.unlink(missing_ok=True)
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "circle":
        path.symlink_to(path.name)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "huge":
        path.write_bytes(b'{"seed": "' + b"x" * 10_000_000 + b'"}')
    else:
        path.write_text('{"seed": ' + "[" * int(what) + "]" * int(what) + "}")


@pytest.mark.parametrize("what", ["folder", "pipe", "circle", "device", "huge", "900", "100000"])
@pytest.mark.parametrize("name", ["status.json", "run.json", "metrics.jsonl", "log.txt", "preset.toml", "transfer"])
def test_a_reader_neither_raises_nor_waits_for_what_is_no_file(run, name, what):
    put_there(run.path / name, what)
    reader = RunReader(run.path)
    found = [reader.facts, reader.status(), reader.figures(), reader.transfers(), reader.checkpoints(), reader.poll()]
    json.dumps([found[0], *found[2:]])
    assert len(reader.preset_text) < 2**20
    if name == "preset.toml":
        with pytest.raises((RunError, PresetError)):
            reader.preset()


def test_keys_that_only_look_like_fields_of_a_status_are_unknown_keys(run):
    keys = {"process_is_gone": True, "is_silent": False, "__dict__": {}, "__doc__": "x", "state": "failed"}
    (run.path / "status.json").write_text(json.dumps(keys))
    assert RunReader(run.path).state == "failed"


def test_a_line_without_end_is_passed_over_in_pieces(run, monkeypatch):
    monkeypatch.setattr(readers, "PIECE", 50)
    monkeypatch.setattr(readers, "LONGEST", 100)
    good = b'{"step": 1, "meta_loss": 2.0}\n'
    (run.path / "metrics.jsonl").write_bytes(good + b"x" * 1000 + b"\n" + good + b'{"step": 2')
    reader = RunReader(run.path)
    assert [record["step"] for record in reader.records()] == [1, 1] and reader.bad_lines > 0
    assert reader.poll() == 0 and reader.restarts == 0


def test_a_copy_of_a_running_run_is_nobodys(run, tmp_path):
    """Its status tells of a process that lives, but that writes another folder."""
    with run:
        copy = tmp_path / "runs" / "copy"
        shutil.copytree(run.path, copy)
        assert RunReader(run.path).is_held and not RunReader(copy).is_held
        status = json.loads((copy / "status.json").read_text())
        (copy / "status.json").write_text(json.dumps({**status, "heartbeat": time.time() - 60}))
        assert RunReader(copy).state == "crashed"
        with Run(copy):
            assert RunReader(copy).state == "running"


def test_a_silent_process_that_holds_its_run_lives(run):
    with run:
        path = run.path / "status.json"
        for silent in (60, 1e6):  # stopped with Ctrl-Z, or on a full disk
            path.write_text(json.dumps({**json.loads(path.read_text()), "heartbeat": time.time() - silent}))
            assert RunReader(run.path).state == "running"


def test_what_is_no_run_is_not_written_to(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(RunError, match="no preset.toml there"):
            Run(folder).__enter__()
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_a_run_that_cannot_be_written_is_refused_and_let_go(run):
    put_there(run.path / "status.json", "folder")
    with pytest.raises(RunError, match="cannot write there: Is a directory"):
        run.__enter__()
    (run.path / "status.json").rmdir()
    child = hold(run)
    child.communicate("\n")


@pytest.mark.parametrize("what", ["link", "pipe"])
def test_a_writer_follows_no_link_and_waits_for_no_pipe(run, tmp_path, what):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("log.txt", "metrics.jsonl"):
        if what == "pipe":
            os.mkfifo(run.path / name)
        else:
            (run.path / name).symlink_to(victim)
    with run:
        run.log("a line")
        with pytest.raises(OSError, match="symbolic links|not a regular file|No such device"):
            run.append([{"step": 1}])
    assert victim.read_text() == "precious"


def test_a_disk_that_fills_up_leaves_no_half_made_run(tmp_path, monkeypatch):
    def full(path, data, **options):
        if path.name == "preset.toml":
            raise OSError(28, "No space left on device", str(path))
        write_atomic(path, data, **options)

    monkeypatch.setattr("engine.runs.writer.write_atomic", full)
    with pytest.raises(RunError, match="cannot create a run folder there: No space left on device"):
        Run.create(tmp_path, preset())
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_takes_nothing_from_a_run_whose_facts_are_lost(run, monkeypatch):
    """A study makes a run without a run.json anew, checkpoint and all."""
    (run.path / "run.json").unlink()
    (run.checkpoints / "last.safetensors").write_text("hours of work")

    def full(path, data, **options):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("engine.runs.writer.write_atomic", full)
    with pytest.raises(RunError, match="No space left on device"):
        Run.create(run.path.parent, preset(), run_id=run.id)
    assert (run.checkpoints / "last.safetensors").read_text() == "hours of work"


def test_what_was_written_since_is_not_forgotten(run):
    """Another process may have gone on with the run between the look at it and the lock."""
    late = Run(run.path)
    with run:
        run.append([{"step": 9, "meta_loss": 0.5}])
        run.progress(9, 10, None)
        run.set_status(state="stopped")
    with late:
        assert late.status.step == 9 and late.status.latest == {"meta_loss": 0.5}


def test_leftovers_of_a_killed_writer_are_swept(run):
    leftover = run.checkpoints / ".last.safetensors.99-1.tmp"
    leftover.write_bytes(b"half")
    with run:
        assert not leftover.exists()


class TestStore:
    def test_lists_runs_and_nothing_else(self, tmp_path):
        store = RunStore(tmp_path)
        made = [Run.create(tmp_path, preset(name)).id for name in ("b", "a")]
        (tmp_path / "notes.txt").write_text("x")
        (tmp_path / "empty").mkdir()
        (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
        assert [reader.id for reader in store.list()] == sorted(made)
        assert RunStore(tmp_path / "nowhere").list() == []

    def test_finds_its_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("LREG_RUNS_DIR", raising=False)
        assert RunStore().root == tmp_path / "runs"
        monkeypatch.setenv("LREG_RUNS_DIR", str(tmp_path / "env"))
        assert RunStore().root == tmp_path / "env"
        assert RunStore(tmp_path / "given").root == tmp_path / "given"

    def test_resolves_an_id_a_prefix_a_path_and_last(self, tmp_path):
        for name in ("20260101-000000-one-aaaa", "20260102-000000-two-bbbb", "zz-renamed"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "run.json").write_text("{}")
        store = RunStore(tmp_path)
        assert store.resolve("20260101-000000-one-aaaa").id == "20260101-000000-one-aaaa"
        assert store.resolve("20260101").id == "20260101-000000-one-aaaa"
        assert store.resolve("bbbb").id == "20260102-000000-two-bbbb"
        assert store.resolve("last").id == "20260102-000000-two-bbbb"
        assert store.resolve(str(tmp_path / "zz-renamed")).id == "zz-renamed"

    def test_last_is_the_newest_even_within_a_second(self, tmp_path):
        runs = [Run.create(tmp_path, preset(name)) for name in ("z", "m", "a", "q", "b")]
        assert RunStore(tmp_path).resolve("last").id == runs[-1].id

    @pytest.mark.parametrize(
        ("reference", "message"),
        [
            ("2026", "could be any of 2: 20260101-000000-one-aaaa, 20260102-000000-two-bbbb"),
            ("20260101-000000-onn-aaaa", "did you mean 20260101-000000-one-aaaa"),
            ("../nowhere", "no run folder there"),
            ("", "no run folder there"),
            ("x" * 5000, "no run"),
            ("a\x00b", "no run"),
            ("~nobody-of-that-name/run", "no run folder there"),
            ("\x1b[31m", r"\\x1b"),
        ],
    )
    def test_says_what_could_be_meant(self, tmp_path, reference, message):
        for name in ("20260101-000000-one-aaaa", "20260102-000000-two-bbbb"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "run.json").write_text("{}")
        with pytest.raises(RunError, match=message):
            RunStore(tmp_path).resolve(reference)

    def test_no_runs_no_last(self, tmp_path):
        with pytest.raises(RunError, match="no runs in"):
            RunStore(tmp_path).resolve("last")

    def test_a_parent_is_pinned_in_the_preset_of_its_child(self, tmp_path):
        store = RunStore(tmp_path)
        parent = store.create(preset("parent"))
        child = store.create(preset("child", meta={"init_from": "last"}))
        assert f'init_from = "{parent.id}"' in (child.path / "preset.toml").read_text()
        assert RunReader(child.path).facts["parent"] == parent.id

    def test_a_missing_parent_creates_nothing(self, tmp_path):
        with pytest.raises(PresetError, match="meta.init_from"):
            RunStore(tmp_path).create(preset("child", meta={"init_from": "nobody"}))
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_cannot_be_made_is_one_clear_line(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(RunError, match="cannot create a run folder there"):
            RunStore(tmp_path / "file" / "runs").create(preset())

    def test_a_thousand_runs_are_listed_quickly(self, tmp_path):
        source = Run.create(tmp_path, preset())
        for number in range(1000):
            folder = tmp_path / f"20200101-000000-copy-{number:04d}"
            folder.mkdir()
            for name in ("run.json", "status.json", "preset.toml"):
                (folder / name).write_bytes((source.path / name).read_bytes())
        began = time.process_time()
        assert len([(reader.state, reader.created) for reader in RunStore(tmp_path).list()]) == 1001
        assert time.process_time() - began < 5
