"""Recording: a truncation's work recorded once as a CUDA graph, then replayed: no Python and no launch per inner step.

Everything that a truncation does on the device follows from the tensors it starts from, so a recording has copies of
those, into which the next truncation's are put before it is replayed. What Python decides by (the weights of the
losses, when penalties start) is the recording's key. LREG_GRAPHS=1 asks for it; off by default, because it has never
run on a GPU. Update penalties draw random numbers as they go: their truncations are not recorded.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from engine.base.errors import LregError
from engine.meta_training.objective import Objective
from engine.meta_training.partial_gradient import PartialGradient
from engine.meta_training.unroll import UnrollState, run_truncation
from engine.optimizers.learned.base import Phi
from engine.penalties.base import HessianPenalty, Randomness
from engine.tasks.base import Batches

MOST_RECORDINGS = 8  # of one meta-training; each holds a truncation's memory

T = TypeVar("T")
RunTruncation = Callable[..., tuple[PartialGradient, Tensor, UnrollState]]
"""`engine.meta_training.unroll.run_truncation`, or what does the same."""


class Recorder(Protocol):
    """What records work on a device."""

    def record(self, work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """The results of the work, filled in by every call of what is returned with them."""
        ...


class CudaGraphs:
    """CUDA graphs. They share memory, so results are good until the next replay of any of them."""

    def __init__(self) -> None:
        self._pool: Any = None

    def record(self, work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            results = work()
        self._pool = graph.pool()
        return results, graph.replay


def chosen(device: torch.device) -> RunTruncation:
    """How truncations are walked on a device, by LREG_GRAPHS. Raises LregError where it says neither 0 nor 1."""
    way = os.environ.get("LREG_GRAPHS", "") or "0"
    if way not in ("0", "1"):
        raise LregError(f"LREG_GRAPHS: found {way!r}; allowed: 0, 1")
    return RecordedTruncations(CudaGraphs()) if way == "1" and device.type == "cuda" else run_truncation


class RecordedTruncations:
    """`run_truncation`, recorded when it comes for the second time: the first compiles the kernels."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._seen: set[Hashable] = set()
        self._recordings: dict[Hashable, _Recording] = {}

    def __call__(
        self,
        objective: Objective,
        phi: Phi,
        carry: UnrollState,
        batches: Batches,
        factors: Sequence[float],
        randomness: Randomness,
        *,
        scoring: Batches | None = None,
        final: Batches | None = None,
    ) -> tuple[PartialGradient, Tensor, UnrollState]:
        starts = [phi, carry, batches, scoring, final]
        key = (id(objective), *_decisions(objective, carry, factors), *_shapes(starts))
        if key not in self._recordings:
            if self._decides(objective) or key not in self._seen or len(self._recordings) == MOST_RECORDINGS:
                self._seen.add(key)
                plain = (batches, factors, randomness)
                return run_truncation(objective, phi, carry, *plain, scoring=scoring, final=final)
            self._recordings[key] = _Recording(self._recorder, objective, starts, factors)
        return self._recordings[key].replay(starts, carry, len(factors))

    @staticmethod
    def _decides(objective: Objective) -> bool:
        """Whether more than tensors goes into a truncation: random numbers, or the number of an inner step."""
        steps = any(isinstance(penalty, HessianPenalty) for penalty in objective.geometric.values())
        return bool(objective.update) or steps or objective.optimizer.uses_info


class _Recording:
    """One truncation."""

    def __init__(self, recorder: Recorder, objective: Objective, starts: list[Any], factors: Sequence[float]) -> None:
        self._objective = objective  # kept: its id is in the key
        self._starts = [tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in tensors_of(starts)]
        phi, carry, batches, scoring, final = with_tensors(starts, iter(self._starts))
        self._results, self._again = recorder.record(
            lambda: run_truncation(objective, phi, carry, batches, factors, (), scoring=scoring, final=final)
        )

    def replay(self, starts: list[Any], carry: UnrollState, steps: int) -> tuple[PartialGradient, Tensor, UnrollState]:
        for mine, given in zip(self._starts, tensors_of(starts), strict=True):
            mine.detach().copy_(given.detach())
        self._again()
        own = iter([tensor.clone() for tensor in tensors_of(self._results)])
        partial, losses, after = with_tensors(self._results, own)
        counts = {"inner_step": carry.inner_step + steps, "truncations": carry.truncations + 1}
        return partial, losses, dataclasses.replace(after, **counts)


def _decisions(objective: Objective, carry: UnrollState, factors: Sequence[float]) -> Iterator[Hashable]:
    """What Python code in a truncation goes by."""
    yield tuple(factors)
    yield carry.inner_step == 0
    for penalty in (*objective.geometric.values(), *objective.parameter.values()):
        yield min(max(0, penalty.start - carry.inner_step), len(factors) + 1)


def _shapes(value: Any) -> Iterator[Hashable]:
    for tensor in tensors_of(value):
        yield tensor.shape, tensor.dtype


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors in a structure of tensors, containers and dataclasses, in order; of batches their numbers."""
    if isinstance(value, Tensor):
        yield value
    else:
        for part in _parts(value):
            yield from tensors_of(part)


def with_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The same structure with other tensors."""
    if isinstance(value, Tensor):
        return next(tensors)
    parts = _parts(value)
    return _with_parts(value, [with_tensors(part, tensors) for part in parts]) if parts else value


def _parts(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple):
        return value
    if dataclasses.is_dataclass(value):
        return [getattr(value, item.name) for item in dataclasses.fields(value)]
    return value.numbers() if hasattr(value, "with_numbers") else ()


def _with_parts(value: Any, parts: Iterable[Any]) -> Any:
    if isinstance(value, dict):
        return dict(zip(value, parts, strict=True))
    if dataclasses.is_dataclass(value):
        names = [item.name for item in dataclasses.fields(value)]
        return dataclasses.replace(value, **dict(zip(names, parts, strict=True)))  # type: ignore[type-var]
    if hasattr(value, "with_numbers"):
        return value.with_numbers(*parts)
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
