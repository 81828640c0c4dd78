"""The contract of a task: anything with flat parameters and a loss. Images, text, regression, a function of your own.

Shape letters: B optimizees, P parameters of one, T inner steps.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from engine.base import seeds as seeding
from engine.base.arguments import kind, refusal
from engine.base.draws import held_out_seed
from engine.base.errors import RunError
from engine.base.flat import Batch, row_of, tree_map
from engine.base.metrics import SPLITS, TASK_METRICS, Metric
from engine.base.settings import show

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
        try:
            shapes = {str(name): torch.Size(shape) for name, shape in dict(self.shapes).items()}
        except (TypeError, ValueError):
            raise refusal("layout", "shapes by name, as {'w': (3, 4), 'b': (4,)}", show(self.shapes)) from None
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
        losses = [self.loss(theta, cast(row_of(drawn[step], 0), theta.dtype)) for step in range(METRIC_BATCHES)]
        return {"loss": torch.stack(losses).mean()}

    @torch.no_grad()
    def metrics_of_each(self, theta: Tensor, split: str) -> dict[str, Tensor]:
        """`metrics` of B optimizees: [B] each, for theta of shape [B, P]."""
        each = [self.metrics(point, split) for point in theta]
        for metrics in each:
            if not isinstance(metrics, Mapping) or not metrics.keys() >= {metric.name for metric in self.measured}:
                names = ", ".join(metric.name for metric in self.measured)
                wrong = f"only {', '.join(map(str, metrics))}" if isinstance(metrics, Mapping) else kind(metrics)
                raise refusal(f"metrics of {self.name}", f"numbers by name, of {names}", wrong)
        return {name: torch.stack([theta.new_tensor(float(row[name])) for row in each]) for name in each[0]}

    def fixed_batch(self, examples: int, split: str = "train", dtype: torch.dtype = torch.float64) -> Batch:
        """One optimizee's batch for probes, always the same: of `examples` examples where a member can choose."""
        return cast(row_of(self.batches([METRIC_SEED], split).draw(1)[0], 0), dtype)

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
        of_each = ([self._sample(generator) for generator in self._generators] for _ in range(steps))
        return [tree_map(lambda *tensors: torch.stack(tensors), *batches) for batches in of_each]


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


def cast(batch: Batch, dtype: torch.dtype) -> Batch:
    """A batch whose floating-point tensors have a dtype."""
    return tree_map(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, batch)
