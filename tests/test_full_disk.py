"""A disk that is full, and a folder that is gone: the last words and the folder say what is true."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
from functools import partial

import pytest
from fakes import TOTAL, FakeTrainer, preset, trained_by

from engine.base.control import Control
from engine.base.errors import RunError, TrainingError
from engine.jobs import spawn
from engine.presets import catalog as catalogs
from engine.runs.store import Run, RunReader
from engine.worker import work
from lreg_tui.cli.follow import summarize

ROOM = 2**18  # bytes of the small disk


@pytest.fixture(autouse=True)
def small_catalog(monkeypatch):
    import fakes

    monkeypatch.setattr(catalogs, "load", fakes.catalog)


@pytest.fixture
def disk(tmp_path):
    """A file system of its own that is soon full."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=True)


def fill(disk) -> None:
    with (disk / "fill").open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass


class Meanwhile(FakeTrainer):
    """Something happens at a step of the training."""

    def __init__(self, *arguments, happens, at=15, **options):
        super().__init__(*arguments, **options)
        self.happens, self.at = happens, at

    def advance(self, tick=None):
        records = super().advance(tick)
        if self.step == self.at and self.happens:
            happens, self.happens = self.happens, None
            happens()
        return records


def steps(run: Run) -> list[int]:
    return [json.loads(line)["step"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("at", [0, 1, 15, TOTAL - 1])
def test_a_disk_that_fills_up_fails_the_run_which_goes_on_when_there_is_room(disk, at):
    run = Run.create(disk, preset(meta={"checkpoint_every": 1e-6}))
    trainer = partial(Meanwhile, happens=lambda: fill(disk), at=at)
    with pytest.raises(TrainingError, match="No space left on device; the last checkpoint is untouched"):
        work(run, make_runner=trained_by(trainer))
    status = RunReader(run.path).status()
    assert status.state == "failed" and "No space left" in status.message
    assert not list(run.path.rglob("*.tmp"))
    with pytest.raises((TrainingError, RunError)) as again:  # still full
        work(Run(run.path), make_runner=trained_by(FakeTrainer))
    assert again.value.exit_code == 1 and RunReader(run.path).state == "failed"
    (disk / "fill").unlink()
    assert work(Run(run.path), make_runner=trained_by(FakeTrainer)) == "finished"
    assert sorted(set(steps(run))) == list(range(TOTAL + 1)) and steps(run) == sorted(steps(run))


def test_a_run_that_finds_no_room_leaves_nothing_behind(disk):
    fill(disk)
    with pytest.raises(
        RunError, match=r"-tiny-[\w/.]+: cannot create .*No space left|disk/2\d+-\.\.\.: cannot create .*No space left"
    ) as caught:
        Run.create(disk, preset())
    assert caught.value.exit_code == 1
    assert [path.name for path in disk.iterdir()] == ["fill"]


def test_before_the_first_checkpoint_none_is_promised(disk):
    run = Run.create(disk, preset())
    with pytest.raises(TrainingError, match="no checkpoint was written yet"):
        work(run, make_runner=trained_by(lambda *a, **k: (fill(disk), FakeTrainer(*a, **k))[1]))
    assert RunReader(run.path).state == "failed"


@pytest.mark.parametrize("way", ["deleted", "moved", "replaced"])
def test_a_folder_that_is_gone_ends_the_run_and_is_not_made_anew(tmp_path, way):
    run = Run.create(tmp_path / "runs", preset(meta={"checkpoint_every": 1e-6}))

    def away() -> None:
        if way == "deleted":
            shutil.rmtree(run.path)
        else:
            run.path.rename(tmp_path / "moved")
        if way == "replaced":
            run.path.mkdir()

    with pytest.raises(TrainingError) as caught:
        work(run, make_runner=trained_by(partial(Meanwhile, happens=away)))
    words = str(caught.value)
    assert "deleted or moved" in words and "resume" not in words and ".tmp" not in words and "untouched" not in words
    assert not run.path.exists() or not list(run.path.iterdir())
    if way != "deleted":
        shutil.rmtree(run.path, ignore_errors=True)
        (tmp_path / "moved").rename(run.path)
        assert work(Run(run.path), make_runner=trained_by(FakeTrainer)) == "finished"


def test_a_folder_that_is_gone_while_the_run_starts_is_said_to_be(tmp_path):
    run = Run.create(tmp_path / "runs", preset())

    def trainer(*_, **__):
        shutil.rmtree(run.path)
        return RunReader(run.path).preset()

    with pytest.raises(TrainingError, match=f"^{run.path}: deleted or moved"):
        work(run, make_runner=trained_by(trainer))


def test_a_run_that_has_lost_only_its_preset_does_not_speak_of_its_folder(tmp_path):
    run = Run.create(tmp_path / "runs", preset(meta={"checkpoint_every": 1e-6}))
    with pytest.raises(TrainingError, match="preset.toml: deleted or moved"):
        work(run, make_runner=trained_by(partial(Meanwhile, happens=(run.path / "preset.toml").unlink)))


@pytest.mark.parametrize("way", ["deleted", "replaced"])
def test_metrics_that_are_gone_are_recorded_anew_from_the_next_checkpoint_on(tmp_path, way):
    run = Run.create(tmp_path / "runs", preset(meta={"checkpoint_every": 1e-6}))
    path = run.path / "metrics.jsonl"

    def away() -> None:
        text = path.read_text()
        path.unlink()
        if way == "replaced":
            path.write_text(text)

    assert work(run, make_runner=trained_by(partial(Meanwhile, happens=away))) == "finished"
    assert steps(run)[-1] == TOTAL and (way == "deleted" or steps(run)[0] == 0)
    assert RunReader(run.path).poll() > 0


def test_a_paused_run_whose_folder_is_deleted_ends(tmp_path):
    run, control, caught = Run.create(tmp_path / "runs", preset()), Control(), []

    def pause() -> None:
        control.paused = True
        threading.Thread(target=lambda: shutil.rmtree(run.path, ignore_errors=True)).start()

    def train() -> None:
        try:
            work(run, control=control, make_runner=trained_by(partial(Meanwhile, happens=pause)))
        except TrainingError as error:
            caught.append(str(error))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join(20)
    assert not thread.is_alive() and "deleted or moved" in caught[0]


def test_a_run_that_is_gone_has_not_crashed_and_is_not_to_be_resumed(tmp_path, capsys):
    run = Run.create(tmp_path / "runs", preset())
    reader = RunReader(run.path)
    with run:
        run.set_status(controllable=True)
        shutil.rmtree(run.path)
        with pytest.raises(RunError, match="no longer in") as caught:
            spawn.request(reader, signal.SIGTERM, "stop")
    assert caught.value.exit_code == 1 and "resume" not in str(caught.value)
    summarize(reader, as_json=False)
    assert capsys.readouterr().out == ""
    summarize(reader, as_json=True)
    assert json.loads(capsys.readouterr().out)["state"] == "failed"
    assert not run.path.exists()
