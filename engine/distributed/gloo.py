"""The team of a run on several processes: what they say to each other, through torch.distributed and gloo."""

from __future__ import annotations

import contextlib
import datetime
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from engine.base.control import Stopped
from engine.base.errors import TrainingError
from engine.distributed.parallel import PeerLost, ProcessGroup
from engine.distributed.watchdog import Watchdog
from engine.runs.writer import Run

T = TypeVar("T")

# a pause is no failure; one that died is noticed by its connection, one that hangs by Watchdog
PATIENCE = datetime.timedelta(days=30)
ASK_EVERY_S = 0.2  # how often a process in an evaluation looks whether another was asked to stop


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

    def stopping(self, asked: bool) -> bool:
        if asked:
            self._store.set("stop", "asked")
        elif time.monotonic() - self._asked_at >= ASK_EVERY_S:
            self._asked_at = time.monotonic()
            with self._talking():
                asked = self._store.check(["stop"])
        return asked

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
