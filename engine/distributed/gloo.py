"""The team of a run on several processes: what they say to each other, through torch.distributed and gloo."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from engine.base.control import Stopped
from engine.base.errors import TrainingError
from engine.distributed import parallel
from engine.distributed.parallel import ALONE, PeerLost, ProcessGroup, launched, restart_count
from engine.runs.writer import Run

if TYPE_CHECKING:
    import torch.distributed as dist

    from engine.runs.writer import Run

T = TypeVar("T")
# a pause is no failure; one that died is noticed by its connection, one that hangs by Watchdog
PATIENCE = datetime.timedelta(days=30)
ASK_EVERY_S = 0.2  # how often a process in an evaluation looks whether another was asked to stop
BEAT_S = 1.0
WAIT_S = 10.0  # before it is said who is waited for
SILENT_S = 10.0  # without a word, before a process counts as hanging
HANGING_S = 3.0  # from a stop until it goes through a process that hangs
BUSY_S = 60.0  # and through one that is at work: it ought to have come by then
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class GlooProcessGroup(ProcessGroup):
    """A team of several processes. Every method but `share`, `stopping` and `explain` is to be called by all."""

    def __init__(self, store: dist.Store, rank: int, size: int, *, attempt: int = 0, run: Run | None = None) -> None:
        """Meet the others through a store that all of them reach; every attempt of torchrun's has a part of its own.

        `run`: where the process of rank 0 says whom it waits for. Raises PeerLost where they do not come.
        """
        self.rank, self.size = rank, size
        self._store = dist.PrefixStore(f"lreg/{attempt}", store)
        self._asked_at = 0.0
        with self._talking():
            dist.init_process_group("gloo", store=self._store, rank=rank, world_size=size, timeout=PATIENCE)
            self._watch = Watchdog(self._store, rank, size, run)

    def add_up(self, values: Tensor) -> Tensor:
        summed = values.detach().to("cpu", copy=True)
        with self._meeting():
            dist.all_reduce(summed)
        return summed.to(values.device)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        return tuple(count > 0 for count in self.add_up(torch.tensor(flags, dtype=torch.float64)).tolist())

    def gather(self, part: T) -> list[T]:
        everything: list[Any] = [None] * self.size
        with self._meeting():
            dist.all_gather_object(everything, part)
        return everything

    def collect(self, part: T) -> list[T]:
        everything: list[Any] | None = [None] * self.size if self.rank == 0 else None
        with self._meeting():
            dist.gather_object(part, everything)
        return everything or []

    def from_first(self, value: T) -> T:
        held: list[Any] = [value if self.rank == 0 else None]
        with self._meeting():
            dist.broadcast_object_list(held)
        return held[0]

    def stopping(self, requested: bool) -> bool:
        if requested:
            self._store.set("stop", "asked")
        elif time.monotonic() - self._asked_at >= ASK_EVERY_S:
            self._asked_at = time.monotonic()
            with self._talking():
                requested = self._store.check(["stop"])
        return requested

    def do(self, work: Callable[[], T]) -> list[T]:
        try:
            part = work()
        except Stopped:
            self.gather((False, None))
            raise
        parts: list[Any] = self.gather((True, part))
        if not all(whole for whole, _ in parts):
            raise Stopped
        return [part for _, part in parts]

    def explain(self, reason: str) -> None:
        with contextlib.suppress(RuntimeError):
            if not self._store.check(["reason"]):
                self._store.set("reason", f"process {self.rank}: {reason}")

    def leave(self) -> None:
        with self._meeting():
            dist.barrier()
        self._watch.end()
        dist.destroy_process_group()

    @contextlib.contextmanager
    def _meeting(self) -> Iterator[None]:
        """Around what all do together; so each waits for the others."""
        with self._talking(), self._watch.meeting():
            yield

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            with contextlib.suppress(RuntimeError):  # the store may be gone as well
                if self._store.check(["reason"]):
                    raise TrainingError(self._store.get("reason").decode(errors="replace")) from None
            reason = re.sub(r"^\[\S*\] ", "", (str(error).splitlines() or [""])[0]).partition(". ")[0][:200]
            raise PeerLost(f"another process of this run is gone ({reason})") from error


def join(run: Run | None = None) -> ProcessGroup:
    """Meet the processes that torchrun has started with this one. Alone, where it has not. Raises PeerLost.

    `run`: where it is said whom rank 0 waits for.
    """
    if not launched():
        return ALONE
    with _killable():
        store, own_rank, size = next(dist.rendezvous("env://"))
        return GlooProcessGroup(store, own_rank, size, attempt=restart_count(), run=run)


@contextlib.contextmanager
def _killable() -> Iterator[None]:
    """Let torchrun end this process while it waits for others that never come: no handler would be reached."""
    if parallel.rank() == 0 or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


class Watchdog:
    """One process's part in the watch, in a thread. `met` is how many meetings of the team it has come to."""

    def __init__(self, store: dist.Store, rank: int, size: int, run: Run | None = None) -> None:
        """`run`: where the process of rank 0 says what it sees; without it nothing is looked at."""
        self.rank, self.size = rank, size
        self.run = run if rank == 0 else None
        self.met = 0
        self._store = store
        self._since: float | None = None  # when this process began to wait for the others
        self._asked_at: float | None = None  # to stop
        self._heard: dict[int, tuple[bytes, float]] = {}  # the last word of each other process, and since when it is so
        self._before: str | None = None  # the status's message, while ours is in its place
        self._accused = False  # the log has it that a process hangs
        self._ended = threading.Event()
        self._ear, self._mouth = socket.socketpair()
        self._listens = self.run is not None and threading.current_thread() is threading.main_thread()
        if self._listens:
            self._mouth.setblocking(False)
            self._wakeup_before = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        store.set(f"process/{rank}", json.dumps([socket.gethostname(), os.getpid()]))
        self._thread = threading.Thread(target=self._watch, name="team watch", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def meeting(self) -> Iterator[None]:
        """Around everything that waits for the others."""
        self.met += 1
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def end(self) -> None:
        if self._listens:
            signal.set_wakeup_fd(self._wakeup_before)
        self._ended.set()
        self._mouth.send(b"\0")  # no signal: it ends the rest
        self._thread.join(2 * BEAT_S)

    def _watch(self) -> None:
        number = 0
        while not self._ended.is_set():
            with contextlib.suppress(RuntimeError, OSError):  # the store is gone, and with it the team
                number += 1
                self._store.set(f"beat/{self.rank}", f"{self.met} {number}")
                if self.run is not None:
                    self._look(self.run)
            self._listen()

    def _listen(self) -> None:
        """Rest until the next beat, or until a signal. Its handler runs only when gloo has come back."""
        if select.select([self._ear], [], [], BEAT_S)[0] and set(self._ear.recv(64)) & set(STOPS):
            self._asked_at = self._asked_at or time.monotonic()
            with contextlib.suppress(RuntimeError):
                self._store.set("stop", "asked")  # for those that are in an evaluation, see GlooProcessGroup.stopping

    def _look(self, run: Run) -> None:
        now, since = time.monotonic(), self._since
        if since is None or now - since < WAIT_S:
            self._withdraw(run)
            return
        words = {rank: self._word_of(rank, now) for rank in range(self.size) if rank != self.rank}
        missing = [rank for rank, (met, _) in words.items() if met < self.met] or list(words)
        hanging = [rank for rank in missing if words[rank][1] > SILENT_S]
        if self._before is None:
            self._before = run.status.message
            run.set_status(message=f"waiting for {_named(missing)}", eta_s=None)
        if hanging and not self._accused:
            self._accused = True
            run.log(f"waiting for {_named(missing)}: no sign of life from {_named(hanging)}")
        if self._asked_at is not None and now - max(self._asked_at, since) > (HANGING_S if hanging else BUSY_S):
            self._go(run, hanging or missing)

    def _withdraw(self, run: Run) -> None:
        """The wait is over: take back what was said of it."""
        if self._before is not None:
            if run.status.message.startswith("waiting for process"):
                run.set_status(message=self._before)
            self._before = None
        if self._accused:
            self._accused = False
            run.log("all processes are there again")

    def _word_of(self, rank: int, now: float) -> tuple[int, float]:
        """To how many meetings a process has come, and for how long it has said nothing new."""
        key = f"beat/{rank}"
        word = self._store.get(key) if self._store.check([key]) else b"0 0"
        if word != self._heard.get(rank, (b"", 0.0))[0]:
            self._heard[rank] = word, now
        return int(word.split()[0]), now - self._heard[rank][1]

    def _go(self, run: Run, missing: Sequence[int]) -> None:
        """End the processes of this host at once: no checkpoint can be written without those that are missing."""
        text = f"{_named(missing)} did not come; what was done since the last checkpoint is done again after a resume"
        run.log(f"stopped at step {run.status.step}: {text}")
        with contextlib.suppress(OSError):
            run.set_status(state="stopped", message=text, eta_s=None)  # torchrun starts no run that is stopped
        for key in (f"process/{rank}" for rank in range(self.size) if rank != self.rank):
            host, pid = json.loads(self._store.get(key)) if self._store.check([key]) else ("", 0)
            if host == socket.gethostname():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        os._exit(0)


def _named(ranks: Sequence[int]) -> str:
    return ("process " if len(ranks) == 1 else "processes ") + ", ".join(map(str, ranks))
