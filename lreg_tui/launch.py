"""Processes: start detached workers, send them signals. The only file here with subprocess."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import engine
from engine.errors import LregError, RunError, TrainingError
from engine.files import open_to_append, open_to_read
from engine.runs import RunReader
from engine.status import LIVE, Status

_WORKER = ("-m", "engine.worker")
if sys.version_info < (3, 11):  # there PYTHONSAFEPATH does nothing, and -m looks into the current folder first
    _WORKER = (
        "-c",
        "import sys; sys.path = [*filter(None, sys.path)]; from engine.worker import main; sys.exit(main())",
    )
START_LIMIT_S = 60.0
POLL_S = 0.05


def start_detached(
    reader: RunReader, *, device: str | None = None, data_dir: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a worker that outlives this process and its terminal; return when it holds the run.

    Raises LregError with what it said if it died before that.
    """
    command = [sys.executable, *_WORKER, str(reader.path)]
    command += ["--device", device] if device else []
    command += ["--data-dir", str(data_dir)] if data_dir else []
    said_before = _size(reader.log_path)
    try:
        with open_to_append(reader.log_path) as log:  # a real file: a pipe would die with this process
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                close_fds=True,
                env=_environment(),
            )
    except OSError as error:
        raise RunError(f"{error.filename or reader.path}: cannot start a worker: {error.strerror}") from None
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        code = child.poll()  # before the look at what it wrote, so that it saw all
        status = reader.recorded_status()
        if status.pid == child.pid and status.state != "queued":
            return child
        if code is not None:
            raise _died(code, reader, said_before)
        time.sleep(POLL_S)
    raise RunError(
        f"the worker of run {reader.id} has not taken it within {START_LIMIT_S:.0f} s; see lreg logs {reader.id}"
    )


def start_helper(module: str, arguments: Sequence[str], said: Path) -> subprocess.Popen[bytes]:
    """Start `python -m module` for this process, which waits for it or ends it; what it says goes into a file.

    Raises RunError where it cannot be started.
    """
    code = f"import sys; sys.path = [*filter(None, sys.path)]; from {module} import main; sys.exit(main())"
    command = [sys.executable, *(("-m", module) if sys.version_info >= (3, 11) else ("-c", code)), *arguments]
    try:
        with said.open("wb") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, close_fds=True, env=_environment()
            )
    except OSError as error:
        raise RunError(f"{error.filename or said}: cannot start a helper: {error.strerror}") from None


def _environment() -> dict[str, str]:
    """The child finds this very engine, and no file of the current folder in place of a library."""
    root = Path(engine.__file__).parent.parent
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
    if not root.name.endswith("-packages"):
        environment["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    return environment


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _died(code: int, reader: RunReader, said_before: int) -> LregError:
    try:
        with open_to_read(reader.log_path) as log:
            log.seek(said_before)
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    reasons = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    reason = " / ".join(reasons or lines[-3:]) or f"exit code {code}"
    return (
        RunError(reason) if code == RunError.exit_code else TrainingError(f"run {reader.id}: its worker died: {reason}")
    )


def output_of(command: list[str], limit_s: float) -> str:
    """What a short command prints; empty where it fails or takes longer."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")


def request(reader: RunReader, number: signal.Signals, purpose: str) -> Status:
    """Send a signal to a run's process, after making sure that it is that process. Returns the status before."""
    status = reader.status()
    if status.state == "crashed":
        raise RunError(f"run {reader.id} has crashed: nothing to {purpose} (`lreg resume {reader.id}` goes on)")
    if status.state not in LIVE:
        raise RunError(f"run {reader.id} is {status.state}: nothing to {purpose}")
    if not status.is_of_this_host:
        raise RunError(f"run {reader.id} is on host {status.host}: {purpose} it there")
    if status.state == "queued" or not status.controllable:
        raise RunError(
            f"run {reader.id} does not listen to signals (process {status.pid}): {purpose} it where it was started"
        )
    if not reader.is_held:  # the process may be alive and well, and writing another folder
        raise RunError(f"run {reader.id} is not held by process {status.pid}: a copy of a run? nothing to {purpose}")
    try:
        os.kill(status.pid, number)
    except OSError as error:
        raise RunError(f"run {reader.id}: process {status.pid} cannot be reached: {error.strerror}") from None
    return status


def wait_for(reader: RunReader, states: tuple[str, ...], limit_s: float | None = None) -> Status:
    """Wait until a run is in one of the states, or at its end, or the time is up."""
    deadline = None if limit_s is None else time.monotonic() + limit_s
    while True:
        status = reader.status()
        if status.state in states or status.state not in LIVE:
            return status
        if deadline is not None and time.monotonic() > deadline:
            return status
        time.sleep(POLL_S)
