"""Scene: everything a piece of work needs, made of random numbers: a dataset's shapes, without its files.

Shape letters: B optimizees, P parameters of one, N = B P coordinates, T inner steps, D examples in a batch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Generator, Tensor

from engine.base import seeds
from engine.base.flat import Loss
from engine.bench.works import BATCH_SIZE, CLASSES, INPUT_SHAPES, PARTICLES, PROBED, TRUNCATION, Workload
from engine.evaluation.transfer import ProbeSettings, frozen_unroll, shapes
from engine.meta_training import recording
from engine.meta_training.estimators import ESTIMATORS
from engine.meta_training.estimators.es import ES
from engine.meta_training.inner_steps import Inputs, UnrollState
from engine.meta_training.objective import Objective
from engine.meta_training.recording import RunTruncation
from engine.meta_training.unroll import begin
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS, LearnedOptimizer, Network, Phi
from engine.penalties.base import GeometricPenalty
from engine.penalties.sam import SAM
from engine.penalties.smooth import Smooth
from engine.presets.tables import EvaluationSettings
from engine.tasks.base import cast
from engine.tasks.bounded import bounded_loss
from engine.tasks.criteria import CrossEntropy
from engine.tasks.optimizees.base import OPTIMIZEES
from engine.tasks.supervised import ExampleBatch
from engine.tasks.table import DatasetTask

DISTINCT_BATCHES = 2  # taken in turn: twenty of them for 64 optimizees would be gigabytes
OUTPUT_SCALES = {"simple": 0.01}  # an untrained one moves too far for anything but a divergence
SMOOTH_WEIGHT = 1e6  # a fresh optimizer is so smooth that otherwise nobody would see a mistake in the penalty's slopes
SEED = 1
PAIRS, SIGMA = 8, 0.01  # of evolution strategies
PROBES = ProbeSettings(**{item.name: getattr(EvaluationSettings(), item.name) for item in fields(ProbeSettings)})


class RandomTask(DatasetTask):
    """A task whose examples are random numbers; its optimizee and its loss are the real ones."""

    def __init__(
        self,
        optimizee: str,
        *,
        input_shape: tuple[int, int, int] | None = None,
        batch_size: int = BATCH_SIZE,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        **settings: Any,
    ) -> None:
        """`settings` are the optimizee's own. Nothing is read from disk."""
        self.device, self.dtype, self.batch_size = device, dtype, batch_size
        self.input_shape = input_shape or INPUT_SHAPES[optimizee]
        self.classes = CLASSES
        self.criterion = CrossEntropy()
        self.optimizee = OPTIMIZEES.create(optimizee, **settings)
        self.build(self.input_shape, CLASSES)
        self._starts: dict[int, Tensor] = {}
        self._streams: dict[tuple[int, ...], RandomStream] = {}

    def init_theta(self, seed: int) -> Tensor:
        """Initial parameters, [P]: drawn once for each seed, because drawing is not what is measured."""
        if seed not in self._starts:
            self._starts[seed] = super().init_theta(seed)
        return self._starts[seed]

    def _example_inputs(self, input_shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(2, *input_shape, dtype=self.dtype)

    def batches(self, seeds: Sequence[int], split: str = "train") -> RandomStream:  # type: ignore[override]
        """Batches for one optimizee per seed, made once."""
        key = tuple(seeds)
        if key not in self._streams:
            self._streams[key] = RandomStream(self, seeds)
        return self._streams[key]

    def fixed_batch(self, examples: int, split: str = "train", dtype: torch.dtype = torch.float64) -> ExampleBatch:
        """So many examples, which have no leading [B]."""
        return cast(_random_batch(self, [SEED], examples).of(0), dtype)


class RandomStream:
    """A few batches for B optimizees, made once and taken in turn, so that drawing them takes no time."""

    def __init__(self, task: RandomTask, seed_list: Sequence[int]) -> None:
        numbers = range(DISTINCT_BATCHES)
        draws = ([seeds.derive(seed, number) for seed in seed_list] for number in numbers)
        self.batches = [_random_batch(task, draw, task.batch_size) for draw in draws]

    def draw(self, steps: int) -> list[ExampleBatch]:
        """The batches of the next inner steps."""
        return [self.batches[index % len(self.batches)] for index in range(steps)]


def _random_batch(task: RandomTask, seed_list: Sequence[int], size: int) -> ExampleBatch:
    """x [B, D, C, H, W] standard normal, y [B, D]; for one seed the same numbers on every device."""
    images, labels = [], []
    for seed in seed_list:
        generator = Generator().manual_seed(seed)
        images.append(torch.randn(size, *task.input_shape, generator=generator, dtype=torch.float64))
        labels.append(torch.randint(task.classes, (size,), generator=generator))
    x = torch.stack([image.to(task.dtype) for image in images]).to(task.device)
    return ExampleBatch(x, torch.stack(labels).to(task.device), x.new_empty(len(x), size, 0))


@dataclass(frozen=True)
class Setup:
    """What both ways, ours and plain PyTorch, start from."""

    piece: Workload
    task: RandomTask
    objective: Objective
    phi: Phi  # requires gradients
    carry: UnrollState  # at inner step 0
    window: list[ExampleBatch]  # T of them
    numbers: list[int]  # of the optimizees: their seeds
    run_truncation: RunTruncation
    estimator: ES

    @property
    def optimizer(self) -> LearnedOptimizer:
        return self.objective.optimizer

    @property
    def steps(self) -> int:
        return len(self.window)

    @property
    def coordinates(self) -> int:
        return self.carry.theta.numel()

    def run(self) -> object:
        """The work, our way: the meta-gradient; of a frozen optimizer theta at the end, [B, P]; of probes figures."""
        if self.piece.work in PROBED:
            return self.figures(self.reached if self.piece.work == "probe" else self.frozen())
        if self.piece.work in PARTICLES:
            return self.evolved()
        return self.frozen() if self.piece.work == "frozen" else self.meta_gradient()

    def meta_gradient(self) -> Phi:
        """The meta-gradient, a mean over the optimizees."""
        inputs = Inputs(self.window, [1.0] * self.steps, self.generator())
        partial, carry = self.run_truncation(self.objective, self.phi, self.carry, inputs)
        return partial.meta_gradient(self.objective, self.phi, carry.inner_step - 1)[0]

    def evolved(self) -> Phi:
        """The meta-gradient by evolution strategies: N pairs of perturbed optimizers train all optimizees."""
        batches = self.task.batches([seeds.derive(number, "batches") for number in self.numbers]).batches
        theta, objective = self.carry.theta, self.objective
        carry = self.estimator.begin(objective, theta, batches[-1], scaling=None, horizon=self.steps)
        inputs = Inputs(self.window, [1.0] * self.steps, noise_seeds=[SEED])
        partial, _ = self.estimator.estimate(self.objective, self.phi, carry, inputs)
        return self.estimator.combine([(self.objective, partial)], self.phi, self.steps - 1, [SEED])[0]

    def frozen(self) -> Tensor:
        """theta, [B, P], where the frozen learned optimizer takes the optimizees."""
        theta = self.carry.theta
        for step in frozen_unroll(self.task, self.optimizer, self.phi, self.numbers, self.steps):
            theta = step[1]
        return theta

    @functools.cached_property
    def reached(self) -> Tensor:
        """theta, [B, P], where probes are measured."""
        return self.frozen()

    @functools.cached_property
    def probed_loss(self) -> Loss:
        """What the landscape is of."""
        return bounded_loss(self.task, self.task.fixed_batch(PROBES.examples))

    @functools.cached_property
    def draft(self) -> Loss:
        """The same in float32, which is searched first."""
        return bounded_loss(self.task, self.task.fixed_batch(PROBES.examples, dtype=torch.float32))

    def figures(self, theta: Tensor) -> list[dict[str, Any]]:
        """The landscape's part of a transfer evaluation's marks at theta, [B, P], as a preset's defaults have it."""
        return list(shapes(self.probed_loss, theta.double(), PROBES, draft=self.draft))

    def generator(self) -> Generator:
        """Fresh random numbers for the smoothness penalty, the same every time."""
        return Generator(self.task.device).manual_seed(SEED)

    def ascent_starts(self) -> list[Tensor]:
        """The starts of the smoothness penalty's ascent that `generator` leads to, T tensors [B, P, F]."""
        (penalty,) = smoothness(self.piece).values()
        features, _ = self.optimizer.observe(self.carry.theta, self.carry.grad, self.carry.state)
        generator = self.generator()
        return [penalty.start_of_ascent(self.optimizer, features, generator) for _ in self.window]


def learned_optimizer(piece: Workload) -> LearnedOptimizer:
    """The piece's learned optimizer with its default settings."""
    scale = OUTPUT_SCALES.get(piece.optimizer)
    return LEARNED_OPTIMIZERS.create(piece.optimizer, **({"output_scale": scale} if scale else {}))


def network_of(piece: Workload) -> Network | None:
    """What its learned optimizer computes for a coordinate; None: no network."""
    return learned_optimizer(piece).network


def state_bytes(piece: Workload) -> int:
    """Bytes of state that a coordinate has in float32."""
    state = learned_optimizer(piece).init(torch.empty(1, device="meta"))
    return 4 * sum(tensor[0].numel() for tensor in state.values() if tensor.dim())


def smoothness(piece: Workload) -> dict[str, Smooth]:
    """The piece's smoothness penalty by name, if it has one."""
    return {"smooth": Smooth(weight=SMOOTH_WEIGHT)} if piece.work == "meta-train-smooth" else {}


def scene(piece: Workload, task: RandomTask, steps: int = TRUNCATION) -> Setup:
    """A fresh learned optimizer, optimizees at their starts, and batches, all on the task's device."""
    optimizer = learned_optimizer(piece)
    geometric: dict[str, GeometricPenalty] = {"sam": SAM()} if piece.work == "meta-train-sam" else {}
    objective = Objective(
        task.loss,
        optimizer,
        geometric,
        {**smoothness(piece)},
        second_order=piece.work == "second-order",
        divergence_cap=torch.inf,
        layout=task.layout,
    )
    numbers = list(range(SEED, SEED + piece.meta_batch))
    theta = torch.stack([task.init_theta(seeds.derive(number, "theta")) for number in numbers])
    stream = task.batches([seeds.derive(number, "batches") for number in numbers])  # as frozen_unroll derives them
    fresh = optimizer.init_phi(Generator().manual_seed(SEED))
    phi = {name: tensor.to(task.device, task.dtype).requires_grad_() for name, tensor in fresh.items()}
    carry = begin(objective, theta, stream.batches[-1], horizon=steps)
    estimator = ESTIMATORS.create("pes" if piece.work == "pes" else "es", pairs=PAIRS, sigma=SIGMA, fitness="raw")
    run_truncation = recording.chosen(task.device)
    return Setup(piece, task, objective, phi, carry, stream.draw(steps), numbers, run_truncation, estimator)
