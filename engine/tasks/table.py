"""The [task] table of a preset: a dataset, an optimizee and a batch size; and the task that it describes."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from engine.base.draws import Choices, Range, draw, is_drawn
from engine.base.errors import PresetError, Problem
from engine.base.settings import Setting, check_table, schema_of, setting, show
from engine.tasks.base import SPLITS, Task, TaskDistribution
from engine.tasks.datasets.base import DATASETS, Dataset, RawData, once_in_memory
from engine.tasks.datasets.folder import data_folder
from engine.tasks.optimizees.base import FORMS, OPTIMIZEES, Optimizee
from engine.tasks.outside import as_task
from engine.tasks.supervised import Examples, SupervisedTask, fitting_inputs, shuffled

TRIED_ON_CPU = 1_000_000  # parameters up to which a network is tried with numbers, beyond with shapes alone
TASKS_KEPT = 64  # draws that stay built
SPLITS_KEPT = 16


@dataclass(frozen=True)
class TaskSettings:
    """The [task] table; a dataset's and an optimizee's own settings stand beside these."""

    dataset: str = setting("digits", help="what the optimizee learns")
    optimizee: str = setting("mlp", help="network that is trained by the learned optimizer")
    batch_size: int = setting(128, minimum=1, maximum=1_000_000, help="examples in a batch, drawn with replacement")
    micro_batch: int = setting(
        0,
        minimum=0,
        maximum=1_000_000,
        help="examples whose forward and backward pass is in memory at once: a batch's gradient is the mean over such "
        "parts, the same unless the network normalises over its batch (as resnet18), which then sees a part; 0: all",
    )
    validation: float = setting(0.1, above=0.0, maximum=0.9, help="part of the training set that is held out")
    classes: tuple[int, ...] = setting(
        (), minimum=0, allow_empty=True, help="classes to use, numbered 0, 1, ... in this order; []: all"
    )


class DatasetTask(SupervisedTask):
    """A dataset's examples and a network, as a preset names them."""

    def __init__(
        self,
        values: Mapping[str, Any],
        dataset: Dataset,
        optimizee: Optimizee,
        data: Any,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """`values`: a resolved [task] table. Raises PresetError where its settings do not fit the data."""
        self.values, self.dataset, self.optimizee = values, dataset, optimizee
        self.device, self.dtype = device, dtype
        self.name = f"{values['dataset']}/{values['optimizee']}"
        self.criterion = optimizee.criterion or dataset.criterion
        self.check_form()
        self.take_data(data)

    def take_data(self, data: RawData) -> None:
        """Note the splits, and make the optimizee's module for them."""
        self.batch_size, self.augmentation_size = self.values["batch_size"], self.dataset.augmentation_size
        classes = _kept_classes(self.values["classes"], self.dataset)
        self.examples = dict(_split(data, classes, self.values["validation"], self.dataset.window))
        self.build(self.dataset.input_shape, len(classes) or self.dataset.outputs)
        self._in_micro_batches(self.values["micro_batch"])

    def check_form(self) -> None:
        """Raise PresetError where the optimizee is for something else than the dataset has."""
        form = self.dataset.form
        if self.optimizee.form not in ("", form):
            fitting = [name for name in OPTIMIZEES.names() if OPTIMIZEES[name].form in ("", form)]
            reason = f"{self.values['dataset']} has {FORMS[form]}"
            raise PresetError([Problem("task.optimizee", show(self.values["optimizee"]), ", ".join(fitting), reason)])

    def build(self, input_shape: tuple[int, ...], outputs: int) -> None:
        """Make the optimizee's module, and try it. Raises PresetError where it takes no such inputs."""
        with fitting_inputs(lambda reason: self._misfit(input_shape, reason)), torch.device("meta"):
            module = self._network(input_shape, outputs)  # a shape: its parameters always come from theta
        self._take(module)
        x = self._example_inputs(input_shape)
        # on meta a linear layer would take integers, and in a process its first one costs a second of imports
        tried_on = "meta" if x.is_floating_point() and self.parameters > TRIED_ON_CPU else "cpu"
        with fitting_inputs(lambda reason: self._misfit(input_shape, reason)), torch.device(tried_on):
            self.outputs(torch.zeros(self.parameters, dtype=self.dtype), x.to(tried_on))

    def _network(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        build: Callable[..., nn.Module] = self.optimizee.build
        if "vocabulary" in inspect.signature(build).parameters:
            return build(input_shape, outputs, self.dataset.vocabulary)
        return build(input_shape, outputs)

    def _example_inputs(self, input_shape: tuple[int, ...]) -> Tensor:
        """Inputs of two examples, for a look at what the optimizee takes."""
        stored = self.examples["train"].x.dtype
        return self.inputs(torch.zeros(2, *input_shape, dtype=stored), self.dtype, None)

    def _misfit(self, input_shape: tuple[int, ...], reason: str) -> PresetError:
        shape = "x".join(map(str, input_shape))
        form = " (channels x height x width)" if len(input_shape) == 3 else ""
        allowed = f"an optimizee for inputs of {shape}{form}"
        return PresetError([Problem("task.optimizee", show(self.values["optimizee"]), allowed, reason)])

    def inputs(self, x: Tensor, dtype: torch.dtype, augmentation: Tensor | None) -> Tensor:
        if augmentation is not None and augmentation.shape[-1]:
            x = self.dataset.augmented(x, augmentation)
        return self.dataset.to_input(x, dtype)


def build_parts(values: Mapping[str, Any]) -> tuple[Dataset, Optimizee, dict[str, Any]]:
    """The dataset and the optimizee that a [task] table picks, and the table with its defaults. Raises PresetError."""
    resolved = resolve(values)
    dataset, optimizee = DATASETS[resolved["dataset"]], OPTIMIZEES[resolved["optimizee"]]
    parts = dataset(**_settings_of(resolved, dataset)), optimizee(**_settings_of(resolved, optimizee))
    return *parts, resolved


def build_task(
    values: Mapping[str, Any],
    *,
    data_dir: Path | None = None,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Task:
    """Load the data of a [task] table (keys left out get their defaults), on the device.

    Raises PresetError where the settings do not fit, DataError where the data is missing or damaged.
    """
    device = torch.device(device)
    dataset, optimizee, values = build_parts(values)
    folder = data_folder(data_dir)
    task = dataset.make_task(folder, values, optimizee, device, dtype)
    if task is not None and values["micro_batch"]:
        allowed = f"0: {dataset.name} makes tasks of its own"
        raise PresetError([Problem("task.micro_batch", show(values["micro_batch"]), allowed)])
    if task is None:
        key = (dataset.name, dataset.source, folder, device)
        data = once_in_memory(key, lambda: dataset.read(folder).to(device))
        task = DatasetTask(values, dataset.described_by(data), optimizee, data, device, dtype)
    task = as_task(task)
    task.facts = facts_of(values)
    return task


class DrawnTasks(TaskDistribution):
    """A [task] table with ranges and choices, as `drawable` has checked it: one draw for each optimizee.

    Equal draws are one task, as long as one of them is used; the last ones stay built.
    """

    def __init__(self, values: Mapping[str, Any], build: Callable[[Mapping[str, Any]], Task]) -> None:
        self.values, self._build = values, build
        self._families = _families()
        self._in_use: WeakValueDictionary[frozenset[tuple[str, Any]], Task] = WeakValueDictionary()
        self._latest: deque[Task] = deque(maxlen=TASKS_KEPT)

    def sample(self, seed: int) -> Task:
        drawn = draw(self.values, seed, self._families)
        key = frozenset(drawn.items())
        task = self._in_use.get(key) or self._build(drawn)
        self._in_use[key] = task
        self._latest.append(task)
        return task


def build_tasks(
    values: Mapping[str, Any],
    *,
    data_dir: Path | None = None,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Task | TaskDistribution:
    """The task of a checked [task] table, or the distribution that it draws from. Raises as `build_task` does."""
    build = functools.partial(build_task, data_dir=data_dir, device=device, dtype=dtype)
    return DrawnTasks(values, build) if is_drawn(values) else build(values)


def check_tasks(
    values: Mapping[str, Any],
    *,
    data_dir: Path | None = None,
    device: torch.device,
    check: Callable[[Task], None] = lambda task: None,
) -> None:
    """Build the task of a checked [task] table; where it draws, every choice and both ends of every range once.

    Every data set is tried with every optimizee. `check` may raise, too. Raises as `build_task` does.
    """
    for table in extremes(values):
        check(build_task(table, data_dir=data_dir, device=device))


def extremes(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Checked [task] tables without draws: of one that draws every choice, and both ends of every range, once."""
    drawn = {key: value for key, value in values.items() if isinstance(value, (Range, Choices))}
    picks = [drawn.pop(key, (values[key],)) for key in ("dataset", "optimizee")]
    families = _families()
    for dataset, optimizee in itertools.product(*picks):
        for turn in range(max(map(len, drawn.values()), default=1)):
            fixed = {key: value.at(turn % len(value) / (len(value) - 0.999)) for key, value in drawn.items()}
            yield draw({**values, **fixed, "dataset": dataset, "optimizee": optimizee}, 0, families)


def _families() -> dict[str, dict[str, tuple[Setting, ...]]]:
    return {"dataset": DATASETS.schemas(), "optimizee": OPTIMIZEES.schemas()}


def resolve(values: Mapping[str, Any]) -> dict[str, Any]:
    """Check a [task] table against its own schema and its dataset's and optimizee's; fill in the defaults."""
    schema = {item.name: item for item in schema_of(TaskSettings)}
    for key, registry in (("dataset", DATASETS), ("optimizee", OPTIMIZEES)):
        members = registry.schemas()
        schema[key] = dataclasses.replace(schema[key], choices=tuple(members))
        schema.update((item.name, item) for item in members.get(values.get(key, schema[key].default), ()))
    resolved, problems = check_table(values, schema.values(), "task")
    if not problems:
        usual = {item.name: item.default for item in schema_of(TaskSettings)}
        problems = [
            Problem(f"task.{key}", show(resolved[key]), f"{show(usual[key])}, as it says nothing to {dataset.name}")
            for dataset in [DATASETS[resolved["dataset"]]]
            for key in dataset.unused_settings
            if resolved[key] != usual[key]
        ]
    if problems:
        raise PresetError(problems)
    return resolved


def facts_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The dataset, optimizee and batch size of a resolved [task] table, and its other keys that are not the default."""
    always = ("dataset", "optimizee", "batch_size")
    usual = resolve({key: values[key] for key in always})
    return {key: value for key, value in values.items() if key in always or value != usual[key]}


def _settings_of(values: Mapping[str, Any], cls: type[Dataset] | type[Optimizee]) -> dict[str, Any]:
    return {item.name: values[item.name] for item in schema_of(cls)}


def _kept_classes(classes: Sequence[int], dataset: Dataset) -> tuple[int, ...]:
    """The classes to use; none where the targets are no classes."""
    if not classes:
        return tuple(range(dataset.classes))
    if not dataset.classes:
        raise PresetError([Problem("task.classes", show(classes), f"[], as {dataset.name} has no classes here")])
    if len(set(classes)) < max(2, len(classes)) or max(classes) >= dataset.classes:
        allowed = f"two or more different classes of {dataset.name}, 0 to {dataset.classes - 1}; [] for all"
        raise PresetError([Problem("task.classes", show(classes), allowed)])
    return tuple(classes)


def _renumbered(labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Labels 0..k-1 in the order of `classes`; -1 for the rest. Shape [N]."""
    new = torch.full((max(int(labels.max()), *classes) + 1,), -1, device=labels.device)
    new[torch.tensor(classes, device=labels.device)] = torch.arange(len(classes), device=labels.device)
    return new[labels]


@functools.lru_cache(SPLITS_KEPT)
def _split(data: RawData, classes: Sequence[int], validation: float, window: int) -> dict[str, Examples]:
    """The splits, in an order that nothing but the dataset decides. Raises PresetError where one is empty."""
    splits = _windows(data, validation, window) if window else _parts(data, classes, validation)
    for split in SPLITS:
        if not len(splits[split].order):
            training = sum(len(splits[part].order) for part in ("train", "validation"))
            missing = f"no {split} examples (validation = {validation:g} of {training} training examples)"
            raise PresetError([Problem("task.validation", missing, "a part that leaves examples in every split")])
    return splits


def _parts(data: RawData, classes: Sequence[int], validation: float) -> dict[str, Examples]:
    """Validation is the end of the training set's order, so the first training examples are the same for any part."""

    def examples(x: Tensor, y: Tensor, order: Tensor) -> Examples:
        order = order.to(y.device)
        if not classes:
            return Examples(x, y, order)
        order = order[torch.isin(y[order], torch.tensor(classes, device=y.device))]
        return Examples(x, _renumbered(y, classes), order)

    train = examples(data.train_inputs, data.train_targets, shuffled(len(data.train_targets)))
    test = examples(data.test_inputs, data.test_targets, torch.arange(len(data.test_targets)))
    first, held_out = train.order.tensor_split([len(train.order) - round(validation * len(train.order))])
    return {"train": replace(train, order=first), "validation": replace(train, order=held_out), "test": test}


def _windows(data: RawData, validation: float, window: int) -> dict[str, Examples]:
    """The windows of a text. Validation is the end of the training text: no window has a token of both."""

    def examples(x: Tensor, y: Tensor, first: int, tokens: int) -> Examples:
        """Of the window tokens of an example, and the one after them, all are among these."""
        return Examples(x, y, torch.arange(first, first + max(0, tokens - window), device=x.device), window)

    text, test_text = len(data.train_inputs) + 1, len(data.test_inputs) + 1
    held_out = round(validation * text)
    return {
        "train": examples(data.train_inputs, data.train_targets, 0, text - held_out),
        "validation": examples(data.train_inputs, data.train_targets, text - held_out, held_out),
        "test": examples(data.test_inputs, data.test_targets, 0, test_text),
    }
