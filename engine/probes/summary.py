"""All probes at several radii, sharing what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.base.flat import Loss, grad_and_value
from engine.probes.ascent import Peak, Tick, nothing
from engine.probes.border import public
from engine.probes.landscape import AdaptiveLandscape, LossLandscape, landscapes

BISECTIONS = 60  # of a segment: down to neighbouring numbers
KEPT_LINF = 1  # climbs of the l-infinity ball that go on after their first step
KEPT_ADAPTIVE = 1  # the same of the search for adaptive sharpness, which takes more steps than one at small radii
ADAPTIVE_ITERATIONS = 5  # Lanczos steps in units of |theta|: they only give starts


class Profile(NamedTuple):
    """Figures of the landscape about one point; those that depend on a radius by radius.

    sharpness and max_grad_norm are the largest gap and gradient norm in the L2 ball, surrogate_gap the gap of one step,
    r1 radius * max_grad_norm; the _linf ones are those of the l-infinity ball (the gradient's norm is still the L2).
    """

    sharpness: dict[float, float]
    max_grad_norm: dict[float, float]
    surrogate_gap: dict[float, float]
    r1: dict[float, float]
    sharpness_linf: dict[float, float]
    max_grad_norm_linf: dict[float, float]
    top_eigenvalue: float
    trace: float


@public
def profile(
    loss: Loss,
    theta: Tensor,
    radii: Sequence[float],
    *,
    restarts: int = 10,
    ascent_steps: int = 50,
    iterations: int = 60,
    trace_samples: int = 30,
    linf: bool = True,
    seed: int = 0,
    tick: Tick = nothing,
) -> Any:
    """The probes about theta: a `Profile` for shape [P], a list of them for shape [B, P].

    No `linf`: those dicts stay empty; no `trace_samples`: NaN.
    What holds in exact arithmetic holds: no figure falls as the radius grows, 0 <= surrogate_gap <= sharpness <= r1
    (but where one step leads down), max_grad_norm is never below the gradient's norm at theta, and nothing in the
    l-infinity ball is below the same in the L2 ball inside it. The l-infinity searches start from theta, the smaller
    radius and the L2 ball's best points alone, and only the best climb goes on, for half of the steps: there a search
    seldom ends, so that these figures are lower bounds, good for comparison only. An l-infinity ball takes `sharpness`
    for a thorough search.

    Raises ArgumentError for an argument or a loss that does not fit, ArithmeticError for a loss that rises faster than
    its gradient allows.
    """
    how: dict[str, Any] = {"restarts": restarts, "ascent_steps": ascent_steps, "iterations": iterations}
    how |= {"trace_samples": trace_samples, "linf": linf, "seed": seed, "tick": tick}
    profiles = profile_each(loss, theta if theta.dim() == 2 else theta[None], radii, **how)
    return profiles if theta.dim() == 2 else profiles[0]


def profile_each(
    loss: Loss,
    theta: Tensor,
    radii: Sequence[float],
    *,
    restarts: int,
    ascent_steps: int,
    trace_samples: int,
    linf: bool,
    tick: Tick,
    draft: Loss | None = None,
    iterations: int = 60,
    seed: int = 0,
) -> list[Profile]:
    """`profile` of theta [B, P] without a look at the arguments: for a loss and settings known to be sound.

    With a `draft`, the same loss in float32, searches begin there and end in theta's precision; the trace is float32's.
    """
    profiles = []
    for land in landscapes(loss, theta, draft=draft, iterations=iterations, seed=seed, tick=tick):
        profiles += _measure(land, sorted(radii), restarts, ascent_steps, trace_samples, linf)
    return profiles


def adaptive_sharpness_each(
    loss: Loss,
    theta: Tensor,
    radii: Sequence[float],
    *,
    restarts: int,
    ascent_steps: int,
    tick: Tick,
    draft: Loss | None = None,
) -> list[dict[float, float]]:
    """`adaptive_sharpness` of theta [B, P] by radius, for a loss, draft and settings known to be sound.

    For the cost of a part of a profile: few Lanczos steps, and only the best climb goes on after its first step.
    """
    by_radius: list[dict[float, float]] = []
    for plain in landscapes(loss, theta, draft=draft, tick=tick):
        land = AdaptiveLandscape(plain, ADAPTIVE_ITERATIONS)
        gap, gaps = torch.zeros_like(land.value), []
        for radius in sorted(radii):
            gap = torch.maximum(gap, land.sharpness(radius, "l2", restarts, ascent_steps, keep=KEPT_ADAPTIVE))
            gaps.append(gap)
        by_radius += [dict(zip(sorted(radii), column, strict=True)) for column in torch.stack(gaps, 1).tolist()]
    return by_radius


def _measure(
    land: LossLandscape, radii: list[float], restarts: int, ascent_steps: int, samples: int, linf: bool
) -> list[Profile]:
    top = land.eigenpair[0].tolist()
    trace = land.trace(samples).tolist() if samples else [torch.nan] * len(top)
    figures = [Profile({}, {}, {}, {}, {}, {}, *last) for last in zip(top, trace, strict=True)]
    model = land.models(radii) if radii and restarts > 2 else (None, None)
    inner: tuple[float, Peak, Peak] | None = None
    inner_linf: tuple[float, Peak, Peak] | None = None
    for index, radius in enumerate(radii):
        near = [None if part is None else part[:, index] for part in model]
        starts = (land.starts(radius, "l2", restarts, part) for part in near)
        inner = _peaks(land, radius, inner, *starts, ascent_steps=ascent_steps, short=land.short(restarts))
        one_step, (_, highest, steepest) = land.one_step(radius), inner
        sharpness = land.gap(highest, one_step)
        steepest = _steep_enough(land, radius, sharpness, highest, steepest, ascent_steps)
        inner = (radius, highest, steepest)
        columns = {
            "sharpness": sharpness,
            "max_grad_norm": land.nan_where_broken(steepest.value),
            "surrogate_gap": one_step,
            "r1": torch.maximum(radius * steepest.value, sharpness),  # equal to rounding where the loss is linear
        }
        if linf:
            starts_linf = (peak.offset[:, None] for peak in (highest, steepest))
            inner_linf = _peaks(land, radius, inner_linf, *starts_linf, ascent_steps=ascent_steps, norm="linf")
            columns["sharpness_linf"] = land.gap(inner_linf[1], sharpness)
            columns["max_grad_norm_linf"] = land.nan_where_broken(inner_linf[2].value)
        for name, column in columns.items():
            for of_optimizee, value in zip(figures, column.tolist(), strict=True):
                getattr(of_optimizee, name)[radius] = value
    return figures


def _peaks(
    land: LossLandscape,
    radius: float,
    inner: tuple[float, Peak, Peak] | None,
    loss_starts: Tensor,
    slope_starts: Tensor,
    *,
    ascent_steps: int,
    norm: str = "l2",
    short: int = 0,
) -> tuple[float, Peak, Peak]:
    """Radius, largest loss and largest gradient norm; `inner` is the same of a smaller ball, below which none falls."""
    if inner is not None:
        scale = radius / inner[0] if inner[0] else 1.0
        loss_starts = torch.cat([loss_starts, scale * inner[1].offset[:, None]], 1)
        slope_starts = torch.cat([slope_starts, scale * inner[2].offset[:, None]], 1)
    settings: dict[str, Any] = {"norm": norm, "ascent_steps": ascent_steps, "short": short}
    if norm == "linf":  # where climbs seldom meet, and each takes all its steps
        settings = {"norm": norm, "ascent_steps": ascent_steps // 2, "keep": KEPT_LINF}
    highest = land.highest(radius, loss_starts, **settings)
    highest = highest if inner is None else _higher(highest, inner[1])
    slope_starts = torch.cat([slope_starts, highest.offset[:, None]], 1)
    steepest = land.steepest(radius, slope_starts, **settings)
    return radius, highest, steepest if inner is None else _higher(steepest, inner[2])


def _higher(one: Peak, other: Peak) -> Peak:
    first = one.value >= other.value
    return Peak(torch.where(first, one.value, other.value), torch.where(first[:, None], one.offset, other.offset))


def _steep_enough(
    land: LossLandscape, radius: float, sharpness: Tensor, highest: Peak, steepest: Peak, ascent_steps: int
) -> Peak:
    """`steepest`, or better where the mean value theorem says so: somewhere on the way up to the largest loss the
    gradient is at least sharpness / radius. Bisection finds the place, and the search goes on from there.
    """
    eps = torch.finfo(land.theta.dtype).eps
    # a cross-entropy is a difference of logits: however small it is, its rounding errors are those of numbers about 1
    rounding = 64 * eps * torch.maximum(land.value.abs(), highest.value.abs()).clamp_min(1.0)
    lacks = sharpness - radius * steepest.value > rounding
    if not lacks.any():
        return steepest
    points = steepest.offset.clone()
    for b in lacks.nonzero()[:, 0].tolist():
        points[b] = _steep_point(land, b, highest.offset[b], float(sharpness[b]) / radius)
    more = land.steepest_from(radius, points[:, None], norm="l2", ascent_steps=ascent_steps)
    steepest = _higher(more, steepest)
    if (sharpness - radius * steepest.value > rounding).any():
        raise ArithmeticError(
            f"the loss rises by {float(sharpness[lacks].max()):.6g} within {radius:g}, more than its gradient allows "
            "on the way: it is not continuous, not deterministic, or its gradient is wrong"
        )
    return steepest


def _steep_point(land: LossLandscape, b: int, offset: Tensor, needed: float) -> Tensor:
    """A point of the segment from theta to its `offset`, [P], where the gradient's norm is `needed`, by bisection.

    The half that rises more has a place as steep as the whole segment on average. If there is none, the steepest seen.
    """
    theta = land.theta[b]
    low, high = 0.0, 1.0
    bottom, top = float(land.loss(theta)), float(land.loss(theta + offset))
    seen = (-1.0, 0.0)
    for _ in range(BISECTIONS):
        land.tick()
        middle = (low + high) / 2
        gradient, loss = grad_and_value(land.loss)(theta + middle * offset)
        seen, value = max(seen, (float(gradient.norm()), middle)), float(loss)
        if seen[0] >= needed:
            break
        if value - bottom >= top - value:
            high, top = middle, value
        else:
            low, bottom = middle, value
    return seen[1] * offset
