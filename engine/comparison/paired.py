"""Paired differences between an arm and the reference arm: at equal steps, at matched training loss, and against the
frontier that the reference arm traces under scaling, its regular branch, and the grid of scale and weight decay.

A pair is one optimizee seed (the same start, the same batches) under two learned optimizers of the same meta-seed.
Where the arms have no meta-seed in common, they are paired in their order. A baseline has no meta-seeds, and is paired
with each of the arm's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.base.metrics import Metric
from engine.comparison.arms import Arm
from engine.comparison.outcomes import MetaSeed, TaskOutcomes, TaskResult
from engine.comparison.statistics import ROUNDING, Interval, Values, t_interval, verdict
from engine.runs.evaluations import ADAPTIVE, SHARPNESS, TRAIN_LOSS, MetricAt, OptimizeeOutcome, radii

SETTINGS = EQUAL_STEPS, MATCHED_LOSS, FRONTIER = "equal steps", "matched loss", "frontier"
BRANCHES = REGULAR, ENVELOPE, GRID = "regular frontier", "envelope", "scale x weight decay"
READINGS = ("test_loss", ADAPTIVE, SHARPNESS, "top_eigenvalue")  # by ratios to the branches, where they are positive
DIFFERENCE, RATIO = "difference", "ratio"
RATIOS = (ADAPTIVE, SHARPNESS, "max_grad_norm")  # at every radius
LANDSCAPE = ("top_eigenvalue",)  # compared by differences, as what tasks measure
MOST = 0.5  # of the optimizees
FEWEST_SCALES = 2  # besides 1: with fewer there is no frontier to speak of
Point = tuple[float, float]  # train loss (positive), figure


@dataclass(frozen=True)
class Effect:
    """How far an arm is from the reference arm in one metric of one task, at a radius where it is measured at one.

    A `difference` is arm - reference; a `ratio` is the exponential of the mean log(arm / reference). `setting`: at
    equal steps; at matched loss, where both training curves first reach the higher of the two last train losses; or
    against the best point of the frontier at the arm's train loss: the lowest, of accuracy the highest. The last as
    ratios, at the arm's train loss: against the frontier up to the reference's best scale (regular), all of it
    (envelope), and the best point of the grid of scale and weight decay whose train loss is no higher. Of the pairs,
    `outside` are those of which one curve or the frontier does not reach that loss; `left_out` those that diverged, or
    whose metric is missing (of a ratio: not positive). `verdict`: lower, higher, unclear, or too few pairs.
    `meta_seeds_match`: False where meta-seeds were paired in their order. `divergence`: arm - reference in the share of
    optimizees that diverged, over all pairs. `values`: the differences, of a ratio their logarithms.
    """

    task: str
    inner_step: int
    arm: str
    reference: str
    setting: str
    metric: Metric
    radius: str | None
    kind: str
    interval: Interval
    outside: int
    left_out: int
    verdict: str
    meta_seeds_match: bool
    divergence: Interval
    values: Values = field(repr=False, compare=False)

    @property
    def at(self) -> MetricAt:
        """The metric's name and radius."""
        return MetricAt(self.metric.name, self.radius)

    @property
    def is_beyond(self) -> bool:
        """Whether the reference does not reach the train loss of most pairs: the others would be odd ones."""
        return self.outside > self.interval.n


@dataclass(frozen=True)
class Pair:
    """One optimizee seed under both: where it ends, its way there, and the reference's other scales and decays."""

    reference: OptimizeeOutcome
    arm: OptimizeeOutcome
    reference_path: list[OptimizeeOutcome]
    arm_path: list[OptimizeeOutcome]
    grid: dict[Change, OptimizeeOutcome]  # the reference by weight decay and scale, (0, 1) among them
    best_scale: float  # of the reference's meta-seed


Groups = dict[MetaSeed, dict[int, Pair]]


"""By the arm's meta-seed and the optimizee seed."""


Both = tuple[float, float]  # of the reference, of the arm


Change = tuple[float, float]  # weight decay and scale


class OutOfReach(Exception):
    """One of a pair does not reach the train loss at which the two are compared."""


