"""Tasks of examples: inputs and targets, a module that maps the ones to the others, a criterion.

Shape letters: B optimizees, P parameters of one, T inner steps, D examples in a batch, K dropout numbers per example.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from engine.base.arguments import checked, kind, refusal
from engine.base.errors import ArgumentError
from engine.base.flat import MicroBatches
from engine.base.settings import Setting
from engine.tasks.base import SPLITS, GeneratorStream, Layout, Metric, Task
from engine.tasks.criteria import Criterion, MeanCriterion, MeanLoss
from engine.tasks.optimizees.base import AS_GIVEN, Optimizee, check_module, reset_of, write_out_norms

SPLIT_SEED = 20240802  # the split never depends on a run's seed; never change it: results depend on it
EVALUATED_AT_ONCE = 1000  # examples
TOKENS_AT_ONCE = 8000  # of windows, whose outputs and activations are as many times larger
MEASURED_WINDOWS = 2048  # of a split, at most
NUMBERS = (  # among the arguments of a task
    Setting("batch_size", ("int",), 128, "", minimum=1),
    Setting("micro_batch", ("int",), 0, "", minimum=0),
    Setting("validation", ("float",), 0.1, "", above=0.0, maximum=0.9),
)


class ExampleBatch(NamedTuple):
    """Examples for one optimizee; for several at once every tensor has a leading [B]."""

    x: Tensor  # [D, ...]
    y: Tensor  # [D, ...]
    noise: Tensor  # [D, K], uniform in [0, 1); K = 0: evaluation mode

    def of(self, optimizee: int) -> ExampleBatch:
        """The batch of one of B optimizees."""
        return ExampleBatch(*(tensor[optimizee] for tensor in self))


@dataclass(frozen=True, eq=False)
class Examples:
    """A split: its examples are those of x and y at `order`, and nothing is copied for it.

    With a `window` of L, x and y are long rows, [N], of integers of any size, and an example is the L that begin at a
    place of `order`, consecutive numbers: windows are cut when they are used.
    """

    x: Tensor  # [N, ...]
    y: Tensor  # [N, ...]
    order: Tensor  # int64 [n]
    window: int = 0

    @functools.cached_property
    def measured(self) -> Tensor:
        """The examples that metrics of the whole split and probes go by: all, but of windows those that do not overlap,
        up to MEASURED_WINDOWS of them in an order that is always the same. int64 [m]."""
        if not self.window:
            return self.order
        apart = self.order[:: self.window]
        return apart[shuffled(len(apart)).to(apart.device)[:MEASURED_WINDOWS]]

    def at(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The examples that `indices`, [M], name: x and y, [M, ...]; of windows int64, [M, L]."""
        if not self.window:
            return self.x.index_select(0, indices), self.y.index_select(0, indices)
        places = indices[:, None] + torch.arange(self.window, device=indices.device)
        return self.x[places].long(), self.y[places].long()


