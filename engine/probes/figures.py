"""The probes one by one; `profile` measures several at several radii in one go."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.base.flat import Loss
from engine.probes.ascent import Peak, Tick, nothing
from engine.probes.border import public
from engine.probes.landscape import Landscape, landscapes


@public
def sharpness(
    loss: Loss,
    theta: Tensor,
    radius: float,
    *,
    norm: str = "l2",
    restarts: int = 10,
    ascent_steps: int = 50,
    seed: int = 0,
    tick: Tick = nothing,
) -> Tensor:
    """Largest loss in the ball of `radius` about theta, minus the loss at theta; a scalar, or [B]. Projected ascent."""

    def figure(land: Landscape) -> Tensor:
        peak = _highest(land, radius, norm, restarts, ascent_steps)
        return gap(land, peak, land.one_step(radius, norm))

    return _each(figure, loss, theta, seed=seed, tick=tick)


@public
def max_loss(
    loss: Loss,
    theta: Tensor,
    radius: float,
    *,
    norm: str = "l2",
    restarts: int = 10,
    ascent_steps: int = 50,
    seed: int = 0,
    tick: Tick = nothing,
) -> Tensor:
    """Largest loss in the ball of `radius` about theta: loss + sharpness; a scalar, or [B]."""

    def figure(land: Landscape) -> Tensor:
        peak = _highest(land, radius, norm, restarts, ascent_steps)
        return land.value + gap(land, peak, land.one_step(radius, norm))

    return _each(figure, loss, theta, seed=seed, tick=tick)


@public
def max_grad_norm(
    loss: Loss,
    theta: Tensor,
    radius: float,
    *,
    norm: str = "l2",
    restarts: int = 10,
    ascent_steps: int = 50,
    seed: int = 0,
    tick: Tick = nothing,
) -> Tensor:
    """Largest L2 norm of the gradient in the ball of `radius` about theta; a scalar, or [B]. Ascent along H g / |g|."""
    return _each(lambda land: _steepest(land, radius, norm, restarts, ascent_steps), loss, theta, seed=seed, tick=tick)


@public
def r1(
    loss: Loss,
    theta: Tensor,
    radius: float,
    *,
    norm: str = "l2",
    restarts: int = 10,
    ascent_steps: int = 50,
    seed: int = 0,
    tick: Tick = nothing,
) -> Tensor:
    """GAM's first-order flatness, radius * max_grad_norm (arXiv:2303.03108); a scalar, or [B]."""
    return radius * _each(
        lambda land: _steepest(land, radius, norm, restarts, ascent_steps), loss, theta, seed=seed, tick=tick
    )


@public
def surrogate_gap(loss: Loss, theta: Tensor, radius: float, *, norm: str = "l2") -> Tensor:
    """Loss one step of length `radius` up the gradient, minus the loss at theta: GSAM's surrogate gap; [] or [B]."""
    return _each(lambda land: land.one_step(radius, norm), loss, theta)


@public
def top_eigenvalue(
    loss: Loss, theta: Tensor, *, iterations: int | None = None, seed: int = 0, tick: Tick = nothing
) -> Tensor:
    """Largest (not largest in size) eigenvalue of the Hessian at theta, by Lanczos; a scalar, or [B]."""
    return _top(loss, theta, iterations, seed, tick)[0]


@public
def top_eigenpair(
    loss: Loss, theta: Tensor, *, iterations: int | None = None, seed: int = 0, tick: Tick = nothing
) -> tuple[Tensor, Tensor]:
    """Largest eigenvalue of the Hessian at theta, [] or [B], and its unit eigenvector, [P] or [B, P], by Lanczos.

    At most `iterations` Hessian-vector products, fewer where the pair stands earlier; by default 60, and 300 where
    there are so few parameters that these cost nothing: a crowd of eigenvalues below the top takes many.
    """
    return _top(loss, theta, iterations, seed, tick)


@public
def trace(loss: Loss, theta: Tensor, *, samples: int = 30, seed: int = 0, tick: Tick = nothing) -> Tensor:
    """Trace of the Hessian at theta, by Hutchinson's estimator with random signs; a scalar, or [B].

    Exact where the Hessian is diagonal; else its variance is 2 / `samples` times the squares off the diagonal.
    """
    return _each(lambda land: land.trace(samples), loss, theta, seed=seed, tick=tick)


def gap(land: Landscape, peak: Peak, one_step: Tensor) -> Tensor:
    """The gap of a search, [B], which visits theta and the one-step point: below neither, whatever the rounding."""
    found = torch.maximum(
        peak.value - land.value, one_step.nan_to_num(-torch.inf, neginf=-torch.inf, posinf=-torch.inf)
    )
    return land.nan_where_broken(found.clamp_min(0.0))


def _highest(land: Landscape, radius: float, norm: str, restarts: int, ascent_steps: int) -> Peak:
    model = land.models([radius])[0][:, 0] if norm == "l2" and restarts > 2 else None
    starts = land.starts(radius, norm, restarts, model)
    return land.highest(radius, starts, norm=norm, ascent_steps=ascent_steps, short=land.short(restarts))


def _steepest(land: Landscape, radius: float, norm: str, restarts: int, ascent_steps: int) -> Tensor:
    model = land.models([radius])[1][:, 0] if norm == "l2" and restarts > 2 else None
    starts = land.starts(radius, norm, restarts, model)
    peak = land.steepest(radius, starts, norm=norm, ascent_steps=ascent_steps, short=land.short(restarts))
    return land.nan_where_broken(peak.value)


def _top(loss: Loss, theta: Tensor, iterations: int | None, seed: int, tick: Tick) -> tuple[Tensor, Tensor]:
    many = theta if theta.dim() == 2 else theta[None]
    pairs = [land.eigenpair for land in landscapes(loss, many, iterations=iterations, seed=seed, tick=tick)]
    values, vectors = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return (values, vectors) if theta.dim() == 2 else (values[0], vectors[0])


def _each(
    figure: Callable[[Landscape], Tensor], loss: Loss, theta: Tensor, *, seed: int = 0, tick: Tick = nothing
) -> Tensor:
    """A figure of every optimizee, in portions: [B], or [] for theta of shape [P]."""
    many = theta if theta.dim() == 2 else theta[None]
    found = torch.cat([figure(land) for land in landscapes(loss, many, seed=seed, tick=tick)])
    return found if theta.dim() == 2 else found[0]
