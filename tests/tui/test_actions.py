"""Actions on runs, with a real process at the other end where one is needed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tui.driving import change_json, make_job, make_run

from engine.base.errors import LregError
from engine.jobs import spawn
from engine.jobs.job_runner import check_inputs
from engine.runs import notes
from engine.runs.store import RunReader
from engine.study.schedule import inputs
from lreg_tui.runs import actions
from lreg_tui.runs.actions import Trash

ROOT = Path(__file__).parent.parent.parent
CHILD = """
import sys, time
from engine.base.control import Control
from engine.runs.store import Run

with Run(sys.argv[1]) as run, Control().listening() as control:
    run.set_status(controllable=True)
    while not control.stop:
        wanted = "paused" if control.paused else "running"
        if run.status.state != wanted:
            run.set_status(state=wanted)
        time.sleep(0.01)
    run.set_status(state="stopped")
"""


def eventually(condition, limit_s: float = 240.0):
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
    return found


@pytest.fixture
def work_on():
    """Start a process that holds a run and obeys signals as a worker does; killed at the end, if it is still there."""
    started = []

    def start(path: Path) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        started.append(subprocess.Popen([sys.executable, "-c", CHILD, str(path)], env=environment))
        eventually(lambda: RunReader(path).recorded_status().controllable)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_pause_continue_and_stop_reach_the_process(tmp_path, work_on):
    made = make_run(tmp_path, "alpha", state="queued")
    process = work_on(made.path)
    reader = RunReader(made.path)
    assert "pausing alpha" in actions.ask(made.path, "pause")
    eventually(lambda: reader.state == "paused")
    assert "alpha goes on" in actions.ask(made.path, "continue")
    eventually(lambda: reader.state == "running")
    assert "stopping alpha" in actions.ask(made.path, "stop")
    process.wait(240)
    assert reader.state == "stopped"


def test_a_run_that_somebody_works_on_is_not_deleted_and_not_resumed(tmp_path, work_on):
    made = make_run(tmp_path, "alpha", state="queued")
    process = work_on(made.path)
    trash = Trash(tmp_path)
    delete = lambda path: trash.put(path, trash.begin())  # noqa: E731
    for action, reason in ((delete, "stop it first"), (actions.resume, "nothing to resume")):
        with pytest.raises(LregError, match=f"is running: {reason}"):
            action(made.path)
    process.kill()
    process.wait()
    assert RunReader(made.path).state == "crashed"
    delete(made.path)
    assert not made.path.exists() and trash.undo() == [made.path]


@pytest.mark.parametrize("purpose", ["stop", "pause", "continue"])
def test_what_has_ended_is_not_signalled(tmp_path, purpose):
    made = make_run(tmp_path, "alpha", state="finished")
    with pytest.raises(LregError, match=f"is finished: nothing to {purpose}"):
        actions.ask(made.path, purpose)


@pytest.fixture
def started(monkeypatch):
    """Folders of what would have been started. Data and devices are looked at in this process."""
    paths: list[Path] = []
    monkeypatch.setattr(spawn, "start_detached", lambda reader, **options: paths.append(reader.path))
    monkeypatch.setattr(inputs, "check_run", check_inputs)
    return paths


def test_resume_starts_a_worker_for_what_has_ended_early_only(tmp_path, started):
    for state in ("stopped", "failed", "crashed"):
        made = make_run(tmp_path, "alpha", state=state)
        assert "goes on" in actions.resume(made.path) and started[-1] == made.path
    job = make_job(tmp_path, [made], state="stopped")
    actions.resume(job.path)
    assert started[-1] == job.path
    with pytest.raises(LregError, match="is finished: nothing to resume"):
        actions.resume(make_run(tmp_path, "beta").path)
    assert len(started) == 4


def test_a_damaged_preset_is_told_before_anything_starts(tmp_path, started):
    made = make_run(tmp_path, "alpha", state="stopped")
    (made.path / "preset.toml").write_text("[task]\ndataset = 'nothing'\n")
    with pytest.raises(LregError, match="task.dataset"):
        actions.resume(made.path)
    assert not started


def test_a_device_that_is_not_there_is_told_before_anything_starts(tmp_path, started):
    made = make_run(tmp_path, "alpha", state="stopped")
    job = make_job(tmp_path, [made], state="stopped")
    for path in (made.path, job.path):
        change_json(path / "run.json", device="cuda:99", data_dir="/elsewhere")
        status = (path / "status.json").read_bytes()
        with pytest.raises(
            LregError, match=r"cuda:99 is not on this machine[^\n]*\n[^\n]*made with data in /elsewhere"
        ):
            actions.resume(path)
        assert not started and (path / "status.json").read_bytes() == status


def test_rename_keeps_the_id_and_an_empty_name_brings_back_its_own(tmp_path):
    made = make_run(tmp_path, "alpha", tags=("paper",))
    actions.rename(made.path, "  the one  ")
    assert notes.read(made.path) == notes.Notes("the one", ("paper",))
    assert actions.called(RunReader(made.path)) == "the one" and RunReader(made.path).id == made.id
    actions.rename(made.path, "")
    assert actions.called(RunReader(made.path)) == "alpha"
    with pytest.raises(LregError, match="found 81 characters; allowed: at most 80"):
        actions.rename(made.path, "x" * 81)


def test_tags_are_added_and_taken_away(tmp_path):
    made = make_run(tmp_path, "alpha", tags=("draft", "paper"))
    actions.tag(made.path, "new -draft new -absent")
    assert notes.read(made.path).tags == ("paper", "new")
    assert actions.tag(made.path, "-paper -new").endswith("none")
    with pytest.raises(LregError, match="found 51; allowed: at most 50"):
        actions.tag(made.path, " ".join(f"t{number}" for number in range(51)))
    with pytest.raises(LregError, match="81 characters"):
        actions.tag(made.path, "x" * 81)


def test_pin_keeps_the_other_notes(tmp_path):
    made = make_run(tmp_path, "alpha", tags=("paper",))
    actions.pin(made.path, True)
    assert notes.read(made.path) == notes.Notes(tags=("paper",), pinned=True)
    actions.pin(made.path, False)
    assert not notes.read(made.path).pinned


def test_notes_that_cannot_be_written_are_told(tmp_path):
    with pytest.raises(LregError, match="notes.json: cannot be written: No such file"):
        actions.pin(tmp_path / "gone", True)
