"""Search for the largest figure in a ball: monotone projected ascent from many starts, for many optimizees at once.

Shape letters: B optimizees, N points that climb, S starts of one optimizee, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from engine.base.flat import Loss, PartedLoss, as_far_as_possible, project, unit

AT_ONCE = 2**22  # parameters of all points that are computed together
POINTS = 16  # and points: of a small network the activations weigh most
MERGED = 0.02  # climbs whose next points lie this near each other, relative to their distance from theta, go on as one
FAILURES = 8  # a climb ends after so many steps in a row that did not gain: at a kink the promise never fades
SHORT = 1 / 6  # reach of a climb that starts with short steps, of radius / 5
PATIENCE = 4.0  # a climb is given up when even this many times its last gain, at every step left, would not catch up

Ascent = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A point, [P], to the figure to maximise there, [], and the gradient of that figure, [P]."""

Tick = Callable[[], None]
"""Called between computations; may raise to interrupt."""


def nothing() -> None:
    """A tick where nobody wants to interrupt."""


class Peak(NamedTuple):
    """The best point of a search: its figure, shape [], and its place relative to theta, shape [P]; or [B], [B, P]."""

    value: Tensor
    offset: Tensor


def climb(
    ascent: Ascent,
    theta: Tensor,
    radius: float,
    starts: Tensor,
    centre: Peak,
    base: Tensor,
    *,
    norm: str,
    ascent_steps: int,
    tick: Tick,
    short: int = 0,
    keep: int = 0,
    polish: bool = False,
    scale: Tensor | None = None,
    at_once: int = POINTS,
) -> Peak:
    """Best points, for B optimizees, that projected ascent visits in the balls of `radius` about theta, [B, P], from
    theta and starts, [B, S, P]; what is known at theta itself is not computed again.

    A climb jumps to the boundary point along the ascent, which is a maximum's own fixed point where that lies on the
    boundary; where a jump would lose, it takes ever shorter steps from its best point, which also finds maxima inside.
    It ends when a step promises no more than rounding, or after 1.5 `ascent_steps`.

    `centre` holds the figure, [B], and its gradient, [B, P], at theta. A step counts as long as it promises more than a
    `tolerance` of what the best point has above `base`, [B]. The first `short` starts begin with short steps, so
    that they do not jump over what is near. After the first step the best `keep` climbs of an optimizee go on; 0: all.
    To `polish` what a search in float32 found: from the starts alone, by steps that promise more than it can resolve.
    With a `scale`, [B, P], offsets, starts, ball and the gradient of `centre` are in units of it. Not more than
    `at_once` points are computed together.
    """
    if radius == 0:
        return Peak(centre.value, torch.zeros_like(theta))
    limit = ascent_steps + ascent_steps // 2
    best = Peak(torch.where(centre.value.isfinite(), centre.value, -torch.inf), torch.zeros_like(theta))
    ascents = as_far_as_possible(ascent)
    front = _front(ascents, theta, starts, None if polish else centre, short, scale, tick, at_once)
    relative = tolerance(torch.float32 if polish else theta.dtype)
    for taken in range(limit):
        best = _better(best, front)
        front = front.take(_promising(front, best.value[front.owner], limit - taken))
        trial = front.trial(radius, norm)
        promise = (front.direction * (trial - front.offset)).sum(-1)
        worth = promise > _resolution(best.value, base, relative)[front.owner]
        worth &= _leading(front, trial, worth, keep if taken else 0)
        front, trial, promise = front.take(worth), trial[worth], promise[worth]
        if not len(trial):
            break
        front.move(trial, *evaluate(ascents, theta, front.owner, trial, scale, tick, at_once), promise)
    return _better(best, front)


def evaluate(
    ascents: Ascent,
    theta: Tensor,
    owner: Tensor,
    offsets: Tensor,
    scale: Tensor | None,
    tick: Tick,
    at_once: int = POINTS,
) -> tuple[Tensor, Tensor]:
    """Figures, [N], and gradients, [N, P], at theta[owner] + offsets; where a figure is not finite: -inf and zeros.

    `ascents` does for many points, [N, P], what an `Ascent` does for one. Offsets and gradients are in units of
    scale[owner], where there is one.
    """
    if not len(owner):
        return theta.new_empty(0), torch.empty_like(offsets)
    values, directions = [], []
    for rows in torch.arange(len(owner), device=theta.device).split(at_once):
        tick()
        unit_length = 1.0 if scale is None else scale[owner[rows]]
        value, direction = ascents(theta[owner[rows]] + unit_length * offsets[rows])
        direction = unit_length * direction
        sound = value.isfinite() & direction.isfinite().all(-1)
        values.append(torch.where(sound, value, -torch.inf))
        directions.append(torch.where(sound[:, None], direction, 0.0))
    return torch.cat(values).detach(), torch.cat(directions).detach()


