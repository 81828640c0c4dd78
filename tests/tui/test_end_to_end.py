"""The whole way with real processes: launch from the menu, lose the console, come back, stop, resume, crash, resume."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from cli.driving import TINY
from hang_ups import LIMIT_S, drawing, quitting_unread, seconds_to_end, starting, stopped, unread
from tui.driving import Quick, make_app, run, settle, until
from tui.terminal import Terminal

from engine.jobs import spawn
from engine.runs.store import RunReader, RunStore
from lreg_tui.runs.run_notice import RunNotice
from lreg_tui.widgets.dialog import ConfirmScreen

ENDLESS = TINY.replace("epochs = 3", "epochs = 100000").replace("every = 3", "every = 50")
LONG_S = 60.0


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty runs folder in a folder with a preset. What was started in it does not outlive the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    (tmp_path / "tiny.toml").write_text(ENDLESS)
    yield tmp_path / "runs"
    for reader in RunStore(tmp_path / "runs").list():
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(reader.recorded_status().pid).kill()


def launch_from_menu(terminal: Terminal, runs: Path) -> RunReader:
    """In an empty folder, by its keys: pick the preset in the folder, launch it as it is."""
    terminal.shows("No runs yet")
    terminal.press("a")
    terminal.shows("which preset?", "quickstart")
    terminal.press(*"tiny")
    terminal.until(lambda: "tiny.toml" in terminal.text and "in under a minute" not in terminal.text)
    terminal.press("\r")
    terminal.shows("valid", "launch")
    terminal.press("\x0c")  # ctrl+l
    terminal.shows("Launch", "what the run is called")
    terminal.press("\r")
    reader = terminal.until(lambda: next(iter(RunStore(runs).list()), None))
    terminal.until(lambda: count(reader) > 3)
    return reader


def count(reader: RunReader) -> int:
    """Whole records in metrics.jsonl."""
    with contextlib.suppress(OSError):
        return (reader.path / "metrics.jsonl").read_bytes().count(b"\n")
    return 0


def worker_of(reader: RunReader) -> psutil.Process:
    return psutil.Process(reader.recorded_status().pid)


def goes_on(reader: RunReader, terminal: Terminal) -> None:
    """Until there are more records than now. The process must be the one that it was."""
    pid, before = reader.recorded_status().pid, count(reader)
    terminal.until(lambda: count(reader) > before + 3)
    assert reader.status().state == "running" and reader.recorded_status().pid == pid


SQUARED_LOSS = """
from engine.penalties.base import PENALTIES, GeometricPenalty

@PENALTIES.register("squared-loss")
class SquaredLoss(GeometricPenalty):
    def at(self, loss, theta, value, gradient):
        return value**2, 2 * value * gradient
