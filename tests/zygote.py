"""Processes without waiting for imports: `python -m MODULE ...`, forked from one process that has imported everything.

To import torch takes a processor two seconds, most of the time of a test that starts workers. What is forked has a
command line, an environment, files and a process of its own, as one that is started has; only its imports are there.
For tests of what a process does, not of how Python comes up.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

ADDRESS = "LREG_TEST_ZYGOTE"  # the environment variable with the socket's path
PRELOAD = (
    *("torch", "torch._dynamo", "torch.distributed.run", "matplotlib.figure"),
    *(
        "engine.meta_training.meta_train",
        "engine.distributed.gloo",
        "engine.worker",
        "engine.evaluation.optimizer_source",
        "engine.evaluation.tuning",
        "engine.kernels",
    ),
    *("engine.jobs.from_preset", "engine.study.schedule.inputs", "engine.study.report.report", "engine.figures.base"),
    *("lreg_tui.cli.commands", "lreg_tui.studies.study_worker"),
)
WITH_MEMBERS = (
    *("engine.tasks.datasets", "engine.tasks.optimizees", "engine.optimizers.learned", "engine.penalties"),
    *("engine.terms", "engine.meta_training.estimators"),
)
LENGTH = 8  # bytes of a message's length
ROOT = Path(__file__).parent.parent


# -- what tests use ------------------------------------------


def not_waiting(descriptor: int) -> None:
    """In place of os.fsync: what tests write need not outlive the machine, and disks are slow."""


@contextlib.contextmanager
def zygote() -> Iterator[str]:
    """The address of the process that forks, which is started when it is needed first."""
    with (
        tempfile.TemporaryDirectory(prefix="lreg-zygote-") as folder,  # short, as a socket's path must be
        contextlib.ExitStack() as started,
    ):
        address, environment = f"{folder}/socket", dict(os.environ)  # and not that of the test which needs it first
        STARTS[address] = lambda: started.enter_context(serving(address, environment))
        yield address
        STARTS.pop(address, None)


STARTS: dict[str, Callable[[], None]] = {}
"""How the processes that are not needed yet are started, by their addresses."""
STARTING = threading.Lock()


@contextlib.contextmanager
def serving(address: str, environment: Mapping[str, str]) -> Iterator[None]:
    """The process that forks, until the end of this one at the latest."""
    search = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    variables = {**environment, "PYTHONPATH": search, "OPENBLAS_NUM_THREADS": "1"}  # no threads: they are not forked
    command = [sys.executable, __file__, address]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, env=variables, cwd=ROOT)
    try:
        while not Path(address).exists():
            assert child.poll() is None, "the process that forks has died"
            time.sleep(0.01)
        yield
    finally:
        child.stdin.close()
        child.wait(30)


class Forked:
    """What subprocess.Popen is, as far as the engine and the tests use it, of a process that is forked."""

    def __init__(
        self,
        args: Sequence[str],
        *,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        cwd: str | os.PathLike[str] | None = None,
        env: dict[str, str] | None = None,
        text: bool = False,
        encoding: str | None = None,
        errors: str | None = None,
        start_new_session: bool = False,
        close_fds: bool = True,
    ) -> None:
        self.args, self.returncode = args, None
        self.stdin, self.stdout, self.stderr = None, None, None
        self._decoding = {"encoding": encoding, "errors": errors} if text or encoding else None
        address = os.environ[ADDRESS]
        with STARTING:
            if start := STARTS.pop(address, None):
                start()
        with contextlib.ExitStack() as ours:
            files = [
                self._file(name, given, ours)
                for name, given in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr))
            ]
            request = {"args": list(args), "cwd": os.fspath(cwd or os.getcwd()), "session": start_new_session}
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.connect(address)
            message = json.dumps({**request, "env": dict(os.environ if env is None else env)}).encode()
            self._connection.sendall(len(message).to_bytes(LENGTH, "big"))
            socket.send_fds(self._connection, [b"f"], files)
            self._connection.sendall(message)
        self.pid = int.from_bytes(_exactly(self._connection, LENGTH), "big")

    def _file(self, name: str, given: Any, ours: contextlib.ExitStack) -> int:
        """The number of the file that the process gets; `ours`: those to be closed here."""
        if given is None:
            return {"stdin": 0, "stdout": 1, "stderr": 2}[name]
        if given == subprocess.DEVNULL:
            return ours.enter_context(open(os.devnull, "r+b")).fileno()
        if given != subprocess.PIPE:
            return given if isinstance(given, int) else given.fileno()
        read, write = os.pipe()
        theirs, mine, mode = (read, write, "w") if name == "stdin" else (write, read, "r")
        ours.callback(os.close, theirs)
        setattr(self, name, open(mine, mode + "b") if self._decoding is None else open(mine, mode, **self._decoding))
        return theirs

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = int.from_bytes(_exactly(self._connection, LENGTH), "big", signed=True)
            self._connection.close()
        return self.returncode

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError), self.stdin:
                self.stdin.write(input or type(input)())
        said: dict[str, Any] = {}

        def read(name: str, stream: IO[Any]) -> None:
            with stream:
                said[name] = stream.read()

        streams = [(name, stream) for name in ("stdout", "stderr") if (stream := getattr(self, name)) is not None]
        readers = [threading.Thread(target=read, args=pair, daemon=True) for pair in streams]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return said.get("stdout"), said.get("stderr")

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Worker:
    """What torchrun starts in place of a subprocess: a child of torchrun's own, as others look for it there."""

    def __init__(self, args: Sequence[str], env: dict[str, str], **options: Any) -> None:
        self.args, self.returncode = args, None
        files = [options.get(name) or number for number, name in enumerate(("stdin", "stdout", "stderr"))]
        self.pid = os.fork()
        if not self.pid:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            numbers = [file if isinstance(file, int) else file.fileno() for file in files]
            os._exit(_become(numbers, args, os.getcwd(), env, options.get("start_new_session", False)))

    def poll(self) -> int | None:
        if self.returncode is None and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(ended[1])
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.01)
        return self.returncode


