"""Paired differences between an arm and the reference arm: at equal steps, at matched training loss, and against the
frontier that the reference arm traces under scaling.

A pair is one optimizee seed (the same start, the same batches) under two learned optimizers of the same meta-seed.
Where the arms have no meta-seed in common, they are paired in their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from engine.comparison.arms import Arm
from engine.comparison.curves import Point, at_first_crossing, crossings
from engine.comparison.evaluations import Figure, Outcome
from engine.comparison.outcomes import Entry, TaskOutcomes
from engine.comparison.statistics import ROUNDING, Interval, bootstrap, verdict

EQUAL_STEPS, MATCHED_LOSS, FRONTIER = "equal steps", "matched loss", "frontier"
SETTINGS = (EQUAL_STEPS, MATCHED_LOSS, FRONTIER)
DIFFERENCE, RATIO = "difference", "ratio"
DIFFERENCES = ("test_accuracy", "train_loss", "test_loss", "top_eigenvalue")
RATIOS = ("sharpness", "max_grad_norm")  # at every radius
FEWEST_SCALES = 2  # besides 1: with fewer there is no frontier to speak of
TRAIN_LOSS = Figure("train_loss")

Values = tuple[float, float]  # of the reference, of the arm


@dataclass(frozen=True)
class Effect:
    """How far an arm is from the reference arm in one figure of one task.

    A `difference` is arm - reference; a `ratio` is the exponential of the mean log(arm / reference). `setting`: at
    equal steps; at matched loss, where both training curves first reach the higher of the two last train losses; or
    against the lowest point of the frontier (of accuracy: the highest) at the arm's train loss. Of the pairs,
    `outside` are those of which one curve or the frontier does not reach that loss; `left_out` those that diverged, or
    whose figure is missing (of a ratio: not positive). `verdict`: lower, higher, unclear, or too few pairs.
    `meta_seeds_match`: False where meta-seeds were paired in their order.
    """

    task: str
    inner_step: int
    arm: str
    reference: str
    setting: str
    figure: Figure
    kind: str
    interval: Interval
    outside: int
    left_out: int
    verdict: str
    meta_seeds_match: bool


@dataclass(frozen=True)
class Pair:
    """One optimizee seed under both: where it ends, its way there, and the reference's other scales."""

    reference: Outcome
    arm: Outcome
    reference_path: list[Outcome]
    arm_path: list[Outcome]
    scaled: list[Outcome]  # the reference under its scales, ascending, 1 among them


class Outside(Exception):
    """One of a pair does not reach the train loss at which the two are compared."""


def effects(task: TaskOutcomes, step: int, arm: Arm, reference: Arm) -> list[Effect]:
    """Every figure in every setting; none where one of the arms was not evaluated at that inner step."""
    ours, theirs = task.main(arm), task.main(reference)
    if ours is None or theirs is None or not ours.at(step) or not theirs.at(step):
        return []
    scaled = {scale: entry for scale, entry in task.scaled(reference).items() if entry.at(step)}
    groups, match = _pairs(theirs, ours, list(scaled.values()), step)
    settings = [setting for setting in SETTINGS if setting != FRONTIER or len(scaled) > FEWEST_SCALES]
    found = []
    for setting in settings:
        for figure in _figures(groups):
            if setting == EQUAL_STEPS or figure != TRAIN_LOSS:
                effect = Effect(
                    task.name,
                    step,
                    arm.label,
                    reference.label,
                    setting,
                    figure,
                    *_effect(groups, setting, figure),
                    match,
                )
                found.append(effect)
    return found


def has_frontier(task: TaskOutcomes, step: int, reference: Arm) -> bool:
    """Whether the reference arm was evaluated under enough scales."""
    return sum(bool(entry.at(step)) for entry in task.scaled(reference).values()) > FEWEST_SCALES


def _pairs(reference: Entry, arm: Entry, scaled: list[Entry], step: int) -> tuple[list[list[Pair]], bool]:
    """The pairs of every pair of meta-seeds, and whether these are the same."""
    theirs, ours = reference.at(step), arm.at(step)
    shared = [(seed, seed) for seed in theirs if seed in ours]
    in_order = zip(sorted(theirs, key=_order), sorted(ours, key=_order), strict=False)
    groups = []
    for their_seed, our_seed in shared or in_order:
        groups.append(
            [
                Pair(
                    theirs[their_seed][seed],
                    ours[our_seed][seed],
                    reference.path(their_seed, seed, step),
                    arm.path(our_seed, seed, step),
                    [there[seed] for entry in scaled if seed in (there := entry.at(step).get(their_seed, {}))],
                )
                for seed in theirs[their_seed]
                if seed in ours[our_seed]
            ]
        )
    return groups, bool(shared)


