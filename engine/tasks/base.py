"""The contract of a task: anything with flat parameters and a loss. Images, text, regression, a function of your own.

Shape letters: B optimizees, P parameters of one, T inner steps.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Generator, Tensor
from torch.func import vmap

from engine.base import seeds as seeding
from engine.base.arguments import kind, refusal
from engine.base.draws import held_out_seed
from engine.base.errors import ArgumentError, RunError
from engine.base.flat import Batch, tensors_in, tree_map
from engine.base.metrics import SPLITS, TASK_METRICS, Metric

__all__ = ["SPLITS", "Batch", "Layout", "Metric", "SampledStream", "Stream", "Task", "TaskDistribution", "UniformTasks"]

METRIC_BATCHES = 8  # that `Task.metrics` takes a mean over, where a task does not say better
METRIC_SEED = 20261130  # never change it: what was measured depends on it


@dataclass(frozen=True)
class Layout:
    """The names and shapes of what lies in theta, [..., P], one after another: `Layout({"w": (3, 4), "b": (4,)})`.

    `fan_ins` says of tensors by name over how many inputs a unit sums, where `fan_in` could not tell: None for one that
    sums over nothing, as an embedding, whose rows are looked up.
    """

    shapes: Mapping[str, tuple[int, ...]]
    fan_ins: Mapping[str, int | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {str(name): torch.Size(shape) for name, shape in dict(self.shapes).items()}
        object.__setattr__(self, "shapes", shapes)

    def fan_in(self, name: str) -> int | None:
        """Over how many inputs a unit of this tensor sums; None for vectors and embeddings, which sum over nothing.

        Unless `fan_ins` says so: shapes are torch's, [out, in, *kernel], and a name with "emb" in it, or "wte" or
        "wpe", is an embedding.
        """
        if name in self.fan_ins:
            return self.fan_ins[name]
        shape = self.shapes[name]
        words = re.split(r"[^a-z]+", name.lower())
        if len(shape) < 2 or any("emb" in word or word in ("wte", "wpe") for word in words):
            return None
        return math.prod(shape[1:])

    @functools.cached_property
    def embeddings(self) -> frozenset[str]:
        """The matrices whose rows are looked up, so that some rows may get no gradient."""
        return frozenset(name for name, shape in self.shapes.items() if len(shape) == 2 and self.fan_in(name) is None)

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        return tuple(math.prod(shape) for shape in self.shapes.values())

    @functools.cached_property
    def size(self) -> int:
        """P."""
        return sum(self.sizes)

    @functools.cached_property
    def slices(self) -> dict[str, slice]:
        """Where each of them lies in theta."""
        ends = list(itertools.accumulate(self.sizes))
        return {name: slice(end - size, end) for name, end, size in zip(self.shapes, ends, self.sizes, strict=True)}

    def split(self, theta: Tensor) -> dict[str, Tensor]:
        """The parts of theta, [..., P], in their shapes: views [..., *shape]."""
        parts = zip(self.shapes.items(), theta.split(self.sizes, -1), strict=True)
        return {name: part.reshape((*theta.shape[:-1], *shape)) for (name, shape), part in parts}


class Batches(Protocol):
    """The batches of some inner steps, one after another; every tensor has a leading [B]."""

    def __getitem__(self, step: int, /) -> Batch: ...

    def __len__(self) -> int: ...


class Stream(Protocol):
    """Random batches for B optimizees; what one of them gets depends on its own seed alone."""

    def draw(self, steps: int) -> Batches:
        """The batches of the next inner steps."""
        ...

    def state(self) -> Tensor:
        """Where the stream is, for a checkpoint."""
        ...

    def load_state(self, state: Tensor) -> None:
        """Go on exactly where the stream was that gave this state. Raises RunError where it does not fit."""
        ...


class Task:
    """What an optimizee is trained on. A member gives `name`, `layout`, `init_theta`, `loss` and `batches`.

    `measured`: the metrics that `metrics` gives, each of which says which way is better; the loss is always among them.
    """

    name: str
    layout: Layout
    measured: tuple[Metric, ...] = (TASK_METRICS["loss"],)
    rows: int | None = None
    """B, where optimizees have data of their own and this is the task as B of them see it (`of`)."""

    def init_theta(self, seed: int) -> Tensor:
        """Initial parameters, [P]: for one seed the same numbers on every device."""
        raise NotImplementedError

    def loss(self, theta: Tensor, batch: Batch) -> Tensor:
        """A scalar, for theta, [P], on one optimizee's batch: a pure function, that torch.func can take apart."""
        raise NotImplementedError

    def batches(self, seeds: Sequence[int], split: str = "train") -> Stream:
        """Random batches for one optimizee per seed, of the split "train", "validation" or "test"."""
        raise NotImplementedError

    def metrics(self, theta: Tensor, split: str) -> dict[str, Tensor]:
        """Scalars by name, of theta, [P], on a whole split: "loss", and whatever else `measured` names.

        Unless a member says better: the mean loss over a few batches, always the same ones.
        """
        drawn = self.batches([METRIC_SEED], split).draw(METRIC_BATCHES)
        losses = [self.loss(theta, cast(_first(drawn[step]), theta.dtype)) for step in range(METRIC_BATCHES)]
        return {"loss": torch.stack(losses).mean()}

    @torch.no_grad()
    def metrics_of_each(self, theta: Tensor, split: str) -> dict[str, Tensor]:
        """`metrics` of B optimizees: [B] each, for theta of shape [B, P]."""
        each = [self.metrics(point, split) for point in theta]
        return {name: torch.stack([theta.new_tensor(float(one[name])) for one in each]) for name in each[0]}

    def fixed_batch(self, examples: int, split: str = "train", dtype: torch.dtype = torch.float64) -> Batch:
        """One optimizee's batch for probes, always the same: of `examples` examples where a member can choose."""
        return cast(_first(self.batches([METRIC_SEED], split).draw(1)[0]), dtype)

    def of(self, seeds: Sequence[int]) -> Task:
        """The task as the optimizees of these seeds see it, one row each.

        Where every optimizee has data of its own, as an episode: then row b of whatever is asked of it is that of
        seeds[b]. Others are the same for all: self.
        """
        return self

    def held_out(self, purpose: str) -> Task:
        """The task that held-out optimizees are trained on, for `purpose` "validation" or "test".

        Where optimizees have data of their own, of other classes. Others: self.
        """
        return self

    @property
    def is_episodic(self) -> bool:
        """Whether every optimizee has data of its own."""
        return self.of([METRIC_SEED]).rows is not None

    def query_inputs(self, dtype: torch.dtype) -> Tensor:
        """Inputs, [B, D, ...], of what each row of a bound task of episodes is judged on: without their labels.

        For learned optimizers that look at their task. Raises ArgumentError for tasks that have none.
        """
        raise refusal("task", "one of episodes, which have query sets", self.name)

    def controls(self) -> dict[str, dict[str, Tensor]]:
        """What methods that train nothing reach on the test split of a bound task: metrics, [B], by method."""
        return {}

    def tensors(self) -> list[Tensor]:
        """What its data lie in, as far as a member says: for plans of memory."""
        return []

    @property
    def parameters(self) -> int:
        """P, how many parameters an optimizee has."""
        return self.layout.size

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """What a transfer file says of the task; of one that a preset names, as it does."""
        return {"dataset": self.name, "optimizee": ""}

    @functools.cached_property
    def _start(self) -> Tensor:
        return self.init_theta(0)

    @functools.cached_property
    def device(self) -> torch.device:
        return self._start.device

    @functools.cached_property
    def dtype(self) -> torch.dtype:
        return self._start.dtype


