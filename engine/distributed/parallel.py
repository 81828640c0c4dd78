"""One run on many processes: each takes a part of the meta-batch, and what they find is added up.

torchrun starts them. phi, its optimizer and the curriculum are the same in all of them, because all add up the same
numbers; the process of rank 0 alone writes the run's folder. They talk through gloo, also where they compute on GPUs:
what goes to and fro is a few kilobytes for each meta-step, and every meta-step looks at its meta-gradient anyway.

torch is imported only where there are processes to talk to.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from engine.base.errors import LregError, PresetError, Problem
from engine.runs.writer import Run

if TYPE_CHECKING:
    from torch import Tensor

    from engine.presets.preset import Preset

T = TypeVar("T")
RESTARTS = 3  # times that `lreg run --nproc` starts the processes anew after one of them died


class PeerLost(LregError):
    """Another process of the run is gone. What it was doing is done again from the last checkpoint."""

    exit_code = 1


def launched() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def rank() -> int:
    return _number("RANK") if launched() else 0


def size() -> int:
    return _number("WORLD_SIZE") if launched() else 1


def restart_count() -> int:
    """How often torchrun has started the processes anew after one of them died."""
    return _number("TORCHELASTIC_RESTART_COUNT")


def may_restart() -> bool:
    """Whether torchrun will start the processes anew if this one dies."""
    return restart_count() < _number("TORCHELASTIC_MAX_RESTARTS")


def _number(name: str) -> int:
    return int(os.environ.get(name) or 0)


def device_here(device: str) -> str:
    """The device of this process among those of its machine: a GPU for each where any will do."""
    if not launched() or device not in ("auto", "cuda"):
        return device
    import torch

    return f"cuda:{_number('LOCAL_RANK')}" if torch.cuda.is_available() else device


def check_processes(preset: Preset, processes: int) -> None:
    """Raise PresetError where a preset's meta-batch is too small for that many processes."""
    meta_batch = preset["meta"]["meta_batch"]
    if processes > meta_batch:
        needed = f"{processes} or more, as each of {processes} processes takes a part of it"
        raise PresetError([Problem("meta.meta_batch", str(meta_batch), needed)], preset.source)


def end_at_once(pid: int) -> None:
    """Kill a process and those that it has started, as far as they are there."""
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):  # first of all the one that would start others
            with contextlib.suppress(psutil.Error):
                member.kill()


class ProcessGroup:
    """The processes of a run, as one of them sees the others. This class is that of a process by itself."""

    rank = 0
    size = 1

    def share(self, items: Sequence[T]) -> list[T]:
        """The part of the items that is this process's: dealt out in turn."""
        return list(items[self.rank :: self.size])

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over the processes of float64 values, the same bits in all of them."""
        return values

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether some process has set it."""
        return flags

    def gather(self, part: T) -> list[T]:
        """What every process has, by rank."""
        return [part]

    def collect(self, part: T) -> list[T]:
        """What every process has, by rank, at rank 0; elsewhere nothing."""
        return [part]

    def from_first(self, value: T) -> T:
        """What the process of rank 0 has."""
        return value

    def stopping(self, requested: bool) -> bool:
        """Whether this process, or another, was asked to stop: for looks while each is at work of its own."""
        return requested

    def do(self, work: Callable[[], T]) -> list[T]:
        """Have every process do its part; return all parts, by rank. Where one is `Stopped`, all are."""
        return [work()]

    def explain(self, reason: str) -> None:
        """Tell the others why this process is about to leave them."""

    def leave(self) -> None:
        """All is done, here and elsewhere."""


ALONE = ProcessGroup()


def dealt_back(parts: Sequence[Sequence[T]]) -> list[T]:
    """What came of the items that `ProcessGroup.share` dealt out, from all processes, in the order of the items."""
    return [parts[item % len(parts)][item // len(parts)] for item in range(sum(map(len, parts)))]


class ReadOnlyRun(Run):
    """The run in a process that does not hold it: nothing is written."""

    def __enter__(self) -> ReadOnlyRun:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was taken."""

    def set_status(self, durable: bool = True, **changes: Any) -> None:
        """Rank 0 does."""

    def append(self, records: Any) -> None:
        """Rank 0 does."""

    def sync_metrics(self) -> int:
        return 0

    def truncate_metrics(self, size: int) -> None:
        """Rank 0 does."""

    def log(self, text: str) -> None:
        """Rank 0 does."""

    def write_transfer(self, name: str, evaluation: Mapping[str, Any]) -> Path:
        return self.path / "transfer" / name
