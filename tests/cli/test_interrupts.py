"""Ctrl-C at every moment is silence and exit code 130; a job in the background of a script ignores it throughout."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from driving import eventually

from engine.runs.store import RunStore

ROOT = str(Path(__file__).parent.parent.parent)
BEGUN = """
import os, sys
from engine.base import interrupts

def hold(before=interrupts.hold):
    before()
    interrupts.hold = before
    os.write(1, b"!")

interrupts.hold = hold
sys.argv = {argv!r}
from {module} import main
raise SystemExit(main())
"""
LONG = ("--set", "meta.epochs=100000", "--set", "evaluation.every=100000")


@pytest.fixture
def started(home):
    """Start a command; return at its first line: before that there is but Python's own start."""
    processes: list[subprocess.Popen] = []

    def start(module: str, *arguments: str, ignoring: bool = False) -> subprocess.Popen:
        code = BEGUN.format(module=module, argv=[module, *arguments])
        handler = signal.SIG_IGN if ignoring else signal.default_int_handler
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", code],
                cwd=home,
                env={**os.environ, "PYTHONPATH": ROOT},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
            )
        )
        assert processes[-1].stdout.read(1) == b"!"
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("seed", (0, 2, 4, 5))
def test_at_every_moment(started, seed):
    """torch's import is among the moments, and the first meta-steps."""
    process = started("lreg_tui.cli.app", "run", "tiny.toml", *LONG)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(random.Random(seed).uniform(0.0, 0.4) * 2**seed / 4)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, err) == (130, b"") and b"Traceback" not in out


@pytest.mark.parametrize("module", ["engine.worker", "lreg_tui.app", "lreg_tui.studies.study_worker"])
def test_of_other_processes(started, module):
    process = started(module, "--help" if module == "lreg_tui.app" else "nowhere")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert b"Traceback" not in err and process.returncode in (130, 0, 2)


def test_ignored_from_the_beginning_is_ignored_to_the_end(started, home):
    process = started("lreg_tui.cli.app", "run", "tiny.toml", *LONG, ignoring=True)
    eventually(lambda: [run for run in RunStore(home / "runs").list() if run.status().step > 3])
    process.send_signal(signal.SIGINT)
    (reader,) = RunStore(home / "runs").list()
    step = reader.status().step
    eventually(lambda: reader.recorded_status().step > step)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 130 and reader.state == "stopped"
    assert b"SIGINT" in err and b"SIGTERM" in err and "SIGINT" in reader.log_path.read_text()


def test_a_lost_interrupt_ends_the_process_all_the_same():
    code = """
import os, signal
from engine.base import interrupts
interrupts.hold()
interrupts.let_raise()
class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000): pass
dying = Dying()
del dying
print("goes on")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONPATH": ROOT})
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_one_that_can_be_caught_is_raised():
    code = """
import os, signal
from engine.base import interrupts
interrupts.hold()
interrupts.let_raise()
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000): pass
except KeyboardInterrupt:
    print("cleaned up")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONPATH": ROOT})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"cleaned up\n", b"")


def test_what_is_done_is_done_though_python_takes_its_time_to_end():
    code = """
import os, signal
from engine.base import interrupts
interrupts.hold()
class Late:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGINT):
        kill(pid, number)
late = Late()
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONPATH": ROOT})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"done\n", b"")