class GeneratorStream:
    """A stream with a generator for each optimizee, so that what one gets depends on its own seed alone."""

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self._generators = [Generator(device).manual_seed(seed) for seed in seeds]

    def state(self) -> Tensor:
        """The generators' states: uint8 [B, n], on the CPU."""
        return torch.stack([generator.get_state() for generator in self._generators])

    def load_state(self, state: Tensor) -> None:
        """Put the generators where they were. Raises RunError where the state does not fit."""
        shape = [len(self._generators), *self._generators[0].get_state().shape]
        if state.dtype != torch.uint8 or list(state.shape) != shape:
            raise RunError(
                f"a stream's state has shape {list(state.shape)}, should be {shape}: "
                "it was saved with another device or number of optimizees"
            )
        for generator, row in zip(self._generators, state, strict=True):
            generator.set_state(row.cpu().clone())


class SampledStream(GeneratorStream):
    """A stream of whatever `sample(generator)` draws for one optimizee."""

    def __init__(
        self, sample: Callable[[Generator], Batch], seeds: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(seeds, device)
        self._sample = sample

    def draw(self, steps: int) -> list[Batch]:
        return [_stacked([self._sample(generator) for generator in self._generators]) for _ in range(steps)]


class TaskDistribution:
    """What the task of an optimizee is drawn from: augmentation, sampled widths, episodes. A member gives `sample`."""

    def sample(self, seed: int) -> Task:
        """A task; for one seed always the same. Optimizees with the same object are trained side by side."""
        raise NotImplementedError

    def held_out(self, count: int) -> list[tuple[Task, list[int]]]:
        """The tasks to evaluate on, and the numbers of the optimizees on each: here `count` tasks, one on each."""
        numbers: dict[Task, list[int]] = {}
        for number in range(count):
            numbers.setdefault(self.sample(held_out_seed(number)), []).append(number)
        return list(numbers.items())


class UniformTasks(TaskDistribution):
    """One of some tasks, each as likely as the others: the [[task]] tables of a preset.

    One of them may be a distribution, from which a task is drawn once its turn has come.
    """

    def __init__(self, tasks: Sequence[Task | TaskDistribution]) -> None:
        self.tasks = tuple(tasks)

    def sample(self, seed: int) -> Task:
        index = 0
        if len(self.tasks) > 1:
            index = int(torch.randint(len(self.tasks), (), generator=Generator().manual_seed(seed)))
        task = self.tasks[index]
        return task.sample(seeding.derive(seed, "draw")) if isinstance(task, TaskDistribution) else task

    def held_out(self, count: int) -> list[tuple[Task, list[int]]]:
        """Every task, with `count` optimizees on each; of a distribution `count` of its held-out tasks."""
        held_out: list[tuple[Task, list[int]]] = []
        for task in self.tasks:
            held_out += task.held_out(count) if isinstance(task, TaskDistribution) else [(task, list(range(count)))]
        return held_out


# -- tasks that follow the contract without the classes above ----------------------------------------------------------

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
        losses = vmap(task.loss)(torch.stack([theta, theta]), batch)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise refusal(
            f"loss of {task.name}", "a function of theta [P] that torch.func.vmap can take", reason
        ) from error
    if not isinstance(losses, Tensor) or losses.shape != (2,):
        raise refusal(f"loss of {task.name}", "a scalar", kind(losses[0] if isinstance(losses, Tensor) else losses))


def as_distribution(tasks: Any) -> TaskDistribution:
    """A task, several, or a distribution of them. Raises ArgumentError where it is none of these."""
    if isinstance(tasks, TaskDistribution):
        return tasks
    if hasattr(tasks, "sample") and not hasattr(tasks, "loss"):
        return _OutsideTasks(tasks)
    if isinstance(tasks, (list, tuple)) and tasks:
        return UniformTasks([as_task(task) for task in tasks])
    return UniformTasks([as_task(tasks)])


def cast(batch: Batch, dtype: torch.dtype) -> Batch:
    """A batch whose floating-point tensors have a dtype."""
    return tree_map(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, batch)


def _first(batch: Batch) -> Batch:
    return tree_map(lambda tensor: tensor[0], batch)


def _stacked(batches: Sequence[Batch]) -> Batch:
    """Batches of one optimizee each as one of all, with a leading [B]."""
    return tree_map(lambda *tensors: torch.stack(tensors), *batches)