def more_diverged(effect: Effect) -> int:
    """1 where clearly more optimizees diverged under the arm than under its reference, -1 where clearly fewer, else 0.

    Clearly: the interval says so, or over half of all, however much meta-seeds differ. The other optimizees then say
    little: only those were measured that went well.
    """
    more = effect.divergence
    if more.mean is None or more.low is None or more.high is None:
        return 0
    return int(more.low > 0 or more.mean > MOST) - int(more.high < 0 or more.mean < -MOST)


def effects(task: TaskOutcomes, step: int, arm: Arm, reference: Arm) -> list[Effect]:
    """Every metric in every setting; none where one of the arms was not evaluated at that inner step."""
    theirs = task.main(reference)
    if theirs is None:
        return []
    grid = {change: entry for change, entry in task.grid(reference).items() if entry.at(step)}
    settings = [EQUAL_STEPS, MATCHED_LOSS]
    settings += [FRONTIER, REGULAR, ENVELOPE] if has_frontier(task, step, reference) else []
    settings += [GRID] if any(decay for decay, _ in grid) else []
    return list(_effects(task, arm, step, reference.label, theirs, step, settings, grid))


def effects_against(
    task: TaskOutcomes, step: int, arm: Arm, name: str, entry: TaskResult, entry_step: int | None = None
) -> list[Effect]:
    """The same against a baseline, or an untrained learned optimizer, at an inner step of its own if need be."""
    their_step = step if entry_step is None else entry_step
    return list(_effects(task, arm, step, name, entry, their_step, (EQUAL_STEPS, MATCHED_LOSS), {}))


def has_frontier(task: TaskOutcomes, step: int, reference: Arm) -> bool:
    """Whether the reference arm was evaluated under enough scales."""
    return sum(bool(entry.at(step)) for entry in task.scaled(reference).values()) > FEWEST_SCALES


def best_scales(task: TaskOutcomes, step: int, arm: Arm) -> dict[MetaSeed, float]:
    """Each meta-seed's `best_scale`, where an arm has a frontier."""
    if not has_frontier(task, step, arm):
        return {}
    scaled = {scale: entry.at(step) for scale, entry in task.scaled(arm).items()}
    meta_seeds = dict.fromkeys(seed for outcomes in scaled.values() for seed in outcomes)
    best = {seed: best_scale({scale: by.get(seed, {}) for scale, by in scaled.items()}) for seed in meta_seeds}
    return {seed: scale for seed, scale in best.items() if scale is not None}


def best_scale(scaled: Mapping[float, Mapping[Any, OptimizeeOutcome]]) -> float | None:
    """The scale of the lowest mean train loss over optimizees, of those at which none diverged; None where all did.

    It splits a frontier: up to it the updates grow and the loss falls, the regular branch; beyond it, in the overshoot,
    sharpness may fall because the parameters grow.
    """
    losses = {
        scale: math.fsum(outcome.metrics[TRAIN_LOSS] for outcome in outcomes.values()) / len(outcomes)
        for scale, outcomes in scaled.items()
        if outcomes and all(TRAIN_LOSS in outcome.metrics and not outcome.diverged for outcome in outcomes.values())
    }
    return min(losses, key=lambda scale: losses[scale], default=None)


def is_compared(metric: Metric) -> bool:
    """Whether arms are compared in a metric of theirs."""
    return metric.split == "test" or metric.name in (TRAIN_LOSS.name, *LANDSCAPE, *RATIOS)


def _effects(
    task: TaskOutcomes,
    arm: Arm,
    step: int,
    reference: str,
    theirs: TaskResult,
    their_step: int,
    settings: Iterable[str],
    grid: Mapping[Change, TaskResult],
) -> Iterator[Effect]:
    ours = task.main(arm)
    if ours is None:
        return
    groups, match = _pairs(theirs, their_step, ours, step, grid)
    one_opponent = theirs.arm is None
    lost = {key: {n: float(p.arm.diverged) - p.reference.diverged for n, p in g.items()} for key, g in groups.items()}
    divergence = t_interval(lost, one_opponent=one_opponent)
    for setting in settings:
        for at in _compared(groups.values(), task):
            if at.name in READINGS if setting in BRANCHES else setting == EQUAL_STEPS or at != TRAIN_LOSS:
                metric = task.metric(at.name)
                kind = RATIO if at.name in RATIOS or setting in BRANCHES else DIFFERENCE
                values, outside, left_out = _values(groups, setting, at, metric, kind)
                interval = t_interval(values, one_opponent=one_opponent)
                yield Effect(
                    task=task.name,
                    inner_step=step,
                    arm=arm.label,
                    reference=reference,
                    setting=setting,
                    metric=metric,
                    radius=at.radius,
                    kind=kind,
                    interval=exponential(interval) if kind == RATIO else interval,
                    outside=outside,
                    left_out=left_out,
                    verdict=verdict(interval, nothing=0.0),
                    meta_seeds_match=match,
                    divergence=divergence,
                    values=values,
                )


