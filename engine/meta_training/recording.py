"""Recording: a truncation's work recorded once as a CUDA graph, then replayed: no Python and no launch per inner step.

Everything that a truncation does on the device follows from the tensors it starts from, so a recording has copies of
those, into which the next truncation's are put before it is replayed. What Python decides by (the weights of the
losses, when penalties start) is the recording's key. A recording is tried as kernels are (`engine.kernels.trial`) and
taken where it does what the truncation itself does, and faster; LREG_GRAPHS=1 takes all, 0 none. Update penalties draw
random numbers as they go: their truncations are not recorded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from engine.base.errors import LregError
from engine.kernels import trial as trials
from engine.kernels.trial import Trial, trial_of
from engine.meta_training.inner_steps import Inputs, UnrollState
from engine.meta_training.objective import Objective
from engine.meta_training.partial_gradient import PartialGradient
from engine.meta_training.unroll import run_truncation
from engine.optimizers.learned.base import Phi
from engine.penalties.base import HessianPenalty

MOST_RECORDINGS = 8  # of one meta-training; each holds a truncation's memory

GRAPH = "CUDA graph"

T = TypeVar("T")
Results = tuple[PartialGradient, UnrollState]
RunTruncation = Callable[..., Results]
"""`engine.meta_training.unroll.run_truncation`, or what does the same."""


class CudaGraphs:
    """CUDA graphs. They share memory, so results are good until the next replay of any of them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None  # one for all: only so can they share memory
        self._pool: Any = None
        self._failed: list[torch.cuda.CUDAGraph] = []  # the allocator may go on asking them

    def record(self, work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """The results of the work, filled in by every call of what is returned with them.

        Does the work once on the recording's stream: what is loaded or compiled at first use cannot be recorded.
        Work on another device's stream would not be recorded, but done: hence the device.
        """
        with torch.cuda.device(self._device):
            stream = self._stream = self._stream or torch.cuda.Stream(self._device)
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                work()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, self._pool, stream, capture_error_mode="thread_local"):  # others go on
                    results = work()
            except BaseException:
                self._failed.append(graph)
                raise
        self._pool = graph.pool()
        return results, graph.replay


def way() -> str:
    """LREG_GRAPHS. Raises LregError where it says none of auto, 0, 1."""
    way = os.environ.get("LREG_GRAPHS", "") or "auto"
    if way not in ("auto", "0", "1"):
        raise LregError(f"LREG_GRAPHS: found {way!r}; allowed: auto, 0, 1")
    return way


def chosen(device: torch.device) -> RunTruncation:
    """How truncations are walked on a device."""
    if way() == "0" or device.type != "cuda":
        return run_truncation
    return RecordedTruncations(CudaGraphs(device), device if way() == "auto" else None)


def describe(device: torch.device) -> str:
    """What a log says of that; empty where nothing is recorded."""
    if chosen(device) is run_truncation:
        return ""
    return f", {GRAPH}s{' where their trials say so' if way() == 'auto' else ', as LREG_GRAPHS says'}"


class RecordedTruncations:
    """`run_truncation`, recorded when it comes for the second time: the first compiles the kernels.

    Where recordings are tried, the third is the trial, on other numbers than those that were recorded.
    """

    def __init__(self, recorder: CudaGraphs, device: torch.device | None = None) -> None:
        """`device`: the one on which recordings are tried; None: they are taken unseen."""
        self._recorder = recorder
        self._device = device
        self._seen: set[Hashable] = set()
        self._recordings: dict[Hashable, _RecordedTruncation] = {}
        self._trials: dict[Hashable, Trial] = {}

    def __call__(self, objective: Objective, phi: Phi, carry: UnrollState, inputs: Inputs) -> Results:
        starts, steps = [phi, carry, inputs], len(inputs.factors)
        plain = partial(run_truncation, objective, phi, carry, inputs)
        if self._decides(objective):
            return plain()
        facts = (*_decisions(objective, carry, inputs.factors), *_shapes(starts))
        key = (id(objective), trials.generation, *facts)
        has_room = key in self._recordings or len(self._recordings) < MOST_RECORDINGS
        if key not in self._seen or not has_room:
            self._seen.add(key)
            return plain()
        record = partial(_RecordedTruncation, self._recorder, objective, starts)
        if self._device is None:
            recording = self._recordings[key] = self._recordings.get(key) or record()
            return recording.replay(starts, carry, steps)
        if key not in self._trials:
            self._trials[key] = _trial(objective, facts, carry.theta, self._device)
        trial = self._trials[key]
        if key in self._recordings:
            replay = partial(self._recordings[key].replay, starts, carry, steps)
            return _proven(trial, plain, replay, self._device)
        if trial.is_open or trial.takes_kernel:
            self._record(key, record, trial)
        return plain()

    def _record(self, key: Hashable, record: Callable[[], _RecordedTruncation], trial: Trial) -> None:
        try:
            with trial.under_way():
                self._recordings[key] = record()
        except Exception as error:  # whatever a device raises that cannot record this
            trial.condemn(trials.reason_of(error), error)

    @staticmethod
    def _decides(objective: Objective) -> bool:
        """Whether more than tensors goes into a truncation: random numbers, or the number of an inner step."""
        steps = any(isinstance(penalty, HessianPenalty) for penalty in objective.geometric.values())
        return bool(objective.update) or steps or objective.optimizer.uses_info


