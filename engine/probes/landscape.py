"""Everything the probes share at theta: loss, gradient, Hessian-vector products, where searches start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp

from engine.base.flat import (
    Loss,
    PartedLoss,
    as_far_as_possible,
    grad,
    grad_and_hvp,
    grad_and_value,
    project,
    side_by_side,
    unit,
)
from engine.probes.ascent import Ascent, Peak, Tick, boundary, climb, nothing, portion
from engine.probes.spectrum import Krylov, hutchinson, lanczos, model_peaks, randn

ITERATIONS = 60
FEW_PARAMETERS = 5000  # up to so many, Lanczos vectors cost nothing
POLISHING = 2  # ascent steps in theta's precision from where a draft's search ended
DRAFT_ERROR = 1e-3  # of its gradient at theta, relative, up to which a draft is searched first


class LossLandscape:
    """The loss about B optimizees, theta [B, P], none of which knows of the others.

    Build it through `landscapes`, which bounds B: the graph of the Hessian-vector products lives as long as this does.
    """

    scale: Tensor | None = None  # [B, P], the unit of length of each coordinate; None: 1
    draft: LossLandscape | None = None
    """The same in float32, where there is one: it is searched, and what it finds is measured and polished here."""

    def __init__(self, loss: Loss, theta: Tensor, *, iterations: int, seed: int, tick: Tick) -> None:
        self.loss, self.theta, self.tick = loss, theta, tick
        self.iterations, self._seed = iterations, seed
        self.at_once = portion(theta, loss)

        self.climb_loss: Ascent = lambda point: grad_and_value(loss)(point)[::-1]
        self.climb_slope: Ascent = lambda point: _norm_and_ascent(loss, point)

    @cached_property
    def _linear(self) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor]], Tensor]:
        loss, theta = self.loss, self.theta  # what is kept must not hold this: it would outlive its use
        if isinstance(loss, PartedLoss) and len(loss.parts) > 1:  # whose graphs are not kept
            gradient, value = as_far_as_possible(grad_and_value(loss))(theta)
            product = side_by_side(lambda point, vector: grad_and_hvp(loss, point, vector)[1])
            return gradient.detach(), lambda vectors: (product(theta, vectors),), value.detach()
        linear: Any = vjp(as_far_as_possible(grad_and_value(loss)), theta, has_aux=True)
        gradient, pull_back, value = linear
        return gradient.detach(), pull_back, value.detach()

    @property
    def gradient(self) -> Tensor:
        """g, [B, P]."""
        return self._linear[0]

    @property
    def value(self) -> Tensor:
        """The loss, [B]."""
        return self._linear[2]

    def nan_where_broken(self, figure: Tensor) -> Tensor:
        """A figure, [B] or [B, ...], NaN for the optimizees whose loss or gradient's norm at theta is not finite."""
        sound = self.value.isfinite() & self.gradient.norm(dim=-1).isfinite()
        return torch.where(sound.view(-1, *[1] * (figure.dim() - 1)), figure, torch.nan)

    def hvp(self, vectors: Tensor) -> Tensor:
        """H v for each optimizee's v, [B, P]: half of the work of a new one, as the graph is kept."""
        return self._linear[1](vectors)[0].detach()

    @cached_property
    def curved(self) -> Tensor:
        """H g / |g|, [B, P]: the gradient of the gradient's norm."""
        return self.hvp(unit(self.gradient))

    @cached_property
    def krylov(self) -> list[Krylov]:
        """Lanczos, from halfway between the gradient and a random vector: it must know both the slope and the top."""
        if self.draft is not None:
            return self.draft.krylov
        chance = unit(randn(1, self.theta, self._seed))
        return lanczos(self.hvp, unit(unit(self.gradient) + chance), self.iterations, self.tick)

    @cached_property
    def top(self) -> tuple[Tensor, Tensor]:
        """Largest eigenvalues, [B], and unit eigenvectors, [B, P], to start from: some vector where it is NaN."""
        values, vectors = map(torch.stack, zip(*(krylov.top() for krylov in self.krylov), strict=True))
        if self.draft is not None:  # the quotient is off by the square of what the vector is off by
            vectors = unit(vectors.to(self.theta))
            values = torch.where(values.isfinite(), (vectors * self.hvp(vectors)).sum(-1), torch.nan)
        return values, vectors

    @property
    def eigenpair(self) -> tuple[Tensor, Tensor]:
        """Largest eigenvalues, [B], and their unit eigenvectors, [B, P]; NaN where something is not finite."""
        values, vectors = self.nan_where_broken(self.top[0]), self.top[1]
        return values, torch.where(values.isfinite()[:, None], vectors, torch.nan)

    def trace(self, samples: int) -> Tensor:
        """The Hessian's trace, [B], by so many random vectors."""
        hvp, theta = (self.hvp, self.theta) if self.draft is None else (self.draft.hvp, self.draft.theta)
        return self.nan_where_broken(hutchinson(hvp, theta, samples, self._seed, self.tick).to(self.value))

    def models(self, radii: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Offsets, [B, radii, P] each, where the quadratic model has its largest loss and gradient norm."""
        if self.draft is not None:
            return self.draft.models(radii)
        parts = zip(self.krylov, self.gradient, self.curved, strict=True)
        loss, slope = zip(*(model_peaks(*part, radii) for part in parts), strict=True)
        return torch.stack(loss), torch.stack(slope)

    def starts(self, radius: float, norm: str, restarts: int, model: Tensor | None) -> Tensor:
        """Where `restarts` climbs, but the one that jumps from theta to the one-step point, start, [B, S, P].

        Both ways along the top eigenvector, then random directions. From 3 restarts on the maximum of the quadratic
        model, [B, P], is one more, and where there are random ones, theta again; these come first and are `short`.
        """
        if self.draft is not None:
            return self.draft.starts(radius, norm, restarts, model)
        points: list[Tensor] = []
        if restarts > 3:
            chance = boundary(randn(restarts - 3, self.theta, self._seed + 1), radius, norm)
            points = [torch.zeros_like(self.theta), *(part.expand_as(self.theta) for part in chance)]
        if restarts > 1:
            points += [boundary(sign * self.top[1], radius, norm) for sign in (1, -1)[: restarts - 1]]
        if restarts > 2 and model is not None:
            points.append(model)
        return torch.stack(points, 1) if points else self.theta[:, None][:, :0]

    @staticmethod
    def short(restarts: int) -> int:
        """How many of the first `starts` begin with short steps."""
        return restarts - 2 if restarts > 3 else 0

    def highest(self, radius: float, starts: Tensor, **how: Any) -> Peak:
        """The largest loss in the ball, [B], and where, [B, P]. `how`: norm, ascent_steps, short, keep, as `climb`."""
        if self.draft is not None:
            starts, how = self._drafted(self.draft.highest, radius, starts, how)
        centre = Peak(self.value, self.gradient)
        how |= {"tick": self.tick, "scale": self.scale, "at_once": self.at_once}
        return climb(self.climb_loss, self.theta, radius, starts, centre, self.value, **how)

    def steepest(self, radius: float, starts: Tensor, **how: Any) -> Peak:
        """The largest gradient norm in the ball, [B], and where, [B, P]."""
        if self.draft is not None:
            starts, how = self._drafted(self.draft.steepest, radius, starts, how)
        return self.steepest_from(radius, starts, **how)

    def steepest_from(self, radius: float, starts: Tensor, **how: Any) -> Peak:
        """The same without a draft: nowhere below the gradient norm at a start."""
        centre, zero = Peak(self.gradient.norm(dim=-1), self.curved), torch.zeros_like(self.value)
        how |= {"tick": self.tick, "at_once": self.at_once}
        return climb(self.climb_slope, self.theta, radius, starts, centre, zero, **how)

    def _drafted(
        self, search: Callable[..., Peak], radius: float, starts: Tensor, how: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Where the draft's search ends, [B, 1, P], and how to go on from there."""
        offset = search(radius, starts.float(), **how).offset.to(self.theta)
        norm = how["norm"]
        return project(offset, radius, norm)[:, None], {"norm": norm, "ascent_steps": POLISHING, "polish": True}

    def sharpness(self, radius: float, norm: str, restarts: int, ascent_steps: int, keep: int = 0) -> Tensor:
        """The largest loss that a search finds in the ball, minus the loss at theta, [B]. `keep`: as `climb` has it."""
        starts = self.starts(radius, norm, restarts, self._model(0, radius, norm, restarts))
        how = {"norm": norm, "ascent_steps": ascent_steps, "short": self.short(restarts), "keep": keep}
        peak = self.highest(radius, starts, **how)
        return self.gap(peak, self.one_step(radius, norm))

    def max_grad_norm(self, radius: float, norm: str, restarts: int, ascent_steps: int) -> Tensor:
        """The largest gradient norm that a search finds in the ball, [B]."""
        starts = self.starts(radius, norm, restarts, self._model(1, radius, norm, restarts))
        peak = self.steepest(radius, starts, norm=norm, ascent_steps=ascent_steps, short=self.short(restarts))
        return self.nan_where_broken(peak.value)

    def _model(self, index: int, radius: float, norm: str, restarts: int) -> Tensor | None:
        return self.models([radius])[index][:, 0] if norm == "l2" and restarts > 2 else None

    def gap(self, peak: Peak, one_step: Tensor) -> Tensor:
        """The gap of a search, [B], which visits theta and the one-step point: below neither, whatever the rounding."""
        least = one_step.nan_to_num(-torch.inf, neginf=-torch.inf, posinf=-torch.inf)
        return self.nan_where_broken(torch.maximum(peak.value - self.value, least).clamp_min(0.0))

    def one_step(self, radius: float, norm: str = "l2") -> Tensor:
        """Loss one step of length `radius` up the gradient, minus the loss at theta, [B]."""
        loss = as_far_as_possible(self.loss)
        offset = boundary(self.gradient, radius, norm)
        ahead = loss(self.theta + (offset if self.scale is None else self.scale * offset))
        return self.nan_where_broken((ahead - loss(self.theta)).detach())


class AdaptiveLandscape(LossLandscape):
    """The same landscape with |theta| as the unit of length of each coordinate: of what it measures, the loss's search.

    In z, theta + |theta| z, ASAM's ball ||e / |theta||| <= radius is a ball like any other. A parameter of 0 stays.
    """

    def __init__(self, plain: LossLandscape, iterations: int) -> None:
        super().__init__(plain.loss, plain.theta, iterations=iterations, seed=plain._seed, tick=plain.tick)
        self._plain = plain
        self.draft = None if plain.draft is None else AdaptiveLandscape(plain.draft, iterations)
        self.scale = plain.theta.abs()

    @cached_property
    def _linear(self) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor]], Tensor]:
        gradient, pull_back, value = self._plain._linear
        scale = self._plain.theta.abs()
        return scale * gradient, lambda vectors: (scale * pull_back(scale * vectors)[0],), value


