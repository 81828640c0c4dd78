"""Paired differences between an arm and the reference arm: at equal steps, at matched training loss, and against the
frontier that the reference arm traces under scaling.

A pair is one optimizee seed (the same start, the same batches) under two learned optimizers of the same meta-seed.
Where the arms have no meta-seed in common, they are paired in their order. A baseline has no meta-seeds, and is paired
with each of the arm's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.comparison.arms import Arm
from engine.comparison.evaluations import Figure
from engine.comparison.outcomes import Entry, TaskOutcomes
from engine.comparison.readings import EQUAL_STEPS, FRONTIER, MATCHED_LOSS, METHODS, TRAIN_LOSS, Outside, Pair
from engine.comparison.statistics import ROUNDING, Interval, Values, t_interval, verdict

SETTINGS = (EQUAL_STEPS, MATCHED_LOSS, FRONTIER)
DIFFERENCE, RATIO = "difference", "ratio"
DIFFERENCES = ("test_accuracy", "train_loss", "test_loss", "top_eigenvalue")
RATIOS = ("sharpness", "max_grad_norm")  # at every radius
MOST = 0.5  # of the optimizees
FEWEST_SCALES = 2  # besides 1: with fewer there is no frontier to speak of

MetaSeed = int | str | None


@dataclass(frozen=True)
class Effect:
    """How far an arm is from the reference arm in one figure of one task.

    A `difference` is arm - reference; a `ratio` is the exponential of the mean log(arm / reference). `setting`: at
    equal steps; at matched loss, where both training curves first reach the higher of the two last train losses; or
    against the lowest point of the frontier (of accuracy: the highest) at the arm's train loss. Of the pairs,
    `outside` are those of which one curve or the frontier does not reach that loss; `left_out` those that diverged, or
    whose figure is missing (of a ratio: not positive). `verdict`: lower, higher, unclear, or too few pairs.
    `meta_seeds_match`: False where meta-seeds were paired in their order. `divergence`: arm - reference in the share of
    optimizees that diverged, over all pairs. `values`: the differences, of a ratio their logarithms.
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
    divergence: Interval
    values: Values = field(repr=False, compare=False)


Groups = dict[MetaSeed, dict[int, Pair]]
"""By the arm's meta-seed and the optimizee seed."""


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
    """Every figure in every setting; none where one of the arms was not evaluated at that inner step."""
    ours, theirs = task.main(arm), task.main(reference)
    if ours is None or theirs is None:
        return []
    scaled = [entry for entry in task.scaled(reference).values() if entry.at(step)]
    settings = [setting for setting in SETTINGS if setting != FRONTIER or len(scaled) > FEWEST_SCALES]
    names = (task.name, arm.label, reference.label)
    return list(_effects(names, _Side(ours, step), _Side(theirs, step), settings, scaled))


def effects_against(
    task: TaskOutcomes, step: int, arm: Arm, name: str, entry: Entry, entry_step: int | None = None
) -> list[Effect]:
    """The same against a baseline, or an untrained learned optimizer, at an inner step of its own if need be."""
    ours = task.main(arm)
    if ours is None:
        return []
    theirs = _Side(entry, step if entry_step is None else entry_step)
    return list(_effects((task.name, arm.label, name), _Side(ours, step), theirs, (EQUAL_STEPS, MATCHED_LOSS), ()))


@dataclass(frozen=True)
class _Side:
    """One of two that are compared, and the inner step at which it is looked at."""

    entry: Entry
    step: int


