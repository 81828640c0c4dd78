"""Rendezvous: a process that torchrun has started meets the others of its run."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from engine.distributed.parallel import ALONE, ProcessGroup, launched, rank, restart_count
from engine.runs.writer import Run


def join(run: Run | None = None) -> ProcessGroup:
    """Meet the processes that torchrun has started with this one. Alone, where it has not. Raises PeerLost.

    `run`: where it is said whom rank 0 waits for.
    """
    if not launched():
        return ALONE
    import torch.distributed as dist

    from engine.distributed.gloo import GlooProcessGroup

    with _killable():
        store, own_rank, size = next(dist.rendezvous("env://"))
        return GlooProcessGroup(store, own_rank, size, attempt=restart_count(), run=run)


@contextlib.contextmanager
def _killable() -> Iterator[None]:
    """Let torchrun end this process while it waits for others that never come: no handler would be reached."""
    if rank() == 0 or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
