"""The probes one by one; `profile` measures several at several radii in one go."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.base.flat import Loss
from engine.probes.ascent import Tick, nothing
from engine.probes.border import public
from engine.probes.landscape import AdaptiveLandscape, LossLandscape, landscapes

Search = Callable[[LossLandscape, float, str, int, int], Tensor]
"""A landscape, radius, norm, restarts and ascent steps to what a search finds, [B]."""


def _search(name: str, words: str, search: Search) -> Callable[..., Tensor]:
    """The probe of that name that searches the ball."""

    def probe(
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
        return _each(lambda land: search(land, radius, norm, restarts, ascent_steps), loss, theta, seed=seed, tick=tick)

    probe.__name__ = probe.__qualname__ = name
    probe.__doc__ = f"{words}; a scalar, or [B]. By projected ascent in the ball of `radius` about theta."
    return public(probe)


sharpness = _search("sharpness", "Largest loss in the ball, minus the loss at theta", LossLandscape.sharpness)
adaptive_sharpness = _search(
    "adaptive_sharpness",
    "Largest loss where ||e / |theta||| <= radius, minus the loss at theta, which no rescaling of a ReLU network's "
    "units changes (ASAM, arXiv:2102.11600)",
    lambda land, *how: AdaptiveLandscape(land, land.iterations).sharpness(*how),
)
max_loss = _search(
    "max_loss", "Largest loss in the ball: loss + sharpness", lambda land, *how: land.value + land.sharpness(*how)
)
max_grad_norm = _search(
    "max_grad_norm", "Largest L2 norm of the gradient in the ball, along H g / |g|", LossLandscape.max_grad_norm
)
r1 = _search(
    "r1",
    "GAM's first-order flatness, radius * max_grad_norm (arXiv:2303.03108)",
    lambda land, radius, *how: radius * land.max_grad_norm(radius, *how),
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
    return _each(lambda land: land.eigenpair[0], loss, theta, iterations=iterations, seed=seed, tick=tick)


@public
def top_eigenpair(
    loss: Loss, theta: Tensor, *, iterations: int | None = None, seed: int = 0, tick: Tick = nothing
) -> tuple[Tensor, Tensor]:
    """Largest eigenvalue of the Hessian at theta, [] or [B], and its unit eigenvector, [P] or [B, P], by Lanczos.

    At most `iterations` Hessian-vector products, fewer where the pair stands earlier; by default 60, and 300 where
    there are so few parameters that these cost nothing: a crowd of eigenvalues below the top takes many.
    """

    def pair(land: LossLandscape) -> Tensor:
        values, vectors = land.eigenpair
        return torch.cat([values[:, None], vectors], 1)

    both = _each(pair, loss, theta, iterations=iterations, seed=seed, tick=tick)
    return both[..., 0], both[..., 1:]


@public
def trace(loss: Loss, theta: Tensor, *, samples: int = 30, seed: int = 0, tick: Tick = nothing) -> Tensor:
    """Trace of the Hessian at theta, by Hutchinson's estimator with random signs; a scalar, or [B].

    Exact where the Hessian is diagonal; else its variance is 2 / `samples` times the squares off the diagonal.
    """
    return _each(lambda land: land.trace(samples), loss, theta, seed=seed, tick=tick)


def _each(
    probe: Callable[[LossLandscape], Tensor],
    loss: Loss,
    theta: Tensor,
    *,
    iterations: int | None = None,
    seed: int = 0,
    tick: Tick = nothing,
) -> Tensor:
    """A probe of every optimizee, in portions: [B, ...], or [...] for theta of shape [P]."""
    many = theta if theta.dim() == 2 else theta[None]
    parts = [probe(land) for land in landscapes(loss, many, iterations=iterations, seed=seed, tick=tick)]
    return torch.cat(parts) if theta.dim() == 2 else parts[0][0]
