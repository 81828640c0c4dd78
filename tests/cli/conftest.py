"""The command line, called as a user does: in this process for speed, or in one of its own for signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

import zygote  # noqa: E402
from driving import TINY, Outcome  # noqa: E402


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty folder to be in, without the user's settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("LREG_RUNS_DIR", "LREG_DATA_DIR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path


@pytest.fixture
def lreg(home, monkeypatch, capfd, forked):
    """Call `lreg` in this process; what it starts is forked."""
    from lreg_tui.cli import app

    monkeypatch.setattr("engine.study.schedule.loop.REST_S", 0.05)

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["lreg", *arguments])
        monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
        interrupt = signal.getsignal(signal.SIGINT)
        capfd.readouterr()
        try:
            app.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            signal.signal(signal.SIGINT, interrupt)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def lreg_forked(home, forked):
    """Start `lreg` in a process of its own, forked from one that has imported torch; what is left of it is killed."""
    started: list[zygote.Forked] = []

    def start(*arguments: str, before: str = "", **options) -> zygote.Forked:
        """`before`: code that the process begins with."""
        program = (
            ("-c", f"{before}\nfrom lreg_tui.cli import app\napp.main()") if before else ("-m", "lreg_tui.cli.app")
        )
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = {**os.environ, **options.pop("env", {})}
        command = [sys.executable, *program, *arguments]
        started.append(zygote.Forked(command, cwd=home, env=environment, **{**pipes, **options}))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
