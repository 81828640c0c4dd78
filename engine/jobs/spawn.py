"""Workers as processes of their own: start them, send them signals. The only file here with detached processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from engine.base.errors import LregError, RunError, TrainingError
from engine.base.files import open_to_append, open_to_read, refused
from engine.base.status import LIVE, Status
from engine.distributed import parallel
from engine.runs.store import RunReader

WORKER = "engine.worker"
START_LIMIT_S = 60.0
ASK_LIMIT_S = 900.0  # importing torch on a busy machine takes its time, and so does a download of data
POLL_S = 0.05


def start_worker(
    reader: RunReader,
    *,
    device: str | None = None,
    data_dir: Path | None = None,
    threads: int = 0,
    module: str = WORKER,
    processes: int = 1,
) -> subprocess.Popen[bytes]:
    """Start a worker that outlives this process and its terminal. Raises RunError where it cannot be started.

    `threads`: CPU threads of a run whose preset does not say; 0: what torch chooses. `processes`: of more than one
    torchrun takes care, and it is torchrun's process that is returned.
    """
    command = worker_command(reader, device=device, data_dir=data_dir, module=module)
    if processes > 1:
        options = ["--standalone", f"--nproc-per-node={processes}", f"--max-restarts={parallel.RESTARTS}"]
        command = [*python_module("torch.distributed.run"), *options, "--no-python", *command]
        threads = threads or (0 if "OMP_NUM_THREADS" in os.environ else max(1, (os.cpu_count() or 1) // processes))
    try:
        with open_to_append(reader.log_path) as log:  # a real file: a pipe would die with this process
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                close_fds=True,
                env=environment(threads),
            )
    except OSError as error:
        raise refused(error, f"{error.filename or reader.path}: cannot start a worker") from None


def start_detached(reader: RunReader, **options: Any) -> subprocess.Popen[bytes]:
    """Start a worker, as `start_worker` does, and return when it holds the run.

    Raises LregError with what it said if it died before that.
    """
    said_before = log_size(reader)
    child = start_worker(reader, **options)
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        code = child.poll()  # before the look at what it wrote, so that it saw all
        if holds(child, reader):
            return child
        if code is not None:
            raise died(code, reader, said_before)
        time.sleep(POLL_S)
    raise RunError(
        f"the worker of run {reader.id} has not taken it within {START_LIMIT_S:.0f} s; see lreg logs {reader.id}"
    )


def worker_command(
    reader: RunReader, *, device: str | None = None, data_dir: Path | None = None, module: str = WORKER
) -> list[str]:
    """What a worker is started with, with this interpreter. It needs `environment()`."""
    command = [*python_module(module), str(reader.path)]
    command += ["--device", device] if device else []
    command += ["--data-dir", str(data_dir)] if data_dir else []
    return command


def python_module(module: str) -> list[str]:
    """`python -m module`, which never takes a file of the current folder in place of a library."""
    if sys.version_info >= (3, 11):  # before, PYTHONSAFEPATH does nothing, and -m looks into the current folder first
        return [sys.executable, "-m", module]
    code = "import sys; sys.path = [*filter(None, sys.path)]; from engine.base import interrupts; interrupts.hold(); "
    code += f"from {module} import main; sys.exit(main())"
    return [sys.executable, "-c", code]


def environment(threads: int = 0) -> dict[str, str]:
    """The child finds this very engine, and no file of the current folder in place of a library."""
    root = Path(__file__).parents[2]
    variables = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
    if not root.name.endswith("-packages"):
        variables["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    if threads:
        variables |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    return variables


def holds(child: subprocess.Popen[bytes], reader: RunReader) -> bool:
    """Whether a worker has taken its run, itself or, where it is torchrun, by a process of its own."""
    status = reader.recorded_status()
    return status.state != "queued" and (status.pid == child.pid or parent_of(status.pid) == child.pid)


def parent_of(pid: int) -> int | None:
    """The process that started a process; None where there is no such process."""
    import psutil

    try:
        return psutil.Process(pid).ppid()
    except (psutil.Error, ValueError, OverflowError):
        return None


def log_size(reader: RunReader) -> int:
    try:
        return reader.log_path.stat().st_size
    except OSError:
        return 0


def died(code: int, reader: RunReader, said_before: int) -> LregError:
    """Why a worker died that never took its run: what it has added to the log, which was so long before."""
    try:
        with open_to_read(reader.log_path, reader.path) as log:
            log.seek(said_before)
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    reasons = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    reason = " / ".join(dict.fromkeys(reasons) or lines[-3:]) or f"exit code {code}"
    is_told = code == RunError.exit_code
    return RunError(reason) if is_told else TrainingError(f"run {reader.id}: its worker died: {reason}")


def request(reader: RunReader, number: signal.Signals, purpose: str) -> Status:
    """Send a signal to a run's process, after making sure that it is that process. Returns the status before."""
    reader.check_there()
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
    if not _is_held_by(reader, status.pid):  # the process may be alive and well, and writing another folder
        raise RunError(f"run {reader.id} is not held by process {status.pid}: a copy of a run? nothing to {purpose}")
    try:
        os.kill(status.pid, number)
    except OSError as error:
        raise RunError(f"run {reader.id}: process {status.pid} cannot be reached: {error.strerror}") from None
    return status


def _is_held_by(reader: RunReader, pid: int) -> bool:
    """Whether it is this very process that holds the run: what a stranger's status says of it may be made up."""
    import psutil

    try:
        names = [file.path for file in psutil.Process(pid).open_files()]
        held = (reader.path / ".lock").stat()
        return reader.is_held and any(os.path.samestat(os.stat(name), held) for name in names if name.endswith(".lock"))
    except (psutil.Error, OSError):
        return False


def wait_for(reader: RunReader, states: tuple[str, ...], limit_s: float | None = None) -> Status:
    """Wait until a run is in one of the states, or at its end, or the time is up."""
    deadline = None if limit_s is None else time.monotonic() + limit_s
    while True:
        status, is_late = reader.status(), deadline is not None and time.monotonic() > deadline
        if status.state in states or status.state not in LIVE or is_late:
            return status
        time.sleep(POLL_S)


def ask(module: str, question: str) -> str:
    """What `python -m module` prints when it is given a question on stdin: torch and its memory stay in that process.

    Raises LregError: what it complained of, or that there was no answer.
    """
    try:
        done = subprocess.run(
            python_module(module),
            input=question.encode(),
            capture_output=True,
            env=environment(),
            timeout=ASK_LIMIT_S,
            start_new_session=True,  # Ctrl-C is for this process to handle
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise RunError(f"{module}: no answer ({type(error).__name__})") from None
    lines = done.stderr.decode(errors="replace").splitlines()
    if done.returncode:
        reasons = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        raise RunError(*(reasons or [f"{module}: {lines[-1] if lines else f'exit code {done.returncode}'}"]))
    return done.stdout.decode(errors="replace")
