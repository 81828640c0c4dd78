"""Tasks and distributions that follow the contract without its classes: what they leave out, and whether they fit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from engine.base.arguments import kind, refusal
from engine.base.errors import ArgumentError, RunError
from engine.base.flat import plain_attention, tensors_in
from engine.tasks.base import Batches, Layout, Stream, Task, TaskDistribution, UniformTasks

_NEEDED = ("layout", "init_theta", "loss", "batches")


class _OutsideTask(Task):
    """A task of a class of its own, with what it leaves out."""

    def __init__(self, task: Any) -> None:
        missing = [name for name in _NEEDED if not hasattr(task, name)]
        if missing:
            needed = f"a task: an object with {', '.join(_NEEDED)}"
            raise refusal("tasks", needed, f"{kind(task)} without {', '.join(missing)}")
        layout = task.layout
        self._task = task
        self.name = str(getattr(task, "name", type(task).__name__))
        self.layout = layout if isinstance(layout, Layout) else Layout(layout)
        measured = getattr(task, "measured", ())
        self.measured = (*Task.measured, *(metric for metric in measured if metric.name != "loss"))
        for name in (*_NEEDED[1:3], "metrics", "metrics_of_each", "fixed_batch", "controls", "query_inputs", "rows"):
            if hasattr(task, name):
                setattr(self, name, getattr(task, name))

    def batches(self, seeds: Sequence[int], split: str = "train") -> Stream:
        return as_stream(lambda: self._task.batches(seeds, split))

    def of(self, seeds: Sequence[int]) -> Task:
        return self._other("of", seeds)

    def held_out(self, purpose: str) -> Task:
        return self._other("held_out", purpose)

    def _other(self, method: str, argument: Any) -> Task:
        """What a method of the task's gives, which is another task; self where it has none, or gives itself."""
        other = getattr(self._task, method)(argument) if hasattr(self._task, method) else self._task
        return self if other is self._task else as_task(other)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _OutsideTask) and other._task is self._task

    def __hash__(self) -> int:
        return id(self._task)


class _OutsideTasks(TaskDistribution):
    """A distribution of a class of its own, or of such tasks."""

    def __init__(self, distribution: Any) -> None:
        self._distribution = distribution

    def sample(self, seed: int) -> Task:
        return as_task(self._distribution.sample(seed))


class _CountedStream:
    """A stream without a state of its own: how far it is, is counted, and it is gone through again for a resume."""

    def __init__(self, begin: Callable[[], Any]) -> None:
        self._begin = begin
        self._source = begin()
        self._drawn = 0

    def draw(self, steps: int) -> Batches:
        self._drawn += steps
        if hasattr(self._source, "draw"):
            return self._source.draw(steps)
        if not isinstance(self._source, Iterator):
            self._source = iter(self._source)
        batches = list(itertools.islice(self._source, steps))
        if len(batches) < steps:
            raise ArgumentError(f"a task's batches must not end, found {len(batches)} of {steps} inner steps")
        return batches

    def state(self) -> Tensor:
        return torch.tensor(self._drawn)

    def load_state(self, state: Tensor) -> None:
        if state.shape != ():
            raise RunError(f"a stream's state has shape {list(state.shape)}, should be []: it is of another task")
        self._source, self._drawn = self._begin(), 0
        if int(state):
            self.draw(int(state))


def as_stream(begin: Callable[[], Any]) -> Stream:
    """What `begin` gives as a stream: one already, something with `draw` alone, or anything that gives batches."""
    stream = begin()
    if all(hasattr(stream, name) for name in ("draw", "state", "load_state")):
        return stream
    if not hasattr(stream, "draw") and not isinstance(stream, Iterable):
        raise refusal("batches", "a stream: an object with draw(steps), or an iterator of batches", kind(stream))
    return _CountedStream(begin)


def as_task(task: Any) -> Task:
    """Raises ArgumentError where it is none."""
    return task if isinstance(task, Task) else _OutsideTask(task)


@plain_attention()
def check_task(task: Task) -> None:
    """Raise ArgumentError where what a task gives does not fit together: in one line, before anything is trained."""
    theta, size = task.init_theta(0), task.layout.size
    if not isinstance(theta, Tensor) or theta.shape != (size,) or not theta.is_floating_point():
        raise refusal(f"init_theta of {task.name}", f"floats of shape [{size}], as its layout says", kind(theta))
    batch = task.batches([0, 1], "train").draw(1)[0]
    shapes = [list(tensor.shape) for tensor in tensors_in(batch)]
    if not shapes or any(shape[:1] != [2] for shape in shapes):
        found = ", ".join(map(str, shapes)) or "no tensors"
        raise refusal(f"batches of {task.name}", "tensors with a leading [2] for two seeds", found)
    try:
        losses = vmap(task.loss)(torch.stack([theta, theta]).requires_grad_(), batch)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise refusal(
            f"loss of {task.name}", "a function of theta [P] that torch.func.vmap can take", reason
        ) from error
    if not isinstance(losses, Tensor) or losses.shape != (2,):
        raise refusal(f"loss of {task.name}", "a scalar", kind(losses[0] if isinstance(losses, Tensor) else losses))
    if not losses.requires_grad:
        raise refusal(f"loss of {task.name}", "differentiable by theta", "one without a graph to it")


def as_distribution(tasks: Any) -> TaskDistribution:
    """A task, several, or a distribution of them. Raises ArgumentError where it is none of these."""
    if isinstance(tasks, TaskDistribution):
        return tasks
    if hasattr(tasks, "sample") and not hasattr(tasks, "loss"):
        return _OutsideTasks(tasks)
    if isinstance(tasks, (list, tuple)) and tasks:
        return UniformTasks([as_task(task) for task in tasks])
    return UniformTasks([as_task(tasks)])
