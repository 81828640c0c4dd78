"""The figure of the update rule around the zero state (Xiong & Hsieh, Fig. 7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from engine.base.errors import LregError
from engine.comparison import Arm
from engine.figures.base import ARM, Axis, Line, Panel, Who, in_order

CURVES = {  # key of `describe`, x, title, label of x
    "outputs": ("quantile", "update rule, sorted outputs", "quantile of random inputs"),
    "slice": ("feature", "update rule, slice", "first input feature"),
}


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