class SupervisedTask(Task):
    """Examples, a module and a criterion. It holds the data, on the device, but no parameters."""

    recordable = True  # for `engine.base.replay`: the loss is a pure function
    convolves = False
    augmentation_size = 0  # uniform numbers that `inputs` takes for each training example

    def __init__(
        self,
        name: str,
        module: nn.Module,
        splits: Mapping[str, tuple[Tensor, Tensor]],
        loss: Criterion | MeanLoss,
        *,
        metrics: Mapping[Metric, MeanLoss] | None = None,
        batch_size: int = 128,
        micro_batch: int = 0,
        validation: float = 0.1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """A task of your own module, which maps inputs x, [D, ...], to outputs.

        `splits`: x and y of "train" and "test", and of "validation", else the part `validation` of the training
        examples is held out. `loss`: the mean loss of outputs and targets; `metrics` likewise. A fresh optimizee starts
        from the module's own initialisation, drawn anew by every layer's `reset_parameters`; parameters of a layer
        without one start as they are in the module. `micro_batch`: as in a [task] table. Raises ArgumentError, a
        ValueError, or PresetError for a module that is no pure function of its inputs and parameters.
        """
        if not isinstance(module, nn.Module):
            raise refusal("module", "a torch.nn.Module", kind(module))
        numbers = zip(NUMBERS, (batch_size, micro_batch, validation), strict=True)
        self.batch_size, micro_batch, validation = (checked(setting, value) for setting, value in numbers)
        self.name, self.device, self.dtype = name, torch.device(device), dtype
        self.criterion = loss if isinstance(loss, Criterion) else MeanCriterion(loss, metrics)
        self.optimizee = Optimizee()
        self.examples = _examples(splits, validation, self.device)
        self._take(_on_meta(module))  # its parameters always come from theta
        self._in_micro_batches(micro_batch)

    def _in_micro_batches(self, size: int) -> None:
        """Let the loss on a batch be the mean over micro-batches of so many examples; 0: as it is."""
        if size:
            self.loss = MicroBatches(self.loss, size)  # type: ignore[method-assign]

    def _take(self, module: nn.Module) -> None:
        """Note the parameters that the optimizee's module, on the meta device, takes from theta."""
        check_module(module)
        write_out_norms(module)
        self.module = module
        self.measured = self.criterion.measured
        parameters = list(module.parameters())
        first_names = {id(parameter): name for name, parameter in module.named_parameters()}
        shapes = {first_names[id(parameter)]: tuple(parameter.shape) for parameter in parameters}
        self.layout = Layout(shapes, {first_names[id(weight)]: fan_in for weight, fan_in in _fan_ins(module)})
        every_name = module.named_parameters(remove_duplicate=False)  # one that layers share has several
        self._names = [(name, first_names[id(parameter)]) for name, parameter in every_name]
        self.convolves = any(isinstance(layer, nn.modules.conv._ConvNd) for layer in module.modules())
        self._takes_noise = "noise" in inspect.signature(module.forward).parameters

    def init_theta(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return self.optimizee.init_theta(self.module, generator).to(self.device, self.dtype)

    def outputs(self, theta: Tensor, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """The optimizee's outputs, [D, ...], for theta, [P], and x, [D, ...]."""
        parts = self.layout.split(theta)
        parameters = {name: parts[first] for name, first in self._names}
        inputs = (x, noise) if self._takes_noise else (x,)
        # every name is there, and looking for shared ones again costs as much as a small network
        return functional_call(self.module, parameters, inputs, tie_weights=False)

    def loss(self, theta: Tensor, batch: ExampleBatch) -> Tensor:
        """The criterion's mean loss, computed in theta's dtype."""
        x, y, noise = (_as(tensor, theta.dtype) for tensor in batch)
        return self.criterion.loss(self.outputs(theta, x, noise), self.targets(x, y))

    def targets(self, x: Tensor, y: Tensor) -> Tensor:
        """What outputs are compared with: y, [D, ...], or the inputs x where the optimizee learns these."""
        return y if self.optimizee.criterion is None else x

    def batches(self, seeds: Sequence[int], split: str = "train") -> ExampleStream:
        return ExampleStream(self, seeds, split)

    def metrics(self, theta: Tensor, split: str) -> dict[str, Tensor]:
        return {name: values[0] for name, values in self.metrics_of_each(theta[None], split).items()}

    @torch.no_grad()
    def metrics_of_each(self, theta: Tensor, split: str) -> dict[str, Tensor]:
        """Over a whole split, in evaluation mode: [B] each, for theta of shape [B, P]."""
        outputs_of_all = vmap(self.outputs, in_dims=(0, None))
        examples = self.examples[split]
        order = examples.measured
        at_once = max(1, TOKENS_AT_ONCE // examples.window) if examples.window else EVALUATED_AT_ONCE
        sums: dict[str, Tensor] = {}
        for indices in order.tensor_split(math.ceil(len(order) / at_once)):  # equal: batch norm needs it
            x, y = self.gather(split, indices, theta.dtype)
            outputs = outputs_of_all(theta, x)  # [B, D, ...]
            targets = self.targets(x, y)
            targets = targets.expand(len(theta), *targets.shape)
            for name, scores in self.criterion.scores(outputs.flatten(0, 1), targets.flatten(0, 1)).items():
                total = scores.view(len(theta), -1).sum(1, dtype=torch.float64)
                sums[name] = sums[name] + total if name in sums else total
        means = {name: total / len(order) for name, total in sums.items()}
        return {name: value.to(theta.dtype) for name, value in self.criterion.summary(means).items()}

    def fixed_batch(self, examples: int, split: str = "train", dtype: torch.dtype = torch.float64) -> ExampleBatch:
        """The first examples of a split's `measured`, or all where it has fewer, in evaluation mode: for probes."""
        x, y = self.gather(split, self.examples[split].measured[:examples], dtype)
        return ExampleBatch(x, y, torch.empty(len(x), 0, dtype=dtype, device=self.device))

    def gather(
        self, split: str, indices: Tensor, dtype: torch.dtype, augmentation: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Inputs and targets, [M, ...] each, of the examples at `indices`, [M]."""
        x, y = self.examples[split].at(indices)
        return self.inputs(x, dtype, augmentation), _as(y, dtype)

    def inputs(self, x: Tensor, dtype: torch.dtype, augmentation: Tensor | None) -> Tensor:
        """What the module is shown of examples x, [M, ...], as they are stored."""
        return _as(x, dtype)

    def tensors(self) -> list[Tensor]:
        return [tensor for split in self.examples.values() for tensor in (split.x, split.y, split.order)]

    def size(self, split: str) -> int:
        """How many examples a split has."""
        return len(self.examples[split].order)


class ExampleStream(GeneratorStream):
    """Random batches for B optimizees.

    Training batches are augmented and come with dropout noise where the task says so; those of other splits never.
    """

    def __init__(self, task: SupervisedTask, seeds: Sequence[int], split: str) -> None:
        super().__init__(seeds, task.device)
        self._task, self._split = task, split
        training = split == "train"
        self._augmentation_size = task.augmentation_size if training else 0
        self._noise_size = task.optimizee.noise_size if training else 0

    def draw(self, steps: int) -> ExampleBatches:
        """Draw the batches of the next inner steps. (On the CPU drawing 20 and 20 equals drawing 40.)"""
        task, order = self._task, self._task.examples[self._split].order
        width = 1 + self._augmentation_size + self._noise_size
        shape = (steps, task.batch_size, width)
        numbers = torch.stack(  # [T, B, D, width]; float64 so that every example is equally likely
            [torch.rand(shape, generator=g, device=task.device, dtype=torch.float64) for g in self._generators], dim=1
        )
        indices = order[(numbers[..., 0] * len(order)).long()]
        augmentation, noise = numbers[..., 1:].split([self._augmentation_size, self._noise_size], dim=-1)
        return ExampleBatches(task, self._split, indices, augmentation, noise.to(task.dtype))


class ExampleBatches:
    """The batches of some inner steps. `batches[j]` makes those of step j: x [B, D, ...], y [B, D, ...], noise."""

    def __init__(self, task: SupervisedTask, split: str, indices: Tensor, augmentation: Tensor, noise: Tensor) -> None:
        self._task = task
        self._split = split
        self.indices = indices  # [T, B, D], into the examples
        self._augmentation = augmentation  # [T, B, D, A]
        self._noise = noise  # [T, B, D, K]

    def __len__(self) -> int:
        return len(self.indices)

    def numbers(self) -> tuple[Tensor, Tensor, Tensor]:
        """All that the batches of one truncation and another differ in."""
        return self.indices, self._augmentation, self._noise

    def with_numbers(self, indices: Tensor, augmentation: Tensor, noise: Tensor) -> ExampleBatches:
        """Batches of the same stream with other numbers."""
        return ExampleBatches(self._task, self._split, indices, augmentation, noise)

    def __getitem__(self, step: int) -> ExampleBatch:
        indices = self.indices[step]
        numbers = self._augmentation[step].flatten(0, 1)
        x, y = self._task.gather(self._split, indices.flatten(), self._task.dtype, numbers)
        return ExampleBatch(
            x.view(*indices.shape, *x.shape[1:]), y.view(*indices.shape, *y.shape[1:]), self._noise[step]
        )


def _on_meta(module: nn.Module) -> nn.Module:
    """A copy with its parameters on the meta device; `module.to("meta")` would untie those that layers share."""
    on_meta = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in module.parameters()}
    moved = copy.deepcopy(module, on_meta).to("meta")  # what is left to move are buffers
    for layer, original in zip(moved.modules(), module.modules(), strict=True):
        if reset_of(original) is None:
            parameters = original.named_parameters(recurse=False)
            setattr(layer, AS_GIVEN, {key: p.detach().to("cpu", copy=True) for key, p in parameters if not p.is_meta})
    return moved


@contextlib.contextmanager
def fitting_inputs(refusal: Callable[[str], Exception]) -> Iterator[None]:
    """Raise what `refusal` makes of the reason where a module does not take the inputs that it is tried with."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # layers without parameters: where inputs do not pass, an error says so
            yield
    except (RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise refusal((str(error).splitlines() or [""])[0]) from error


def _fan_ins(module: nn.Module) -> Iterator[tuple[Tensor, int | None]]:
    """The weights whose fan-in their shape does not say. An embedding that an output layer shares is a matrix."""
    multiplied: set[int] = set()
    embedded: list[Tensor] = []
    for layer in module.modules():
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, nn.Parameter):
            continue
        if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
            embedded.append(weight)
        else:
            multiplied.add(id(weight))
        if isinstance(layer, nn.modules.conv._ConvTransposeNd):  # [in, out, *kernel]
            yield weight, len(weight) * math.prod(weight.shape[2:])
    for weight in embedded:
        yield weight, math.prod(weight.shape[1:]) if id(weight) in multiplied else None


def shuffled(examples: int) -> Tensor:
    """The order of a training set that validation examples are the end of: int64 [N]."""
    return torch.randperm(examples, generator=torch.Generator().manual_seed(SPLIT_SEED))


def _examples(
    splits: Mapping[str, tuple[Tensor, Tensor]], validation: float, device: torch.device
) -> dict[str, Examples]:
    """The splits, by name, on the device. Raises ArgumentError."""
    if not isinstance(splits, Mapping) or not {"train", "test"} <= splits.keys() <= set(SPLITS):
        found = ", ".join(map(repr, splits)) or "none" if isinstance(splits, Mapping) else kind(splits)
        raise refusal("splits", "x and y of 'train', 'test' and maybe 'validation'", found)
    moved = {}
    for split, pair in splits.items():
        try:
            x, y = map(torch.as_tensor, pair)
            both = len(x), len(y)
        except (RuntimeError, TypeError, ValueError) as error:
            raise refusal(f"splits[{split!r}]", "x and y, tensors with a row for each example", kind(pair)) from error
        if both[0] != both[1] or not both[0]:
            raise ArgumentError(f"splits[{split!r}] must be as many x as y, one or more; found {both[0]} and {both[1]}")
        moved[split] = Examples(x.to(device), y.to(device), torch.arange(len(x), device=device))
    if "validation" not in moved:
        train = moved["train"]
        held_out = min(max(1, round(validation * len(train.x))), len(train.x) - 1)
        if not held_out:
            raise ArgumentError("splits['train'] must be two or more examples, one of them to validate with")
        order = shuffled(len(train.x)).to(device)
        training, held = order.tensor_split([len(order) - held_out])
        moved |= {"train": Examples(train.x, train.y, training), "validation": Examples(train.x, train.y, held)}
    return moved


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() and tensor.dtype != dtype else tensor
