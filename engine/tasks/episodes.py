"""Episodes: every optimizee learns classes of its own from a few examples, and is judged on others of these classes.

Shape letters: B optimizees, P parameters of one, T inner steps, N ways, K shots, Q queries, D examples of a batch.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vmap

from engine.base.arguments import refusal
from engine.base.errors import PresetError, Problem
from engine.base.metrics import Metric
from engine.base.settings import show
from engine.tasks.base import METRIC_SEED, GeneratorStream
from engine.tasks.optimizees.base import batch_norms, statistics_of_leading
from engine.tasks.supervised import EVALUATED_AT_ONCE, ExampleBatch
from engine.tasks.table import DatasetTask

PURPOSES = ("validation", "test")  # that other classes are held out for
READINGS = {
    way: Metric(f"{way}_accuracy", f"accuracy, {way} batch norm", "share", "higher", kind="task")
    for way in ("running", "transductive")
}
"""The accuracy of a batch norm that `batch_norm` does not name, which is measured beside the one that it does."""


@dataclass(frozen=True, eq=False)
class ImagesByClass:
    """A dataset's images, and which of them belong to each class of the three splits of classes."""

    images: Tensor  # uint8 [M, C, H, W]; or what a backbone makes of them, float32 [M, F]
    splits: Mapping[str, Mapping[str, Tensor]]  # of "train", "validation" and "test": int64 positions, by class

    def to(self, device: torch.device) -> ImagesByClass:
        return ImagesByClass(self.images.to(device), self.splits)


