"""The figure of meta-training: meta-loss and validation loss against the meta-step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from engine.base.errors import LregError
from engine.comparison import Arm
from engine.figures.base import ARM, Axis, Line, Panel, Who, in_order, scale_for

METRICS = ("meta_loss", "validation_loss")
WINDOWS = 20  # the smoothing window is one of so many parts of a line
LEAST_POINTS = 100  # a line with fewer is not smoothed
MOST_POINTS = 400  # of a line; more cannot be seen
TAILS = (0.1, 0.9)
LARGEST = 1e300  # what is beyond cannot be drawn: differences would not be finite
CURVES = {  # key of `describe`, x, title, label of x
    "outputs": ("quantile", "update rule, sorted outputs", "quantile of random inputs"),
    "slice": ("feature", "update rule, slice", "first input feature"),
}


def meta_training(arms: Sequence[Arm], metrics: Sequence[str] = METRICS) -> list[Panel]:
    """A panel for each of these metrics that was recorded.

    It has a moving median over all runs of an arm, in a band of the moving 10% and 90% quantiles.
    """
    for run in (run for arm in arms for run in arm.runs):
        run.reader.poll()
    panels = []
    for metric in metrics:
        series = [(Who(ARM, number, arm.label), _values(arm, metric)) for number, arm in enumerate(in_order(arms))]
        lines = tuple(smoothed(who, steps, values) for who, (steps, values) in series if steps)
        if lines:
            ends = [end for line in lines for end in (*line.low, *line.high) if math.isfinite(end)]
            scale = scale_for(ends)
            panels.append(Panel("meta-training", Axis("meta-step"), Axis(metric, scale), lines))
    return panels


def _values(arm: Arm, metric: str) -> tuple[list[float], list[float]]:
    """Steps and values of all runs of an arm, in the order of the steps."""
    pairs = [
        (step, value)
        for run in arm.runs
        for step, value in zip(*run.reader.series(metric), strict=True)
        if math.isfinite(step)
    ]
    pairs.sort(key=lambda pair: pair[0])
    return [step for step, _ in pairs], [value for _, value in pairs]


def smoothed(who: Who, steps: Sequence[float], values: Sequence[float]) -> Line:
    """The line through the medians of a moving window; below 100 steps the window is one step wide.

    It has a gap at steps none of whose values can be drawn.
    """
    import numpy as np

    every, recorded = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    is_drawn = np.abs(recorded) <= LARGEST
    x, y, broken = every[is_drawn], recorded[is_drawn], np.unique(every[~is_drawn])
    breaks = tuple((step, float(recorded[~is_drawn & (every == step)][0])) for step in _few(broken).tolist())
    if not len(x):
        nothing = (math.nan,) * len(breaks)
        return Line(who, tuple(step for step, _ in breaks), nothing, nothing, nothing, breaks=breaks)
    drawn, gaps = np.unique(x), np.setdiff1d(broken, x)
    half = (drawn[-1] - drawn[0]) / WINDOWS / 2 if len(drawn) >= LEAST_POINTS else 0.0
    middles = np.union1d(_few(drawn), gaps)
    first, last = np.searchsorted(x, middles - half, "left"), np.searchsorted(x, middles + half, "right")
    quantiles = np.full((len(middles), 3), np.nan)
    for index in np.flatnonzero(~np.isin(middles, gaps)):
        quantiles[index] = np.quantile(y[first[index] : last[index]], (0.5, *TAILS))
    middle, low, high = (tuple(column.tolist()) for column in quantiles.T)
    return Line(who, tuple(middles.tolist()), middle, low, high, breaks=breaks)


def _few(steps: Any) -> Any:
    """So many of them, from the first to the last, as can be seen."""
    import numpy as np

    if len(steps) <= MOST_POINTS:
        return steps
    return steps[np.linspace(0, len(steps) - 1, MOST_POINTS).round().astype(int)]


def update_rules(arms: Sequence[Arm], checkpoint: str = "best") -> list[Panel]:
    """Sorted updates at random inputs, and the update along the first feature. Several runs of an arm: their mean, in
    a band from the smallest to the largest. Runs without a usable checkpoint are left out.
    """
    described = [
        (Who(ARM, number, arm.label), _described(arm, checkpoint)) for number, arm in enumerate(in_order(arms))
    ]
    panels = []
    for key, (x, title, label) in CURVES.items():
        drawn = [_line(who, [one[key] for one in rules], x) for who, rules in described if rules]
        if lines := tuple(line for line in drawn if line is not None):
            panels.append(Panel(title, Axis(label), Axis("update"), lines))
    return panels


def _described(arm: Arm, checkpoint: str) -> list[dict[str, Any]]:
    from engine.evaluation.frozen import load_learned_optimizer
    from engine.evaluation.update_rule import describe

    rules = []
    for run in arm.runs:
        try:
            rules.append(describe(*load_learned_optimizer(run.reader, checkpoint)))
        except LregError:
            continue  # no checkpoint yet, or a damaged one: `blocks` says so where nothing is left
    return rules


def _line(who: Who, runs: Sequence[Mapping[str, Sequence[float | None]]], x: str) -> Line | None:
    """Mean, least and largest update over the runs, where all of them are finite."""
    columns = zip(runs[0][x], *(run["update"] for run in runs), strict=True)
    whole = [[float(value) for value in column if value is not None] for column in columns]
    sound = [column for column in whole if len(column) == 1 + len(runs)]
    if not sound:
        return None
    means = tuple(math.fsum(updates) / len(updates) for _, *updates in sound)
    low, high = (tuple(pick(updates) for _, *updates in sound) for pick in (min, max))
    return Line(who, tuple(column[0] for column in sound), means, low, high)