def _order(seed: int | str | None) -> tuple[bool, int, str]:
    return isinstance(seed, str), seed if isinstance(seed, int) else 0, str(seed)


def _figures(groups: Iterable[Iterable[Pair]]) -> list[Figure]:
    """The figures that are compared: those that both have."""
    there: set[Figure] = set()
    for group in groups:
        for pair in group:
            there |= pair.reference.figures.keys() & pair.arm.figures.keys()
    plain = [Figure(name) for name in DIFFERENCES]
    radii = sorted({figure.radius for figure in there if figure.radius}, key=float)
    return [
        figure for figure in (*plain, *(Figure(name, radius) for name in RATIOS for radius in radii)) if figure in there
    ]


def _effect(groups: list[list[Pair]], setting: str, figure: Figure) -> tuple[str, Interval, int, int, str]:
    """Kind, interval, pairs outside, pairs left out, verdict."""
    kind = RATIO if figure.name in RATIOS else DIFFERENCE
    outside = left_out = 0
    values: list[list[float]] = []
    for group in groups:
        values.append([])
        for pair in group:
            try:
                found = None if pair.reference.diverged or pair.arm.diverged else METHODS[setting](pair, figure)
            except Outside:
                outside += 1
                continue
            if found is None or (kind == RATIO and min(found) <= 0):
                left_out += 1
            else:
                values[-1].append(_difference(*found, kind))
    interval = bootstrap(values)
    word = verdict(interval, nothing=0.0)
    return kind, _exponential(interval) if kind == RATIO else interval, outside, left_out, word


def _difference(theirs: float, ours: float, kind: str) -> float:
    if math.isclose(theirs, ours, rel_tol=ROUNDING):
        return 0.0
    return math.log(ours) - math.log(theirs) if kind == RATIO else ours - theirs


def _exponential(interval: Interval) -> Interval:
    mean, low, high = (
        None if value is None else math.exp(min(value, 700.0)) for value in (interval.mean, interval.low, interval.high)
    )
    return replace(interval, mean=mean, low=low, high=high)


def _at_equal_steps(pair: Pair, figure: Figure) -> Values | None:
    theirs, ours = pair.reference.figures.get(figure), pair.arm.figures.get(figure)
    return None if theirs is None or ours is None else (theirs, ours)


def _at_matched_loss(pair: Pair, figure: Figure) -> Values | None:
    ends = _at_equal_steps(pair, TRAIN_LOSS)
    curves = [_polyline(path, figure) for path in (pair.reference_path, pair.arm_path)]
    if ends is None or min(ends) <= 0 or not all(curves):
        return None
    theirs, ours = (at_first_crossing(curve, max(ends)) for curve in curves)
    if theirs is None or ours is None:
        raise Outside
    return theirs, ours


def _at_frontier(pair: Pair, figure: Figure) -> Values | None:
    loss, ours = pair.arm.figures.get(TRAIN_LOSS, 0.0), pair.arm.figures.get(figure)
    line = _polyline([outcome for outcome in pair.scaled if not outcome.diverged], figure)
    if loss <= 0 or ours is None or len(line) < 2:
        return None
    passed = list(crossings(line, loss))
    if not passed:
        raise Outside
    return max(passed) if figure.name == "test_accuracy" else min(passed), ours


METHODS: Mapping[str, Callable[[Pair, Figure], Values | None]] = {
    EQUAL_STEPS: _at_equal_steps,
    MATCHED_LOSS: _at_matched_loss,
    FRONTIER: _at_frontier,
}


def _polyline(outcomes: Iterable[Outcome], figure: Figure) -> list[Point]:
    """Train loss and figure of those outcomes that have both."""
    points = ((outcome.figures.get(TRAIN_LOSS), outcome.figures.get(figure)) for outcome in outcomes)
    return [(loss, value) for loss, value in points if loss is not None and loss > 0 and value is not None]