def portion(theta: Tensor, loss: Loss) -> int:
    """How many points the size of theta's last dimension a loss is taken at together, so that memory is bounded."""
    most = min(POINTS, AT_ONCE // theta.shape[-1])
    return max(1, min(most, loss.points) if isinstance(loss, PartedLoss) and loss.points else most)


def boundary(direction: Tensor, radius: float, norm: str) -> Tensor:
    """The point of the ball that is furthest along `direction`, shape [..., P]; 0 where that is 0."""
    return radius * (direction.sign() if norm == "linf" else unit(direction))


def tolerance(dtype: torch.dtype) -> float:
    """Relative gain that is not worth a step: 1e-11 in float64, 1e-5 in float32."""
    return float(torch.finfo(dtype).eps ** 0.7)


@dataclass
class _Front:
    """Where N climbs stand: each at the best point that it has visited."""

    owner: Tensor  # [N], which optimizee
    offset: Tensor  # [N, P]
    value: Tensor  # [N]
    direction: Tensor  # [N, P], gradient of the value
    reach: Tensor  # [N], of the next step: 1 is a jump to the boundary, less is a step of radius reach/(1-reach)
    gain: Tensor  # [N], of the last step that gained, halved by each failure since
    failures: Tensor  # [N], steps since then

    def take(self, mask: Tensor) -> _Front:
        """The climbs that `mask`, [N], selects."""
        if bool(mask.all()):
            return self
        return _Front(*(getattr(self, field.name)[mask] for field in fields(self)))

    def trial(self, radius: float, norm: str) -> Tensor:
        """Where the next step leads, [N, P]."""
        jump = self.reach[:, None] >= 1
        length = torch.where(jump, 0.0, self.reach[:, None] / (1 - self.reach[:, None]))
        stride = boundary(self.direction, radius, norm)
        return torch.where(jump, stride, project(self.offset + length * stride, radius, norm))

    def move(self, trial: Tensor, value: Tensor, direction: Tensor, promise: Tensor) -> None:
        """Go to the trial points that are higher; where not, shorten the step as the slopes at both ends suggest."""
        change = value - self.value
        higher = change > 0
        end = (direction * (trial - self.offset)).sum(-1)
        shrink = (promise / (promise - end)).nan_to_num(0.5).clamp(0.1, 0.5)
        self.reach = torch.where(higher, (2 * self.reach).clamp_max(1.0), shrink * self.reach)
        self.gain = torch.where(higher, change, self.gain / 2)
        self.failures = torch.where(higher, 0, self.failures + 1)
        self.offset = torch.where(higher[:, None], trial, self.offset)
        self.direction = torch.where(higher[:, None], direction, self.direction)
        self.value = torch.where(higher, value, self.value)


def _front(
    ascents: Ascent,
    theta: Tensor,
    starts: Tensor,
    centre: Peak | None,
    short: int,
    scale: Tensor | None,
    tick: Tick,
    at_once: int,
) -> _Front:
    """All climbs at their starts; before those of each optimizee theta, whose jump is the one-step point, if `centre`
    says what is known there.
    """
    count, each, size = starts.shape
    owner = torch.arange(count, device=theta.device).repeat_interleave(each)
    value, direction = evaluate(ascents, theta, owner, starts.reshape(-1, size), scale, tick, at_once)
    value, direction = value.view(count, each), direction.view(count, each, size)
    reach = torch.ones_like(value)
    reach[:, :short] = SHORT
    if centre is not None:
        sound = centre.value.isfinite() & centre.offset.isfinite().all(-1)
        value = torch.cat([torch.where(sound, centre.value, -torch.inf)[:, None], value], 1)
        direction = torch.cat([torch.where(sound[:, None], centre.offset, 0.0)[:, None], direction], 1)
        starts = torch.cat([torch.zeros_like(theta)[:, None], starts], 1)
        reach = torch.cat([torch.ones_like(value[:, :1]), reach], 1)
        owner = torch.arange(count, device=theta.device).repeat_interleave(each + 1)
    offset, direction, value = starts.flatten(0, 1), direction.flatten(0, 1), value.flatten()
    gain = torch.full_like(value, torch.inf)
    return _Front(owner, offset, value, direction, reach.flatten(), gain, torch.zeros_like(owner))


def _better(best: Peak, front: _Front) -> Peak:
    """The best point of each optimizee, now that its climbs stand where they stand."""
    value = best.value.scatter_reduce(0, front.owner, front.value, "amax")
    rows = (front.value > best.value[front.owner]) & (front.value == value[front.owner])
    offset = best.offset.clone() if bool(rows.any()) else best.offset
    for row in rows.nonzero()[:, 0].tolist():
        offset[front.owner[row]] = front.offset[row]
    return Peak(value, offset)


def _resolution(best: Tensor, base: Tensor, relative: float) -> Tensor:
    """The gain, [B], below which a step is not worth while."""
    eps = torch.finfo(best.dtype).eps
    return relative * (best - base).clamp_min(0.0) + 4 * eps * best.abs().nan_to_num(posinf=0.0)


def _promising(front: _Front, best: Tensor, left: int) -> Tensor:
    """Which climbs, [N], go on: not those that have failed for good or fallen behind for good; `best` is [N]."""
    alive = (front.failures < FAILURES) & (front.reach > tolerance(best.dtype) ** 0.5) & front.value.isfinite()
    return alive & (best - front.value <= PATIENCE * left * front.gain)


def _leading(front: _Front, trial: Tensor, alive: Tensor, keep: int) -> Tensor:
    """Which climbs, [N], go on: of those about to meet, the highest, and of the rest the highest `keep`, or all."""
    leading = torch.zeros_like(alive)
    for owner in front.owner[alive].unique().tolist():
        rows = (alive & (front.owner == owner)).nonzero()[:, 0]
        rows = rows[front.value[rows].argsort(descending=True, stable=True)]
        points = trial[rows]
        near = torch.cdist(points, points) <= MERGED * points.norm(dim=-1)
        rows = rows[~near.triu(1).any(0)]  # near none that is higher
        leading[rows[:keep] if keep else rows] = True
    return leading
