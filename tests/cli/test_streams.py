"""Standard output that is full, closed, or read by nobody any more: one line or none, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from driving import TINY, forked_lreg

from engine.runs.store import RunStore

ROOT = str(Path(__file__).parent.parent.parent)
QUICK = ("--set", "meta.epochs=1", "--set", "evaluation.final_optimizees=0")
FULL = b"error: standard output: No space left on device\n"
CLOSED = b"error: standard output: Bad file descriptor\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, zygote):
    folder = tmp_path_factory.mktemp("streams")
    (folder / "tiny.toml").write_text(TINY)
    assert forked_lreg(zygote, folder, "run", "tiny.toml", *QUICK).code == 0
    return folder


def shell(folder: Path, line: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LREG_") and key != "COLUMNS"}
    environment |= {"PYTHONPATH": ROOT, "LREG": f"{sys.executable} -m lreg_tui.cli.app", **variables}
    return subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True)


def test_a_full_disk(folder):
    done = shell(folder, "$LREG runs --json >/dev/full")
    assert (done.returncode, done.stderr.count(FULL)) == (1, 1)
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr


@pytest.mark.parametrize("command", ["runs", "show", "logs", "compare", "preset show", "--help", "--version", "watch"])
def test_a_full_disk_whatever_prints(folder, zygote, command):
    argument = {"show": ["last"], "logs": ["last"], "compare": ["last"], "watch": ["last"], "preset show": ["lo"]}
    with open("/dev/full", "w") as full:
        done = forked_lreg(zygote, folder, *command.split(), *argument.get(command, []), stdout=full)
    assert (done.code, done.err.count(FULL.decode())) == (1, 1)
    assert "Traceback" not in done.err and "Exception" not in done.err


def test_a_full_disk_of_completion_and_the_console(folder):
    done = shell(folder, "$LREG >/dev/full", _LREG_COMPLETE="source_bash", **{"_LREG_TUI.CLI.APP_COMPLETE": ""})
    assert b"Traceback" not in done.stderr
    done = shell(folder, f"{sys.executable} -m lreg_tui.app --version >/dev/full")
    assert (done.returncode, done.stderr) == (1, FULL)


def test_a_closed_output(folder):
    done = shell(folder, "$LREG presets >&-")
    assert (done.returncode, done.stderr) == (1, CLOSED)
    done = shell(folder, "$LREG runs --state failed >&- <&-")  # which prints nothing there
    assert done.returncode == 0 and b"standard output" not in done.stderr


def test_errors_that_nobody_can_be_told(folder):
    for line in ("$LREG show nobody 2>/dev/full", "$LREG show nobody 2>&-"):
        done = shell(folder, line)
        assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


@pytest.mark.parametrize("arguments", ["--help", "runs --json"])
def test_a_reader_that_has_seen_enough(folder, arguments):
    done = shell(folder, f"$LREG {arguments} | true; exit ${{PIPESTATUS[0]}}", PYTHONUNBUFFERED="1")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_run_whose_output_is_lost_is_done_all_the_same(folder, zygote):
    with open("/dev/full", "w") as full:
        done = forked_lreg(zygote, folder, "run", "tiny.toml", *QUICK, "--runs-dir", "lost", stdout=full)
    (reader,) = RunStore(folder / "lost").list()
    assert (done.code, done.err, reader.state) == (1, FULL.decode(), "finished")
