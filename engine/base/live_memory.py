"""Bytes of tensors that are alive, counted as they are made: the same every time, and for free on the meta device."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveMemory(TorchDispatchMode):
    """Within it, `now` is how many bytes the tensors made in it take that are still alive, and `peak` the most so far.

    On whatever device: on "meta" nothing is computed and nothing allocated, and the bytes are those of the CPU. What an
    operation uses inside itself is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, int] = {}  # bytes by storage

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return result

    def begin(self) -> int:
        """Let the peak begin anew; returns what is alive now."""
        self.peak = self.now
        return self.now

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._alive:
            self._alive[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, storage._cdata)

    def _forget(self, address: int) -> None:
        self.now -= self._alive.pop(address)


def peak_of(function: Callable[..., Any], *arguments: Any) -> int:
    """Most bytes that a call takes, as of tensors on the meta device."""
    with LiveMemory() as live:
        function(*arguments)
        return live.peak