def landscapes(
    loss: Loss,
    theta: Tensor,
    *,
    draft: Loss | None = None,
    iterations: int | None = None,
    seed: int = 0,
    tick: Tick = nothing,
) -> Iterator[LossLandscape]:
    """Those of B optimizees, theta [B, P], in portions that fit into memory, to be used one after another.

    `draft` is the same loss in float32, that is searched first where float32 knows the gradient: not of a tiny loss,
    all of whose digits are rounding. At most `iterations` Lanczos steps; by default `ITERATIONS`, and more where
    parameters are few.
    """
    if iterations is None:
        iterations = ITERATIONS if theta.shape[-1] > FEW_PARAMETERS else 5 * ITERATIONS
    how: dict[str, Any] = {"iterations": iterations, "seed": seed, "tick": tick}
    for part in theta.detach().split(max(1, portion(theta, loss) // 4)):
        holds = [False] * len(part) if draft is None else _draft_holds(loss, draft, part)
        for drafted, rows in groupby(range(len(part)), holds.__getitem__):
            points = part[list(rows)]
            land = LossLandscape(loss, points, **how)
            if draft is not None and drafted:
                land.draft = LossLandscape(draft, points.float(), **how)
            yield land


def _draft_holds(loss: Loss, draft: Loss, theta: Tensor) -> list[bool]:
    """Whether float32 knows the gradient at theta, [B, P]."""
    exact, rough = as_far_as_possible(grad(loss))(theta), as_far_as_possible(grad(draft))(theta.float())
    return ((rough - exact).norm(dim=-1) <= DRAFT_ERROR * exact.norm(dim=-1)).tolist()


def _norm_and_ascent(loss: Loss, point: Tensor) -> tuple[Tensor, Tensor]:
    gradient, direction = grad_and_hvp(loss, point, unit)
    return gradient.norm(), direction