def run(args: Sequence[str], *, input: Any = None, capture_output: bool = False, timeout: float | None = None, **more):
    """What subprocess.run is."""
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE) if capture_output else {}
    more["stdin"] = subprocess.DEVNULL if input is None else subprocess.PIPE
    process = Forked(args, **pipes, **more)
    try:
        said = process.communicate(input, timeout)
    except BaseException:
        process.kill()
        raise
    return subprocess.CompletedProcess(args, process.returncode, *said)


@contextlib.contextmanager
def in_use(address: str) -> Iterator[None]:
    """What the engine starts meanwhile is forked."""
    from engine.jobs import spawn
    from engine.presets import catalog
    from lreg_tui.system import launch

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ADDRESS, address)
        for module in (spawn, catalog, launch):
            patch.setattr(module, "subprocess", FORKING)
        yield


FORKING = types.SimpleNamespace(**{**vars(subprocess), "Popen": Forked, "run": run})
"""In place of the module subprocess, where only processes of Python are started."""


# -- the process that forks ------------------------------------------


def serve(address: str) -> None:
    """Fork whatever is asked for, until the one who has started this is gone."""
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)
    signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen(64)
    os.rename(address + ".new", address)
    waiting: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([sys.stdin, listener, ear], [], [])
        if sys.stdin in ready:
            return
        if listener in ready:
            connection, _ = listener.accept()
            _fork(connection, waiting)
        if ear in ready:
            ear.recv(4096)
        _tell_of_the_dead(waiting)


def _fork(connection: socket.socket, waiting: dict[int, socket.socket]) -> None:
    length = int.from_bytes(_exactly(connection, LENGTH), "big")
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    request = json.loads(_exactly(connection, length))
    pid = os.fork()
    if not pid:
        os._exit(_become(files, **request))
    for number in files:
        os.close(number)
    waiting[pid] = connection
    with contextlib.suppress(OSError):
        connection.sendall(pid.to_bytes(LENGTH, "big"))


def _tell_of_the_dead(waiting: dict[int, socket.socket]) -> None:
    while waiting:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with contextlib.suppress(OSError), waiting.pop(pid) as connection:
            connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(LENGTH, "big", signed=True))


def _become(files: Sequence[int], args: Sequence[str], cwd: str, env: dict[str, str], session: bool) -> int:
    """Be the process that is asked for. Returns its exit code."""
    if session:
        os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, 1024)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    encoding = env.get("PYTHONIOENCODING")
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.stdin, sys.stdout, sys.stderr = (
        open(n, "r" if n == 0 else "w", encoding=encoding, closefd=False) for n in range(3)
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    sys.stdout.reconfigure(line_buffering=True)
    try:
        _run(args, env)
        code: Any = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:  # as Python itself ends then
        traceback.print_exc()
        code = 120
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    return code


def _run(args: Sequence[str], env: dict[str, str]) -> None:
    """`python -m MODULE ...`, or `python -c CODE ...`."""
    import torch
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    from engine.jobs import spawn

    spawn.subprocess, subprocess_handler.Popen = FORKING, Worker  # what it starts is forked as well
    if threads := int(env.get("OMP_NUM_THREADS") or 0):
        torch.set_num_threads(threads)
    _, flag, what, *rest = [word for word in args if word != "-u"]
    sys.argv = [what if flag == "-m" else flag, *rest]
    if flag == "-m":
        warnings.simplefilter("ignore", RuntimeWarning)  # it is imported already: true
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(what, {"__name__": "__main__"})


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError("the other end is gone")
        data += piece
    return data


if __name__ == "__main__":
    from engine.base.device import prepare_process

    prepare_process()
    os.fsync = not_waiting
    for module in PRELOAD:
        __import__(module)
    for package in WITH_MEMBERS:
        for found in pkgutil.iter_modules(__import__(package, fromlist=["*"]).__path__, f"{package}."):
            __import__(found.name)
    serve(sys.argv[1])
    os._exit(0)  # to take all of torch down again takes a second