def _pairs(
    theirs: TaskResult, their_step: int, ours: TaskResult, step: int, grid: Mapping[Change, TaskResult]
) -> tuple[Groups, bool]:
    """The pairs of every pair of meta-seeds, by the arm's, and whether these are the same."""
    reference, arm = theirs.at(their_step), ours.at(step)
    shared = [(seed if seed in reference else None, seed) for seed in arm if seed in reference or None in reference]
    in_order = zip(sorted(reference, key=_order), sorted(arm, key=_order), strict=False)
    groups: Groups = {}
    for their_seed, our_seed in shared or in_order:
        on_grid = {change: entry.at(their_step).get(their_seed, {}) for change, entry in grid.items()}
        best = best_scale({scale: outcomes for (decay, scale), outcomes in on_grid.items() if not decay}) or 0.0
        groups[our_seed] = {
            seed: Pair(
                reference[their_seed][seed],
                arm[our_seed][seed],
                theirs.path(their_seed, seed, their_step),
                ours.path(our_seed, seed, step),
                {change: outcomes[seed] for change, outcomes in on_grid.items() if seed in outcomes},
                best,
            )
            for seed in reference[their_seed]
            if seed in arm[our_seed]
        }
    return groups, bool(shared)


def _order(seed: MetaSeed) -> tuple[bool, int, str]:
    return isinstance(seed, str), seed if isinstance(seed, int) else 0, str(seed)


def _compared(groups: Iterable[Mapping[int, Pair]], task: TaskOutcomes) -> list[MetricAt]:
    """What is compared: the metrics that both have, or one of them where the other diverged.

    First test loss and adaptive sharpness, where that was measured; then what else the task measures on the test split,
    losses, the landscape, and what has a radius.
    """
    measured: set[MetricAt] = set()
    for pair in (pair for group in groups for pair in group.values()):
        ours, theirs = pair.arm.metrics.keys(), pair.reference.metrics.keys()
        measured |= (
            ours & theirs | (theirs if pair.arm.diverged else set()) | (ours if pair.reference.diverged else set())
        )
    others = sorted({at.name for at in measured if task.metric(at.name).split == "test"} - {"test_loss"})
    at_radii = [MetricAt(name, radius) for name in RATIOS for radius in radii(measured, name)]
    adaptive = [at for at in at_radii if at.name == ADAPTIVE]
    first = [MetricAt("test_loss"), *adaptive] if adaptive else []
    plain = [MetricAt(name) for name in (*others, TRAIN_LOSS.name, "test_loss", *LANDSCAPE)]
    return [at for at in dict.fromkeys([*first, *plain, *at_radii]) if at in measured]


def _values(groups: Groups, setting: str, at: MetricAt, metric: Metric, kind: str) -> tuple[Values, int, int]:
    """The differences; how many pairs are outside; and how many are left out."""
    outside = left_out = 0
    values: dict[MetaSeed, dict[int, float]] = {}
    for meta_seed, group in groups.items():
        of_meta_seed = values.setdefault(meta_seed, {})
        for seed, pair in group.items():
            try:
                is_sound = not (pair.reference.diverged or pair.arm.diverged)
                both = _read(pair, setting, at, metric) if is_sound else None
            except OutOfReach:
                outside += 1
                continue
            if both is None or (kind == RATIO and min(both) <= 0):
                left_out += 1
            else:
                of_meta_seed[seed] = _difference(*both, kind)
    return values, outside, left_out


def _difference(theirs: float, ours: float, kind: str) -> float:
    if math.isclose(theirs, ours, rel_tol=ROUNDING):
        return 0.0
    return math.log(ours) - math.log(theirs) if kind == RATIO else ours - theirs


def exponential(interval: Interval) -> Interval:
    """Of logarithms of ratios, the ratios."""
    mean, low, high, detectable = (
        None if end is None else math.exp(min(end, 700.0))
        for end in (interval.mean, interval.low, interval.high, interval.detectable)
    )
    return replace(interval, mean=mean, low=low, high=high, detectable=detectable)