"""


def test_plug_ins_are_known_to_the_form_and_to_what_is_started(runs, tmp_path):
    (tmp_path / "mine.py").write_text(SQUARED_LOSS)
    (tmp_path / "tiny.toml").write_text(ENDLESS + "[penalty.squared-loss]\n")
    with Terminal(runs, tmp_path, "--plugin", "mine.py") as terminal:
        reader = launch_from_menu(terminal, runs)
        assert [plugin["name"] for plugin in reader.facts["plugins"]] == [str(tmp_path / "mine.py")]
        assert reader.figures()["squared-loss_penalty"] > 0


def test_a_run_outlives_the_console_that_started_it(runs, tmp_path):
    """By a lost connection, told by the signal or not, and by q; and what comes after finds it, with its curve."""
    with Terminal(runs, tmp_path) as terminal:
        reader = launch_from_menu(terminal, runs)
        terminal.shows("running", "meta-loss", "step 0")
        worker = worker_of(reader)
        assert worker.ppid() == terminal.pid  # it could have gone with it
        terminal.hang_up()
        terminal.until(terminal.has_ended)
    with Terminal(runs, tmp_path, hang_up="ignored") as terminal:
        terminal.shows("tiny", "running", "step 0")
        terminal.hang_up()
        terminal.until(terminal.has_ended)
    with Terminal(runs, tmp_path) as terminal:
        terminal.shows("tiny", "running", "step 0")
        goes_on(reader, terminal)
        terminal.press("q")
        terminal.until(terminal.has_ended)
        assert b"\x1b[?1049l" in terminal.sent  # the terminal is as it was
        goes_on(reader, terminal)
        assert worker.is_running()


@pytest.mark.parametrize(
    ("way", "moment"),
    [
        *(("ignored", moment) for moment in (starting, unread, quitting_unread, stopped)),
        *(("signal", drawing), ("untold", unread)),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_console_ends_with_its_terminal_whatever_it_is_at(tmp_path, way, moment):
    assert seconds_to_end(tmp_path, way, moment, 0.3) < LIMIT_S


def test_what_works_for_the_console_only_ends_with_the_terminal_too(tmp_path):
    code = (
        "from pathlib import Path; from lreg_tui.system import launch, terminal; terminal.end_with_it()\n"
        f"helper = launch.start_helper('timeit', ['import time; time.sleep(60)'], Path({str(tmp_path / 'said')!r}))\n"
        "import os; os.write(1, f'helper {helper.pid} .'.encode()); helper.wait()"  # in one piece: it is gone then
    )
    with Terminal(tmp_path / "runs", tmp_path, hang_up="ignored", program=("-c", code)) as terminal:
        terminal.shows("helper", ".")
        helper = psutil.Process(int(terminal.text.split()[1]))
        terminal.hang_up()
        terminal.until(terminal.has_ended)
        terminal.until(lambda: has_ended(helper), LIMIT_S)


def has_ended(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE  # where nobody takes in orphans
    return True


async def shown(pilot: Any, reader: RunReader, *states: str) -> None:
    """Until the console says that the run is in one of these states."""
    await until(pilot, lambda: getattr(pilot.app.row(reader.id), "state", "") in states, LONG_S)
    await settle(pilot)


def screen_text(app: Any) -> str:
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


async def curve(pilot: Any, more_than: int = 0) -> int:
    """How many records the first chart shows, as soon as these are more than so many."""

    def records() -> int:
        lines = pilot.app.screen.panels.all[0].chart.lines
        return len(lines[0].y) if lines else 0

    return await until(pilot, lambda: records() if records() > more_than else 0, LONG_S)


async def stop(pilot: Any, reader: RunReader) -> None:
    await pilot.press("s")
    await until(pilot, lambda: isinstance(pilot.app.screen, ConfirmScreen))
    await pilot.press("y")
    await shown(pilot, reader, "stopped")


def started(runs: Path) -> RunReader:
    """A run that `lreg run --detach` has started elsewhere."""
    from engine.presets.preset import load_preset

    made = RunStore(runs).create(load_preset("tiny.toml"))
    reader = RunReader(made.path)
    spawn.start_detached(reader)
    return reader


def test_stop_resume_crash_and_resume(runs, tmp_path, forked):
    """All from the console, with the worker killed and the last line of its metrics torn."""

    async def go() -> None:
        app = make_app(RunStore(runs), tmp_path)
        async with app.run_test(size=(120, 40)):
            pilot = Quick(app)
            await until(pilot, lambda: "No runs yet" in screen_text(app))
            reader = started(runs)
            await shown(pilot, reader, "running")  # by itself
            await curve(pilot)

            await stop(pilot, reader)
            await until(pilot, lambda: not reader.is_held)
            kept = count(reader)
            assert whole(reader) > 3

            await pilot.press("R")
            await shown(pilot, reader, "running")
            await curve(pilot, more_than=kept)

            os.kill(reader.recorded_status().pid, signal.SIGKILL)
            await shown(pilot, reader, "crashed")
            notice = app.screen.query_one(RunNotice)
            await until(pilot, lambda: "R resumes it" in str(notice.render()) and "crashed at" in str(notice.render()))
            assert "resumed at step" in str(notice.render())  # of its log
            await until(pilot, lambda: any("crashed" in told.message for told in app._notifications))
            with (reader.path / "metrics.jsonl").open("a") as file:
                file.write('{"t": 1795264623.6, "step": 99999, "meta_lo')
            await settle(pilot)
            assert 0 < await curve(pilot) < 99999

            await pilot.press("R")
            await shown(pilot, reader, "running")
            await curve(pilot, more_than=whole(reader))
            await stop(pilot, reader)
            assert whole(reader) > 3

    run(go())


def whole(reader: RunReader) -> int:
    """How many meta-steps metrics.jsonl has. None may be missing or twice there; a last line may be half written."""
    lines = (reader.path / "metrics.jsonl").read_text().rpartition("\n")[0].splitlines()
    steps = [record["step"] for record in map(json.loads, lines) if "meta_loss" in record]
    assert steps == list(range(1, len(steps) + 1))
    return len(steps)


def test_two_consoles_follow_a_run_to_its_end(runs, tmp_path, forked):
    (tmp_path / "tiny.toml").write_text(TINY)
    with Terminal(runs, tmp_path) as first, Terminal(runs, tmp_path, "--slow-link", "--no-mouse") as second:
        for terminal in (first, second):
            terminal.shows("No runs yet")
        reader = started(runs)
        for terminal in (first, second):
            terminal.shows("tiny", "finished", "100%")
        assert reader.status().state == "finished" and count(reader) >= 3
        assert b"\x1b[?1000h" in first.sent and b"\x1b[?1000h" not in second.sent  # the mouse