def _effects(
    names: tuple[str, str, str], ours: _Side, theirs: _Side, settings: Iterable[str], scaled: Sequence[Entry]
) -> Iterator[Effect]:
    """`names`: of the task, the arm and the reference."""
    groups, match = _pairs(theirs, ours, scaled)
    task, arm, reference = names
    one_opponent = theirs.entry.arm is None
    lost = {key: {n: float(p.arm.diverged) - p.reference.diverged for n, p in g.items()} for key, g in groups.items()}
    divergence = t_interval(lost, one_opponent=one_opponent)
    for setting in settings:
        for figure in _figures(groups.values()):
            if setting == EQUAL_STEPS or figure != TRAIN_LOSS:
                kind = RATIO if figure.name in RATIOS else DIFFERENCE
                values, outside, left_out = _values(groups, setting, figure, kind)
                interval = t_interval(values, one_opponent=one_opponent)
                yield Effect(
                    task,
                    ours.step,
                    arm,
                    reference,
                    setting,
                    figure,
                    kind,
                    exponential(interval) if kind == RATIO else interval,
                    outside,
                    left_out,
                    verdict(interval, nothing=0.0),
                    match,
                    divergence,
                    values,
                )


def has_frontier(task: TaskOutcomes, step: int, reference: Arm) -> bool:
    """Whether the reference arm was evaluated under enough scales."""
    return sum(bool(entry.at(step)) for entry in task.scaled(reference).values()) > FEWEST_SCALES


def _pairs(theirs: _Side, ours: _Side, scaled: Sequence[Entry]) -> tuple[Groups, bool]:
    """The pairs of every pair of meta-seeds, by the arm's, and whether these are the same."""
    reference, arm = theirs.entry.at(theirs.step), ours.entry.at(ours.step)
    shared = [(seed if seed in reference else None, seed) for seed in arm if seed in reference or None in reference]
    in_order = zip(sorted(reference, key=_order), sorted(arm, key=_order), strict=False)
    groups: Groups = {}
    for their_seed, our_seed in shared or in_order:
        groups[our_seed] = {
            seed: Pair(
                reference[their_seed][seed],
                arm[our_seed][seed],
                theirs.entry.path(their_seed, seed, theirs.step),
                ours.entry.path(our_seed, seed, ours.step),
                [there[seed] for entry in scaled if seed in (there := entry.at(theirs.step).get(their_seed, {}))],
            )
            for seed in reference[their_seed]
            if seed in arm[our_seed]
        }
    return groups, bool(shared)


def _order(seed: int | str | None) -> tuple[bool, int, str]:
    return isinstance(seed, str), seed if isinstance(seed, int) else 0, str(seed)


def _figures(groups: Iterable[Mapping[int, Pair]]) -> list[Figure]:
    """The figures that are compared: those that both have, or one of them where the other diverged."""
    there: set[Figure] = set()
    for group in groups:
        for pair in group.values():
            there |= pair.reference.figures.keys() & pair.arm.figures.keys()
            there |= pair.reference.figures.keys() if pair.arm.diverged else set()
            there |= pair.arm.figures.keys() if pair.reference.diverged else set()
    plain = [Figure(name) for name in DIFFERENCES]
    radii = sorted({figure.radius for figure in there if figure.radius}, key=float)
    return [
        figure for figure in (*plain, *(Figure(name, radius) for name in RATIOS for radius in radii)) if figure in there
    ]


def _values(groups: Groups, setting: str, figure: Figure, kind: str) -> tuple[Values, int, int]:
    """The differences; how many pairs are outside; and how many are left out."""
    outside = left_out = 0
    values: dict[MetaSeed, dict[int, float]] = {}
    for meta_seed, group in groups.items():
        own = values.setdefault(meta_seed, {})
        for seed, pair in group.items():
            try:
                found = None if pair.reference.diverged or pair.arm.diverged else METHODS[setting](pair, figure)
            except Outside:
                outside += 1
                continue
            if found is None or (kind == RATIO and min(found) <= 0):
                left_out += 1
            else:
                own[seed] = _difference(*found, kind)
    return values, outside, left_out


def _difference(theirs: float, ours: float, kind: str) -> float:
    if math.isclose(theirs, ours, rel_tol=ROUNDING):
        return 0.0
    return math.log(ours) - math.log(theirs) if kind == RATIO else ours - theirs


def exponential(interval: Interval) -> Interval:
    """Of logarithms of ratios, the ratios."""
    mean, low, high = (
        None if value is None else math.exp(min(value, 700.0)) for value in (interval.mean, interval.low, interval.high)
    )
    return replace(interval, mean=mean, low=low, high=high)
