"""The figure of meta-training: meta-loss and validation loss against the meta-step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.comparison import Arm
from engine.figures.base import ARM, Axis, Line, Panel, Who, in_order, scale_for

METRICS = ("meta_loss", "validation_loss")
WINDOWS = 20  # the smoothing window is one of so many parts of a line
LEAST_POINTS = 100  # a line with fewer is not smoothed
MOST_POINTS = 400  # of a line; more cannot be seen
TAILS = (0.1, 0.9)


def meta_training(arms: Sequence[Arm]) -> list[Panel]:
    """A panel a metric: a moving median over all runs of an arm, in a band of the moving 10% and 90% quantiles."""
    for run in (run for arm in arms for run in arm.runs):
        run.reader.poll()
    panels = []
    for metric in METRICS:
        found = [(Who(ARM, number, arm.label), _values(arm, metric)) for number, arm in enumerate(in_order(arms))]
        lines = tuple(smoothed(who, steps, values) for who, (steps, values) in found if steps)
        if lines:
            scale = scale_for([value for line in lines for value in (*line.low, *line.high)])
            panels.append(Panel("meta-training", Axis("meta-step"), Axis(metric, scale), lines))
    return panels


def _values(arm: Arm, metric: str) -> tuple[list[float], list[float]]:
    """Steps and finite values of all runs of an arm, in the order of the steps."""
    pairs = [
        (step, value)
        for run in arm.runs
        for step, value in zip(*run.reader.series(metric), strict=True)
        if math.isfinite(value) and math.isfinite(step)
    ]
    pairs.sort()
    return [step for step, _ in pairs], [value for _, value in pairs]


def smoothed(who: Who, steps: Sequence[float], values: Sequence[float]) -> Line:
    """The line through the medians of a moving window; below 100 steps the window is one step wide."""
    import numpy as np

    x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    places = np.unique(x)
    half = (places[-1] - places[0]) / WINDOWS / 2 if len(places) >= LEAST_POINTS else 0.0
    if len(places) > MOST_POINTS:
        places = places[np.linspace(0, len(places) - 1, MOST_POINTS).round().astype(int)]
    first, last = np.searchsorted(x, places - half, "left"), np.searchsorted(x, places + half, "right")
    quantiles = [np.quantile(y[a:b], (0.5, *TAILS)) for a, b in zip(first, last, strict=True)]
    middle, low, high = (tuple(map(float, part)) for part in zip(*quantiles, strict=True))
    return Line(who, tuple(map(float, places)), middle, low, high)