def _read(pair: Pair, setting: str, at: MetricAt, metric: Metric) -> Both | None:
    """The metric of both in a setting; None where it is missing. Raises OutOfReach."""
    if setting == EQUAL_STEPS:
        return _at_the_end(pair, at)
    return _at_matched_loss(pair, at) if setting == MATCHED_LOSS else _at_frontier(pair, setting, at, metric)


def _at_the_end(pair: Pair, at: MetricAt) -> Both | None:
    theirs, ours = pair.reference.metrics.get(at), pair.arm.metrics.get(at)
    return None if theirs is None or ours is None else (theirs, ours)


def _at_matched_loss(pair: Pair, at: MetricAt) -> Both | None:
    ends = _at_the_end(pair, TRAIN_LOSS)
    curves = [_polyline(path, at) for path in (pair.reference_path, pair.arm_path)]
    if ends is None or min(ends) <= 0 or not all(curves):
        return None
    theirs, ours = (at_first_crossing(curve, max(ends)) for curve in curves)
    if theirs is None or ours is None:
        raise OutOfReach
    return theirs, ours


def _at_frontier(pair: Pair, setting: str, at: MetricAt, metric: Metric) -> Both | None:
    """The best point of the reference's at the arm's train loss, and the arm's: of the polyline through its scales, in
    order, up to the best where `setting` is REGULAR; of GRID, of the points whose train loss is no higher, and of where
    its lines, of one weight decay or of one scale, pass that loss.
    """
    loss, ours = pair.arm.metrics.get(TRAIN_LOSS, 0.0), pair.arm.metrics.get(at)
    last = pair.best_scale if setting == REGULAR else math.inf
    scaled = [change for change in sorted(pair.grid) if not change[0] and change[1] <= last]
    lines, reached = [scaled], list[float]()
    if setting == GRID:
        lines = [[c for c in sorted(pair.grid) if c[i] == value] for i in (0, 1) for value in {c[i] for c in pair.grid}]
    points = [_polyline([pair.grid[change] for change in line], at) for line in lines]
    if loss <= 0 or ours is None or not any(points):
        return None
    for line in points:
        reached += [value for train_loss, value in line if setting == GRID and train_loss <= loss]
        reached += crossings(line, loss)
    if not reached:
        raise OutOfReach
    return metric.best(reached), ours


def _polyline(outcomes: Iterable[OptimizeeOutcome], at: MetricAt) -> list[Point]:
    """Train loss and metric of those outcomes that have both and did not diverge."""
    sound = (outcome.metrics for outcome in outcomes if not outcome.diverged)
    points = ((metrics.get(TRAIN_LOSS), metrics.get(at)) for metrics in sound)
    return [(loss, value) for loss, value in points if loss is not None and loss > 0 and value is not None]


def at_first_crossing(curve: Sequence[Point], loss: float) -> float | None:
    """The figure where a learning curve first comes down to a train loss.

    None where it does not: it ends above, or is below it already where it was first measured.
    """
    if not curve or curve[0][0] < loss:
        return None
    return next(crossings(curve, loss, downward=True), None)


def crossings(curve: Sequence[Point], loss: float, *, downward: bool = False) -> Iterator[float]:
    """The figure wherever the polyline passes a train loss, from its beginning on; `downward`: only as loss falls."""
    if len(curve) == 1 and curve[0][0] == loss:
        yield curve[0][1]
    for first, second in zip(curve, curve[1:], strict=False):
        falls = first[0] >= loss >= second[0]
        if falls or (not downward and first[0] <= loss <= second[0]):
            yield _between(first, second, loss)
            if first[0] == second[0]:  # a vertical piece: its other end counts as well
                yield second[1]


def _between(first: Point, second: Point, loss: float) -> float:
    if loss == first[0]:
        return first[1]
    if loss == second[0]:
        return second[1]
    length = math.log(first[0]) - math.log(second[0])
    share = (math.log(first[0]) - math.log(loss)) / length if length else 0.0  # 0: neighbours among floats
    if first[1] > 0 and second[1] > 0:
        return math.exp((1 - share) * math.log(first[1]) + share * math.log(second[1]))
    return (1 - share) * first[1] + share * second[1]