def _trial(objective: Objective, facts: Hashable, theta: Tensor, device: torch.device) -> Trial:
    """The trial of a kind of truncation. What the text leaves out is checked in every process: the first replay is."""
    members = [repr(objective.optimizer), *map(repr, objective.geometric.values()), repr(facts)]
    digest = hashlib.sha256("\n".join(members).encode()).hexdigest()[:12]
    work = f"a truncation of {objective.optimizer.name}, {len(theta)} x {theta.shape[1]} parameters ({digest})"
    return trial_of(trials.subject(GRAPH, work, device, theta.dtype, Path(__file__)))


def _proven(trial: Trial, plain: Callable[[], Results], replay: Callable[[], Results], device: torch.device) -> Results:
    """A truncation's results, by a recording as far as its trial allows."""
    if not (trial.is_open or trial.takes_kernel):
        return plain()
    if trial.is_open:
        results = plain()
        trial.settle(lambda: trials.judge(plain, {GRAPH: replay}, partial(_error, results), 0.0, device))
        return results
    try:
        replayed = replay()
    except Exception as error:  # whatever a replay that fails raises
        trial.condemn(trials.reason_of(error), error)
        return plain()
    if not trial.due():
        return replayed
    with trials.thorough():  # the kernels in it, too
        results = plain()
    difference = _error(results, replayed)
    if difference <= trials.BOUND:
        return replayed
    if trial.takes_kernel:
        trial.condemn(f"wrong: error {difference:.1e}, at most {trials.BOUND:.1e} is allowed")
    return results


def _error(expected: Results, replayed: Results) -> float:
    """The largest difference, relative to the largest number of a tensor; where one is not finite the other must be so.

    The same kernels on the same numbers: nothing but the order of sums differs.
    """
    pairs = zip(tensors_of(expected), tensors_of(replayed), strict=True)
    return torch.stack([_difference(one.double(), other.double()) for one, other in pairs]).max().item()


def _difference(one: Tensor, other: Tensor) -> Tensor:
    same = (one == other) | (one.isnan() & other.isnan())
    scale = torch.where(one.isfinite(), one.abs(), 0.0).max() if one.numel() else one.sum()
    difference = torch.where(same, 0.0, (one - other).abs())
    return (difference / torch.where(scale > 0, scale, 1.0)).max() if one.numel() else scale


class _RecordedTruncation:
    """One truncation."""

    def __init__(self, recorder: CudaGraphs, objective: Objective, starts: list[Any]) -> None:
        self._objective = objective  # kept: its id is in the key
        self._starts = [tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in tensors_of(starts)]
        phi, carry, inputs = with_tensors(starts, self._starts)
        self._results, self._again = recorder.record(lambda: run_truncation(objective, phi, carry, inputs))

    def replay(self, starts: list[Any], carry: UnrollState, steps: int) -> Results:
        for mine, start in zip(self._starts, tensors_of(starts), strict=True):
            mine.detach().copy_(start.detach())
        self._again()
        clones = [tensor.clone() for tensor in tensors_of(self._results)]
        partial_gradient, after = with_tensors(self._results, clones)
        counts = {"inner_step": carry.inner_step + steps, "truncations": carry.truncations + 1}
        return partial_gradient, dataclasses.replace(after, **counts)


def _decisions(objective: Objective, carry: UnrollState, factors: Sequence[float]) -> Iterator[Hashable]:
    """What Python code in a truncation goes by."""
    yield tuple(factors)
    yield carry.inner_step == 0
    for penalty in (*objective.geometric.values(), *objective.parameter.values()):
        yield min(max(0, penalty.start - carry.inner_step), len(factors) + 1)


def _shapes(value: Any) -> Iterator[Hashable]:
    for tensor in tensors_of(value):
        yield tensor.shape, tensor.dtype


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors in a structure of tensors, containers and dataclasses, in order; of batches their numbers."""
    tensors: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    _mapped(note, value)
    return tensors


def with_tensors(value: Any, tensors: Iterable[Tensor]) -> Any:
    """The same structure with other tensors."""
    remaining = iter(tensors)
    return _mapped(lambda _: next(remaining), value)


def _mapped(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _mapped(function, part) for key, part in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [item.name for item in dataclasses.fields(value)]
        return dataclasses.replace(value, **{name: _mapped(function, getattr(value, name)) for name in names})
    if hasattr(value, "with_numbers"):
        return value.with_numbers(*(_mapped(function, part) for part in value.numbers()))
    if isinstance(value, (list, tuple)):
        parts = [_mapped(function, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value
