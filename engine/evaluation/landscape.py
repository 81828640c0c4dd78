"""Loss landscape: a slice in two random directions around the minimum that a frozen learned optimizer reached.

Directions are normalised filter by filter, so that pictures of different minima can be compared (Li et al. 2018,
arXiv:1712.09913, section 4): each filter of a direction gets the norm of the same filter of theta. A filter is a row of
a weight matrix, or the weights of one output of a convolution; a direction is 0 in biases and other vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.func import vmap

from engine.base import seeds
from engine.base.flat import TINY, Loss, loss_on, plain_attention, tensors_in
from engine.evaluation.frozen_unroll import frozen_unroll, nothing
from engine.optimizers.learned.base import LearnedOptimizer, Phi
from engine.tasks.base import Task

DIRECTION_SEED = 20180201  # the two directions before normalisation are the same for every run
EXAMPLES = 1000  # of the training set, whose loss is drawn
MOST_NUMBERS = 2**24  # inputs of all points that are evaluated side by side
MOST_NUMBERS_CPU = 2**20  # where more is slower


@dataclass(frozen=True)
class LandscapeSlice:
    """Train losses over the slice theta + a x + b y: `losses[i][j]` belongs to b = offsets[i], a = offsets[j].

    A loss that is not finite is NaN. `train_loss` is the one in the middle, at theta.
    """

    offsets: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]
    train_loss: float
    test: dict[str, float]  # the task's metrics on the test split, by name


@plain_attention()
def landscape(
    task: Task,
    optimizer: LearnedOptimizer,
    phi: Phi,
    *,
    seed: int = 0,
    steps: int,
    points: int = 25,
    extent: float = 1.0,
    examples: int = EXAMPLES,
    tick: Callable[[], None] = nothing,
) -> LandscapeSlice:
    """Train optimizee `seed`, the one of the transfer evaluations, for `steps` inner steps; look around it.

    The slice has `points` x `points` points and reaches `extent` to both sides, in lengths of theta's filters. Raises
    ValueError for fewer than two points, or an extent that is not positive and finite.
    """
    theta = reached(task, optimizer, phi, seed, steps, tick)
    x, y = (
        filter_normalised(direction, theta, list(task.layout.shapes.values())) for direction in random_directions(theta)
    )
    batch = task.fixed_batch(examples, dtype=task.dtype)

    loss = loss_on(task.loss, batch)
    most = MOST_NUMBERS_CPU if task.device.type == "cpu" else MOST_NUMBERS
    at_once = max(1, most // max(sum(tensor.numel() for tensor in tensors_in(batch)), task.parameters))
    losses = surface(loss, theta, x, y, points=points, extent=extent, at_once=at_once, tick=tick)
    test = task.metrics_of_each(theta[None], "test")
    return LandscapeSlice(
        tuple(offsets(points, extent).tolist()),
        tuple(tuple(value if math.isfinite(value) else math.nan for value in row) for row in losses.tolist()),
        float(loss(theta)),
        {name: float(values[0]) for name, values in test.items()},
    )


def reached(
    task: Task, optimizer: LearnedOptimizer, phi: Phi, seed: int, steps: int, tick: Callable[[], None] = nothing
) -> Tensor:
    """Theta, [P], of transfer optimizee `seed` after `steps` inner steps."""
    theta = task.init_theta(0)
    for after in frozen_unroll(task, optimizer, phi, [seeds.derive(seed, "test")], steps, tick=tick):
        theta = after.theta[0]
    return theta


def random_directions(theta: Tensor, seed: int = DIRECTION_SEED) -> tuple[Tensor, Tensor]:
    """Two normal random vectors, [P] each; equal for all theta of one size, on every device."""
    generator = Generator().manual_seed(seed)
    x, y = torch.randn(2, len(theta), generator=generator, dtype=torch.float64).to(theta.device, theta.dtype)
    return x, y


def filter_normalised(direction: Tensor, theta: Tensor, shapes: Sequence[tuple[int, ...]]) -> Tensor:
    """The direction, [P], with every filter as long as that filter of theta, [P]; zero for biases and other vectors."""
    sizes = [math.prod(shape) for shape in shapes]
    pieces = []
    for piece, at, shape in zip(direction.split(sizes), theta.split(sizes), shapes, strict=True):
        if len(shape) < 2:
            pieces.append(torch.zeros_like(piece))
            continue
        filters, theta_filters = piece.view(shape[0], -1), at.view(shape[0], -1)
        length = filters.norm(dim=1, keepdim=True).clamp_min(TINY)
        pieces.append((filters * (theta_filters.norm(dim=1, keepdim=True) / length)).flatten())
    return torch.cat(pieces)


@torch.no_grad()
def surface(
    loss: Loss,
    theta: Tensor,
    x: Tensor,
    y: Tensor,
    *,
    points: int = 25,
    extent: float = 1.0,
    at_once: int = 64,
    tick: Callable[[], None] = nothing,
) -> Tensor:
    """Losses [G, G] on the grid theta + a x + b y, a along the rows; `at_once` points are evaluated side by side."""
    steps = offsets(points, extent).to(theta)
    b, a = torch.meshgrid(steps, steps, indexing="ij")  # [G, G] each
    many = vmap(loss)
    values = []
    for mine_a, mine_b in zip(a.flatten().split(at_once), b.flatten().split(at_once), strict=True):
        tick()
        values.append(many(theta + mine_a[:, None] * x + mine_b[:, None] * y))
    return torch.cat(values).view(points, points)


def offsets(points: int, extent: float) -> Tensor:
    """The grid's coordinates, [G] in float64, from -extent to extent."""
    if points < 2:
        raise ValueError(f"points must be at least 2, found {points!r}")
    if not 0 < extent < math.inf:
        raise ValueError(f"extent must be a positive number, found {extent!r}")
    return torch.linspace(-extent, extent, points, dtype=torch.float64)