class EpisodeTask(DatasetTask):
    """N-way K-shot classification (Vinyals et al., arXiv:1606.04080): every optimizee has an episode of its own.

    An episode is N classes of a split of the classes, and of each of them K images, the support set, and Q others, the
    query set; labels are 0..N-1 in the order drawn. Optimizees are trained on the whole support set at every inner
    step, which is the split "train"; "validation" and "test" are both the query set.

    `of(seeds)` is the task of these optimizees' episodes, which depend on a seed alone; everything asked of it has a
    row for each of them. Unbound, a stream is of the episodes of its seeds, and what is measured is of one that is
    always the same. The classes are the training classes; `held_out` has the others.
    """

    class_split = "train"
    episodes: Tensor | None = None
    """Of a bound task: int64 [B, N, K + Q], as `episode` gives them."""

    def take_data(self, data: ImagesByClass) -> None:  # type: ignore[override]
        """Every class has to have K + Q images, every split N classes."""
        self.data, values = data, self.values
        self.ways, self.shots, self.queries = values["ways"], values["shots"], values["queries"]
        self.batch_size, self.batch_norm = self.ways * self.shots, values["batch_norm"]
        self._by_classes = {"train": self}
        if self.optimizee.criterion is not None:
            allowed = "an optimizee for classes, which episodes have"
            raise PresetError([Problem("task.optimizee", show(values["optimizee"]), allowed)])
        self.build(self.dataset.input_shape, self.ways)
        if batch_norms(self.module):
            self.measured = (*self.criterion.measured, READINGS[self._other_batch_norm])

    @property
    def _other_batch_norm(self) -> str:
        return "transductive" if self.batch_norm == "running" else "running"

    def of(self, seeds: Sequence[int]) -> EpisodeTask:
        bound = copy.copy(self)
        bound.episodes = torch.stack([self.episode(seed) for seed in seeds]).to(self.device)
        bound.rows = len(seeds)
        return bound

    def controls(self) -> dict[str, dict[str, Tensor]]:
        return {"prototypes": {"accuracy": prototype_accuracy(self)}}

    def held_out(self, purpose: str) -> EpisodeTask:
        """The task on the classes held out for "validation" or "test", always the same object; it is not bound."""
        if purpose not in PURPOSES:
            raise refusal("purpose", " or ".join(map(repr, PURPOSES)), repr(purpose))
        if purpose not in self._by_classes:
            task = copy.copy(self._by_classes["train"])
            task.class_split = purpose
            self._by_classes[purpose] = task
        return self._by_classes[purpose]

    def episode(self, seed: int) -> Tensor:
        """The episode of a seed: positions of its images, int64 [N, K + Q], for each class those of the support first.

        Drawn without replacement, on the CPU, by the seed alone.
        """
        generator = torch.Generator().manual_seed(seed)
        classes = list(self.data.splits[self.class_split].values())
        drawn = torch.randperm(len(classes), generator=generator)[: self.ways]
        count = self.shots + self.queries
        images = [classes[index] for index in drawn.tolist()]
        return torch.stack([rows[torch.randperm(len(rows), generator=generator)[:count]] for rows in images])

    def batches(self, seeds: Sequence[int], split: str = "train") -> EpisodeStream:  # type: ignore[override]
        """The support set ("train") or the query set at every step: of the bound episodes, else of the seeds' own."""
        bound = self.of(seeds) if self.episodes is None else self
        bound._check_rows("seeds", len(seeds))
        return EpisodeStream(bound, seeds, split)

    @torch.no_grad()
    def metrics_of_each(self, theta: Tensor, split: str) -> dict[str, Tensor]:
        """On the support set ("train") or the query set of an episode each: [B] each, for theta of shape [B, P].

        Without dropout. Where there is batch norm, the query set is seen with the support set's statistics
        (batch_norm = running: Ravi and Larochelle's running ones are 95% those of the last pass over it) or its own
        (transductive), and the accuracy of the other way is measured beside.
        """
        if self.episodes is None:
            return self.of([METRIC_SEED] * len(theta)).metrics_of_each(theta, split)
        self._check_rows("theta", len(theta))
        is_query, has_batch_norm = split != "train", bool(batch_norms(self.module))
        metrics = self._measured(theta, split, is_query and has_batch_norm and self.batch_norm == "running")
        if has_batch_norm:
            other = self._measured(theta, split, is_query and self.batch_norm == "transductive")
            metrics[READINGS[self._other_batch_norm].name] = other["accuracy"]
        return metrics

    def _measured(self, theta: Tensor, split: str, after_support: bool) -> dict[str, Tensor]:
        """The criterion's metrics, [B] each; `after_support`: with batch norm's statistics of the support set."""
        positions, targets = self.positions(split), self.labels(split)
        before = self.positions("train") if after_support else positions[:, :0]
        leading = before.shape[1]
        at_once = max(1, EVALUATED_AT_ONCE // (leading + len(targets)))  # episodes
        parts: list[dict[str, Tensor]] = []
        for points, rows in zip(theta.split(at_once), torch.cat([before, positions], 1).split(at_once), strict=True):
            with statistics_of_leading(self.module, leading) if leading else contextlib.nullcontext():
                outputs = vmap(self.outputs)(points, self.inputs_at(rows, theta.dtype))[:, leading:]  # [b, D, N]
            scores = self.criterion.scores(outputs.flatten(0, 1), targets.repeat(len(points)))
            parts.append({name: values.view(len(points), -1).mean(1) for name, values in scores.items()})
        return self.criterion.summary({name: torch.cat([part[name] for part in parts]) for name in parts[0]})

    def fixed_batch(self, examples: int, split: str = "train", dtype: torch.dtype = torch.float64) -> ExampleBatch:
        """The whole support set ("train") or query set of the first episode, whatever `examples` says: for probes."""
        if self.episodes is None:
            return self.of([METRIC_SEED]).fixed_batch(examples, split, dtype)
        x, y = self.inputs_at(self.positions(split)[0], dtype), self.labels(split)
        return ExampleBatch(x, y, torch.empty(len(x), 0, dtype=dtype, device=self.device))

    def positions(self, split: str) -> Tensor:
        """Where the images of the bound episodes' support or query sets are in the data, class by class: int64 [B, D].

        Raises ArgumentError where the task is not bound.
        """
        if self.episodes is None:
            raise refusal("task", "one that is bound to episodes, as task.of(seeds) is", "one that is not")
        part = slice(self.shots) if split == "train" else slice(self.shots, None)
        return self.episodes[:, :, part].flatten(1)

    def labels(self, split: str) -> Tensor:
        """The labels of an episode's support or query set, in the order of `positions`: int64 [D]."""
        each = self.shots if split == "train" else self.queries
        return torch.arange(self.ways, device=self.device).repeat_interleave(each)

    def inputs_at(self, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """What the optimizee is shown of the images at positions [...]: [..., C, H, W]."""
        x = self.inputs(self.data.images[positions.flatten()], dtype, None)
        return x.view(*positions.shape, *x.shape[1:])

    def tensors(self) -> list[Tensor]:
        return [self.data.images]

    def query_inputs(self, dtype: torch.dtype) -> Tensor:
        return self.inputs_at(self.positions("test"), dtype)

    def size(self, split: str) -> int:
        """D: how many examples a support or query set has."""
        return self.ways * (self.shots if split == "train" else self.queries)

    def _example_inputs(self, input_shape: tuple[int, ...]) -> Tensor:
        return self.inputs(torch.zeros(2, *input_shape, dtype=self.data.images.dtype), self.dtype, None)

    def _check_rows(self, argument: str, rows: int) -> None:
        episodes = len(self.positions("train"))
        if rows != episodes:
            raise refusal(argument, f"{episodes}, one for each episode that the task is bound to", str(rows))


class EpisodeStream(GeneratorStream):
    """The whole support or query sets of B episodes at every step. Only dropout's numbers are drawn, for training."""

    def __init__(self, task: EpisodeTask, seeds: Sequence[int], split: str) -> None:
        super().__init__(seeds, task.device)
        self._x = task.inputs_at(task.positions(split), task.dtype)
        self._y = task.labels(split).expand(len(self._x), -1)
        self._noise_size = task.optimizee.noise_size if split == "train" else 0

    def draw(self, steps: int) -> EpisodeBatches:
        """The batches of the next inner steps."""
        noise = self._x.new_empty(steps, *self._x.shape[:2], self._noise_size)
        if self._noise_size:
            for row, generator in enumerate(self._generators):
                noise[:, row] = torch.rand(noise[:, row].shape, generator=generator, device=noise.device)
        return EpisodeBatches(self._x, self._y, noise)


class EpisodeBatches:
    """The batches of some inner steps: x [B, D, ...] and y [B, D] are the same in all of them."""

    def __init__(self, x: Tensor, y: Tensor, noise: Tensor) -> None:
        self._x, self._y, self._noise = x, y, noise  # noise: [T, B, D, numbers of dropout]

    def __len__(self) -> int:
        return len(self._noise)

    def __getitem__(self, step: int) -> ExampleBatch:
        return ExampleBatch(self._x, self._y, self._noise[step])

    def numbers(self) -> tuple[Tensor, Tensor, Tensor]:
        """All that the batches of one truncation and another differ in."""
        return self._x, self._y, self._noise

    def with_numbers(self, x: Tensor, y: Tensor, noise: Tensor) -> EpisodeBatches:
        """Batches of the same form with other numbers."""
        return EpisodeBatches(x, y, noise)


@torch.no_grad()
def prototype_accuracy(task: EpisodeTask, features: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Accuracy of the nearest class mean on the query set of each episode of a bound task: [B].

    Queries get the class whose support images' mean is nearest by the squared Euclidean distance (Snell et al. 2017,
    arXiv:1703.05175, eq. 1 and 2). `features` maps inputs, [D, C, H, W], to what distances are taken of, [D, F]; else
    pixels. Raises ArgumentError for a task that is not bound.
    """
    features = features or (lambda x: x.flatten(1))
    accuracies = []
    for support, query in zip(task.positions("train"), task.positions("test"), strict=True):
        embeddings = features(task.inputs_at(support, task.dtype))
        prototypes = embeddings.view(task.ways, task.shots, -1).mean(1)  # [N, F]
        distances = torch.cdist(features(task.inputs_at(query, task.dtype)), prototypes)  # the square changes no order
        accuracies.append((distances.argmin(1) == task.labels("test")).to(task.dtype).mean())
    return torch.stack(accuracies)
