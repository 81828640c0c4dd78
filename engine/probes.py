"""Probes: measurements of the loss landscape that never enter training.

Each takes a loss, a callable from theta, shape [P], to a scalar, and works best in float64 on a fixed full batch: at
a small radius the gap is a millionth of the loss. Every search keeps the best value that it ever visited, the centre
included, so a gap is never negative and never below the one-step gap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vmap

from engine.flat import Loss, grad_and_hvp, perturbation, project, unit

AT_ONCE = 2**22  # parameters of all points that a search looks at together

Ascent = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A point, [P], to the figure to maximise there, [], and the direction of its steepest ascent, [P]."""


class Peak(NamedTuple):
    """The best point of a search: its figure, shape [], and its place relative to theta, shape [P]."""

    value: Tensor
    offset: Tensor


def sharpness(
    loss: Loss,
    theta: Tensor,
    radius: float,
    *,
    norm: str = "l2",
    restarts: int = 10,
    ascent_steps: int = 50,
    seed: int = 0,
) -> Tensor:
    """Largest loss in the ball of `radius` about theta, minus the loss at theta; a scalar. Projected ascent."""
    eigenvector = top_eigenpair(loss, theta, seed=seed)[1]
    starts = _starts(theta, radius, norm, restarts, seed, grad(loss)(theta), eigenvector)
    peak = search(_loss_ascent(loss), theta, radius, starts, norm=norm, ascent_steps=ascent_steps)
    return _gap(peak.value - loss(theta), surrogate_gap(loss, theta, radius, norm=norm))


def max_grad_norm(
    loss: Loss,
    theta: Tensor,
    radius: float,
    *,
    norm: str = "l2",
    restarts: int = 10,
    ascent_steps: int = 50,
    seed: int = 0,
) -> Tensor:
    """Largest L2 norm of the gradient in the ball of `radius` about theta, by ascent along H g / |g|; a scalar."""
    first = grad_and_hvp(loss, theta, unit)[1]
    eigenvector = top_eigenpair(loss, theta, seed=seed)[1]
    starts = _starts(theta, radius, norm, restarts, seed, first, eigenvector)
    return search(_slope_ascent(loss), theta, radius, starts, norm=norm, ascent_steps=ascent_steps).value


def surrogate_gap(loss: Loss, theta: Tensor, radius: float, *, norm: str = "l2") -> Tensor:
    """Loss one step of length `radius` up the gradient, minus the loss at theta: GSAM's surrogate gap; a scalar."""
    _check_radius(radius)
    gradient, value = grad_and_value(loss)(theta)
    return loss(theta + _boundary(gradient, radius, norm)) - value


def top_eigenvalue(loss: Loss, theta: Tensor, *, iterations: int = 60, seed: int = 0) -> Tensor:
    """Largest (not largest in size) eigenvalue of the Hessian at theta, by Lanczos; a scalar."""
    return top_eigenpair(loss, theta, iterations=iterations, seed=seed)[0]


class Profile(NamedTuple):
    """Figures of the landscape about one point; each by radius but the eigenvalue."""

    sharpness: dict[float, float]
    max_grad_norm: dict[float, float]
    surrogate_gap: dict[float, float]
    top_eigenvalue: float


def profile(
    loss: Loss,
    theta: Tensor,
    radii: Sequence[float],
    *,
    restarts: int = 10,
    ascent_steps: int = 50,
    iterations: int = 60,
    seed: int = 0,
) -> Profile:
    """The probes at several radii (L2), sharing what they have in common.

    A radius starts from the best points of the smaller one as well, so that no figure falls as the radius grows.
    """
    gradient, value = grad_and_value(loss)(theta)
    slope_first = grad_and_hvp(loss, theta, unit)[1]
    eigenvalue, eigenvector = top_eigenpair(loss, theta, iterations=iterations, seed=seed)
    figures = Profile({}, {}, {}, float(eigenvalue))
    best: list[Tensor] = []
    for radius in sorted(radii):
        inner = torch.stack(best) if best else theta.new_empty(0, theta.numel())
        loss_starts = _starts(theta, radius, "l2", restarts, seed, gradient, eigenvector)
        highest = search(_loss_ascent(loss), theta, radius, torch.cat([loss_starts, inner]), ascent_steps=ascent_steps)
        slope_starts = _starts(theta, radius, "l2", restarts, seed, slope_first, eigenvector)
        slope_starts = torch.cat([slope_starts, inner, highest.offset[None]])
        steepest = search(_slope_ascent(loss), theta, radius, slope_starts, ascent_steps=ascent_steps)
        best = [highest.offset, steepest.offset]
        one_step = loss(theta + perturbation(gradient, radius)) - value
        figures.sharpness[radius] = float(_gap(highest.value - value, one_step))
        figures.max_grad_norm[radius] = float(torch.maximum(steepest.value, gradient.norm()))
        figures.surrogate_gap[radius] = float(one_step)
    return figures


