"""Task: a dataset, an optimizee and a batch size, as batches and a loss function of flat parameters.

Shape letters: B optimizees, P parameters of one, T inner steps, D examples in a batch, K dropout numbers per example.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn import functional as F

from engine.base.errors import PresetError, Problem, RunError
from engine.base.settings import check_table, schema_of, setting, show
from engine.tasks.datasets.base import DATASETS, Dataset, RawData
from engine.tasks.datasets.folder import data_folder
from engine.tasks.optimizees.base import OPTIMIZEES, Optimizee, check_module, write_out_norms

SPLITS = ("train", "validation", "test")
SPLIT_SEED = 20240802  # the split never depends on a run's seed; never change it: results depend on it


@dataclass(frozen=True)
class TaskSettings:
    """The [task] table; a dataset's and an optimizee's own settings stand beside these."""

    dataset: str = setting("digits", help="what the optimizee learns")
    optimizee: str = setting("mlp", help="network that is trained by the learned optimizer")
    batch_size: int = setting(128, minimum=1, maximum=1_000_000, help="examples in a batch, drawn with replacement")
    validation: float = setting(0.1, above=0.0, maximum=0.9, help="part of the training set that is held out")
    classes: tuple[int, ...] = setting(
        (), minimum=0, allow_empty=True, help="classes to use, numbered 0, 1, ... in this order; []: all"
    )


class Batch(NamedTuple):
    """Examples for one optimizee; for several at once every tensor has a leading [B]."""

    x: Tensor  # [D, C, H, W], normalised
    y: Tensor  # [D], int64
    noise: Tensor  # [D, K], uniform in [0, 1); K = 0: evaluation mode

    def of(self, optimizee: int) -> Batch:
        """The batch of one of B optimizees."""
        return Batch(self.x[optimizee], self.y[optimizee], self.noise[optimizee])


class Task:
    """One task. It holds the data, on the device, and the shape of the optimizee, but no parameters."""

    def __init__(
        self,
        values: Mapping[str, Any],
        *,
        data_dir: Path | None = None,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Load the data of a resolved [task] table (keys left out get their defaults).

        Raises PresetError where the settings do not fit, DataError where the data is missing or damaged.
        """
        self.values = resolve(values)
        self.device = torch.device(device)
        self.dtype = dtype
        self.batch_size: int = self.values["batch_size"]
        dataset_class, optimizee_class = DATASETS[self.values["dataset"]], OPTIMIZEES[self.values["optimizee"]]
        dataset = dataset_class(**_own(self.values, dataset_class))
        data = _load(dataset, data_folder(data_dir), self.device)
        self.dataset = dataset.described_by(data)
        self.optimizee = optimizee_class(**_own(self.values, optimizee_class))
        kept = _kept_classes(self.values["classes"], self.dataset)
        self.classes = len(kept)
        self.input_shape = self.dataset.input_shape

        self._examples = {
            split: _Examples(images, _renumbered(labels, kept), order)
            for split, images, labels, order in _split(data, kept, self.values["validation"])
        }
        self._build()

    def _build(self) -> None:
        """Make the optimizee's module, and note the parameters that it takes from theta."""
        with self._fitting_inputs(), torch.device("meta"):  # a shape: its parameters always come from theta
            self.module = self.optimizee.build(self.input_shape, self.classes)
        check_module(self.module)
        write_out_norms(self.module)
        parameters = list(self.module.parameters())
        self._shapes = [parameter.shape for parameter in parameters]
        self._sizes = [shape.numel() for shape in self._shapes]
        order = {id(parameter): index for index, parameter in enumerate(parameters)}
        every_name = self.module.named_parameters(remove_duplicate=False)  # one that layers share has several
        self._names = [(name, order[id(parameter)]) for name, parameter in every_name]
        with self._fitting_inputs(), torch.device("meta"):
            self.logits(torch.empty(self.parameters), torch.empty(2, *self.input_shape))

    @contextlib.contextmanager
    def _fitting_inputs(self) -> Iterator[None]:
        """Raise PresetError where the optimizee takes no inputs of the dataset's shape."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # layers without parameters: where inputs do not pass, an error says so
                yield
        except (RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
            reason = (str(error).splitlines() or [""])[0]
            shape = "x".join(map(str, self.input_shape))
            allowed = f"an optimizee for inputs of {shape} (channels x height x width)"
            raise PresetError([Problem("task.optimizee", show(self.values["optimizee"]), allowed, reason)]) from error

    @property
    def name(self) -> str:
        return f"{self.values['dataset']}/{self.values['optimizee']}"

    @property
    def facts(self) -> dict[str, Any]:
        """What a transfer file says of the task: its dataset, optimizee and batch size, and what is not the default."""
        return facts_of(self.values)

    @property
    def parameters(self) -> int:
        """P, how many parameters the optimizee has."""
        return sum(self._sizes)

    def size(self, split: str) -> int:
        """How many examples a split has."""
        return len(self._examples[split].order)

    def init_theta(self, seed: int) -> Tensor:
        """Draw initial parameters, shape [P]: for one seed the same numbers on every device."""
        generator = torch.Generator().manual_seed(seed)
        return self.optimizee.init_theta(self.module, generator).to(self.device, self.dtype)

    def logits(self, theta: Tensor, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """The optimizee's outputs, shape [D, classes], for theta, shape [P], and x, shape [D, C, H, W]."""
        pieces = [piece.view(shape) for piece, shape in zip(theta.split(self._sizes), self._shapes, strict=True)]
        parameters = {name: pieces[index] for name, index in self._names}
        # every name is there, and looking for shared ones again costs as much as a small network
        return functional_call(self.module, parameters, (x, noise), tie_weights=False)

    def loss(self, theta: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy, a scalar, of theta, shape [P], on one optimizee's batch.

        A pure function: compose it with torch.func at will. It computes in theta's dtype.
        """
        x, noise = batch.x, batch.noise
        if x.dtype != theta.dtype:
            x, noise = x.to(theta.dtype), noise.to(theta.dtype)
        return F.cross_entropy(self.logits(theta, x, noise), batch.y)

    def stream(self, seeds: Sequence[int], split: str = "train") -> Stream:
        """Random batches for one optimizee per seed."""
        return Stream(self, seeds, split)

    @torch.no_grad()
    def evaluate(self, theta: Tensor, split: str, chunk: int = 1000) -> tuple[Tensor, Tensor]:
        """Mean loss and accuracy, each of shape [B], of theta, shape [B, P], over a whole split in evaluation mode."""
        logits_of_all = vmap(self.logits, in_dims=(0, None))
        loss = torch.zeros(len(theta), dtype=torch.float64, device=self.device)
        correct = torch.zeros(len(theta), dtype=torch.int64, device=self.device)
        order = self._examples[split].order
        for indices in order.tensor_split(math.ceil(len(order) / chunk)):  # equal chunks: batch norm needs it
            x, y = self._examples[split].gather(indices, self.dataset, theta.dtype)
            logits = logits_of_all(theta, x)  # [B, D, classes]
            targets = y.expand(len(theta), -1)
            losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
            loss += losses.sum(1, dtype=torch.float64)
            correct += (logits.argmax(-1) == targets).sum(1)
        return (loss / len(order)).to(theta.dtype), (correct / len(order)).to(theta.dtype)

    def fixed_batch(self, examples: int, split: str = "train", dtype: torch.dtype = torch.float64) -> Batch:
        """The first examples of a split, or all where it has fewer, in evaluation mode: for probes."""
        indices = self._examples[split].order[:examples]
        x, y = self._examples[split].gather(indices, self.dataset, dtype)
        return Batch(x, y, x.new_empty(len(x), 0))


class Stream:
    """Random batches for B optimizees, with a generator each: what one gets depends on its own seed alone.

    Training batches are augmented and come with dropout noise where the task says so; those of other splits never.
    """

    def __init__(self, task: Task, seeds: Sequence[int], split: str) -> None:
        self._task = task
        self._examples = task._examples[split]
        self._generators = [torch.Generator(task.device).manual_seed(seed) for seed in seeds]
        training = split == "train"
        self._augmentation_size = task.dataset.augmentation_size if training else 0
        self._noise_size = task.optimizee.noise_size if training else 0

    def draw(self, steps: int) -> Batches:
        """Draw the batches of the next inner steps. (On the CPU drawing 20 and 20 equals drawing 40.)"""
        task, order = self._task, self._examples.order
        width = 1 + self._augmentation_size + self._noise_size
        shape = (steps, task.batch_size, width)
        numbers = torch.stack(  # [T, B, D, width]; float64 so that every example is equally likely
            [torch.rand(shape, generator=g, device=task.device, dtype=torch.float64) for g in self._generators], dim=1
        )
        indices = order[(numbers[..., 0] * len(order)).long()]
        augmentation, noise = numbers[..., 1:].split([self._augmentation_size, self._noise_size], dim=-1)
        return Batches(task, self._examples, indices, augmentation, noise.to(task.dtype))

    def state(self) -> Tensor:
        """The generators' states: uint8 [B, n], on the CPU."""
        return torch.stack([generator.get_state() for generator in self._generators])

    def load_state(self, state: Tensor) -> None:
        """Continue exactly where the stream was that gave this state."""
        expected = self.state().shape
        if state.dtype != torch.uint8 or state.shape != expected:
            raise RunError(
                f"a stream's state has shape {list(state.shape)}, should be {list(expected)}: "
                "it was saved with another device or number of optimizees"
            )
        for generator, row in zip(self._generators, state, strict=True):
            generator.set_state(row.cpu().clone())


class Batches:
    """The batches of some inner steps. `window[j]` makes those of step j: x [B, D, C, H, W], y [B, D], noise."""

    def __init__(self, task: Task, examples: _Examples, indices: Tensor, augmentation: Tensor, noise: Tensor) -> None:
        self._task = task
        self._examples = examples
        self.indices = indices  # [T, B, D], into the dataset's images
        self._augmentation = augmentation  # [T, B, D, A]
        self._noise = noise  # [T, B, D, K]

    def __len__(self) -> int:
        return len(self.indices)

    def numbers(self) -> tuple[Tensor, Tensor, Tensor]:
        """All that one window of a stream and another differ in."""
        return self.indices, self._augmentation, self._noise

    def with_numbers(self, indices: Tensor, augmentation: Tensor, noise: Tensor) -> Batches:
        """The window of the same stream with other numbers."""
        return Batches(self._task, self._examples, indices, augmentation, noise)

    def __getitem__(self, step: int) -> Batch:
        indices = self.indices[step]
        numbers = self._augmentation[step].flatten(0, 1)
        x, y = self._examples.gather(indices.flatten(), self._task.dataset, self._task.dtype, numbers)
        return Batch(x.view(*indices.shape, *x.shape[1:]), y.view(indices.shape), self._noise[step])


@dataclass(frozen=True, eq=False)
class _Examples:
    """A split: its examples are `images[order]`, and nothing is copied for it."""

    images: Tensor  # uint8 or float32 [N, C, H, W]
    labels: Tensor  # int64 [N], renumbered; -1 for classes that are not used
    order: Tensor  # int64 [n]

    def gather(
        self, indices: Tensor, dataset: Dataset, dtype: torch.dtype, augmentation: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Inputs [M, C, H, W] and labels [M] of the examples at `indices`, shape [M]."""
        images = self.images.index_select(0, indices)
        if augmentation is not None and augmentation.shape[-1]:
            images = dataset.augmented(images, augmentation)
        return dataset.to_input(images, dtype), self.labels.index_select(0, indices)


def resolve(values: Mapping[str, Any]) -> dict[str, Any]:
    """Check a [task] table against its own schema and its dataset's and optimizee's; fill in the defaults."""
    schema = {item.name: item for item in schema_of(TaskSettings)}
    for key, registry in (("dataset", DATASETS), ("optimizee", OPTIMIZEES)):
        members = registry.schemas()
        schema[key] = dataclasses.replace(schema[key], choices=tuple(members))
        schema.update((item.name, item) for item in members.get(values.get(key, schema[key].default), ()))
    resolved, problems = check_table(values, schema.values(), "task")
    if problems:
        raise PresetError(problems)
    return resolved


def facts_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The dataset, optimizee and batch size of a resolved [task] table, and its other keys that are not the default."""
    always = ("dataset", "optimizee", "batch_size")
    usual = resolve({key: values[key] for key in always})
    return {key: value for key, value in values.items() if key in always or value != usual[key]}


def _own(values: Mapping[str, Any], cls: type[Dataset] | type[Optimizee]) -> dict[str, Any]:
    return {item.name: values[item.name] for item in schema_of(cls)}


_in_memory: dict[tuple[object, ...], RawData] = {}


def _load(dataset: Dataset, folder: Path, device: torch.device) -> RawData:
    """A dataset in memory, once per process."""
    key = (dataset.name, dataset.source, folder, device)
    if key not in _in_memory:
        _in_memory[key] = dataset.read(folder).to(device)
    return _in_memory[key]


def _kept_classes(classes: Sequence[int], dataset: Dataset) -> tuple[int, ...]:
    if not classes:
        return tuple(range(dataset.classes))
    if len(set(classes)) < max(2, len(classes)) or max(classes) >= dataset.classes:
        allowed = f"two or more different classes of {dataset.name}, 0 to {dataset.classes - 1}; [] for all"
        raise PresetError([Problem("task.classes", show(classes), allowed)])
    return tuple(classes)


def _renumbered(labels: Tensor, kept: Sequence[int]) -> Tensor:
    """Labels 0..k-1 in the order of `kept`; -1 for the rest. Shape [N]."""
    new = torch.full((max(int(labels.max()), *kept) + 1,), -1, device=labels.device)
    new[torch.tensor(kept, device=labels.device)] = torch.arange(len(kept), device=labels.device)
    return new[labels]


def _split(data: RawData, kept: Sequence[int], validation: float) -> list[tuple[str, Tensor, Tensor, Tensor]]:
    """Name, images, labels and the indices of each split, in an order that nothing but the dataset decides.

    Validation is the end of the training set's order, so the first training examples are the same for any part.
    """
    chosen = torch.tensor(kept, device=data.train_labels.device)
    shuffled = torch.randperm(len(data.train_labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    order = shuffled.to(chosen.device)
    order = order[torch.isin(data.train_labels[order], chosen)]
    test_order = torch.isin(data.test_labels, chosen).nonzero().flatten()
    held_out = round(validation * len(order))
    train_order, validation_order = order.tensor_split([len(order) - held_out])
    for split, part in zip(SPLITS, (train_order, validation_order, test_order), strict=True):
        if not len(part):
            found = f"no {split} examples (validation = {validation:g} of {len(order)} training examples)"
            raise PresetError([Problem("task.validation", found, "a part that leaves examples in every split")])
    return [
        ("train", data.train_images, data.train_labels, train_order),
        ("validation", data.train_images, data.train_labels, validation_order),
        ("test", data.test_images, data.test_labels, test_order),
    ]