def search(
    ascent: Ascent, theta: Tensor, radius: float, starts: Tensor, *, norm: str = "l2", ascent_steps: int = 50
) -> Peak:
    """Projected ascent in the ball of `radius` about theta from all starts, [R, P], side by side.

    `ascent_steps` steps of normalised length, from radius / 5 down to radius / 50, then half as many of ten radii,
    which all but jump to the boundary point along the ascent: at a maximum on the boundary short steps crawl and
    these converge. The best point ever visited counts.
    """
    offsets = torch.cat([torch.zeros_like(theta)[None], starts])
    lengths = torch.linspace(radius / 5, radius / 50, ascent_steps).tolist() + [10 * radius] * (ascent_steps // 2)
    _check_radius(radius)
    # large networks in small portions: each point needs its own activations
    side_by_side = vmap(ascent, randomness="same", chunk_size=max(1, AT_ONCE // theta.numel()))
    best, where = None, offsets
    for length in [*lengths, 0.0]:
        value, direction = side_by_side(theta + offsets)
        value = torch.where(value.isfinite(), value, -torch.inf)
        better = value > best if best is not None else torch.ones_like(value, dtype=torch.bool)
        best = torch.where(better, value, best) if best is not None else value
        where = torch.where(better[:, None], offsets, where)
        stride = length * direction.sign() if norm == "linf" else perturbation(direction, length)
        offsets = project(offsets + stride, radius, norm)
    assert best is not None
    top = int(best.argmax())
    return Peak(best[top], where[top])


def top_eigenpair(loss: Loss, theta: Tensor, *, iterations: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Largest eigenvalue of the Hessian, [], and its unit eigenvector, [P]: Lanczos with full reorthogonalisation."""
    vector = unit(_randn(1, theta, seed)[0])
    basis = [vector]
    diagonal: list[Tensor] = []
    off_diagonal: list[Tensor] = []
    for _ in range(min(iterations, theta.numel())):
        product = grad_and_hvp(loss, theta, basis[-1])[1]
        diagonal.append(product @ basis[-1])
        known = torch.stack(basis)
        for _ in range(2):  # once is not enough in floating point
            product = product - known.T @ (known @ product)
        length = product.norm()
        largest = torch.stack([value.abs() for value in (*diagonal, *off_diagonal)]).max()
        if not length > 100 * torch.finfo(theta.dtype).eps * largest:
            break  # the space is exhausted (or the Hessian is not finite)
        off_diagonal.append(length)
        basis.append(product / length)
    size = len(diagonal)
    matrix = torch.diag(torch.stack(diagonal))
    if size > 1:
        beside = torch.diag(torch.stack(off_diagonal[: size - 1]), 1)
        matrix = matrix + beside + beside.T
    if not matrix.isfinite().all():
        return theta.new_tensor(torch.nan), vector
    values, vectors = torch.linalg.eigh(matrix)
    return values[-1], unit(vectors[:, -1] @ torch.stack(basis[:size]))


def _starts(
    theta: Tensor, radius: float, norm: str, restarts: int, seed: int, first: Tensor, eigenvector: Tensor
) -> Tensor:
    """Where searches start, [R, P]: one step along `first`, both ways along the eigenvector, then random directions."""
    directions = [first, eigenvector, -eigenvector]
    if restarts > len(directions):
        directions += list(_randn(restarts - len(directions), theta, seed + 1))
    return torch.stack([_boundary(direction, radius, norm) for direction in directions[:restarts]])


def _gap(found: Tensor, one_step: Tensor) -> Tensor:
    """The gap of a search, which visits theta and the one-step point: below neither, whatever the rounding."""
    return torch.maximum(found, one_step).clamp_min(0.0)


def _check_radius(radius: float) -> None:
    if not 0 <= radius < float("inf"):
        raise ValueError(f"radius must be a number >= 0, found {radius!r}")


def _boundary(direction: Tensor, radius: float, norm: str) -> Tensor:
    return radius * direction.sign() if norm == "linf" else perturbation(direction, radius)


def _loss_ascent(loss: Loss) -> Ascent:
    def ascent(point: Tensor) -> tuple[Tensor, Tensor]:
        gradient, value = grad_and_value(loss)(point)
        return value, gradient

    return ascent


def _slope_ascent(loss: Loss) -> Ascent:
    def ascent(point: Tensor) -> tuple[Tensor, Tensor]:
        gradient, direction = grad_and_hvp(loss, point, unit)
        return gradient.norm(), direction

    return ascent


def _randn(count: int, theta: Tensor, seed: int) -> Tensor:
    """Normal numbers, [count, P], the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, theta.numel(), generator=generator, dtype=torch.float64).to(theta)
