"""Findings: single comparisons in one word, by their interval, their meta-seeds, and who diverged.

An interval that includes no difference is "not found", neither for nor against.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engine.base.metrics import metric
from engine.comparison import Effect, Entry, Figure, Interval, holm, t_interval, verdict
from engine.comparison.paired import DIFFERENCE, RATIO, exponential, more_diverged
from engine.comparison.statistics import FEWEST_META_SEEDS
from engine.runs.results import CONFIDENCE
from engine.study.report import markdown

BETTER, WORSE, NOT_FOUND = "better", "worse", "not found"
TOO_FEW, TOO_FEW_META_SEEDS = "too few pairs", "too few meta-seeds"
UNTESTED = (TOO_FEW, TOO_FEW_META_SEEDS)
PROGRESS = ("test_accuracy", "train_loss", "test_loss")  # whoever diverged has the worst of these


@dataclass(frozen=True)
class Finding:
    """One comparison. `row` and `column`: its place in the claim's table. `arms`: whose runs it rests on. `p`: to be
    corrected for the number of a claim's comparisons; None where something else than the interval has decided.
    """

    row: str
    column: str
    word: str
    shown: str = ""
    arms: tuple[str, ...] = ()
    task: str = ""
    inner_step: int | None = None
    setting: str = ""
    figure: Figure | None = None
    kind: str = DIFFERENCE
    interval: Interval | None = None
    p: float | None = None


def judged(effect: Effect, row: str, column: str) -> Finding:
    """An effect of an arm against its reference as a finding."""
    survived = outlived(effect)
    lost = f"diverged {100 * (effect.divergence.mean or 0.0):+.0f}%"
    return Finding(
        row,
        column,
        word_of(effect),
        lost if survived else shown_as(effect.figure, effect.kind, effect.interval),
        (effect.arm, effect.reference),
        effect.task,
        effect.inner_step,
        effect.setting,
        effect.figure,
        effect.kind,
        effect.interval,
        None if survived else effect.interval.p,
    )


def word_of(effect: Effect) -> str:
    """An effect in one word. Those optimizees that went well decide nothing where clearly more diverged on one side."""
    if effect.divergence.meta_seeds < FEWEST_META_SEEDS:
        return TOO_FEW_META_SEEDS
    if word := outlived(effect):
        return word
    return TOO_FEW if effect.interval.meta_seeds < FEWEST_META_SEEDS else word_for(effect.verdict, effect.figure)


def outlived(effect: Effect) -> str:
    """worse where the arm diverged clearly more often than its reference; better, in what tells how far training came,
    where the reference did; else nothing.
    """
    more = more_diverged(effect) if effect.divergence.meta_seeds >= FEWEST_META_SEEDS else 0
    if more > 0:
        return WORSE
    return BETTER if more < 0 and effect.figure.name in PROGRESS else ""


def measured(values: Mapping[int | str | None, float], figure: Figure, row: str, column: str, kind: str) -> Finding:
    """A finding from one paired difference for each meta-seed; of a ratio, from the logarithms."""
    interval = t_interval({meta_seed: {0: value} for meta_seed, value in values.items()})
    word = word_for(verdict(interval, nothing=0.0), figure)
    word = TOO_FEW_META_SEEDS if interval.meta_seeds < FEWEST_META_SEEDS else word
    interval = exponential(interval) if kind == RATIO else interval
    shown = shown_as(figure, kind, interval)
    return Finding(row, column, word, shown, figure=figure, kind=kind, interval=interval, p=interval.p)


def corrected(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """What is left of the words when p-values are corrected for the number of comparisons (Holm)."""
    tested = [item for item in findings if item.p is not None and item.word not in UNTESTED]
    values = holm([item.p for item in tested if item.p is not None])
    lost = {id(item) for item, p in zip(tested, values, strict=True) if p >= 1 - CONFIDENCE}
    return tuple(replace(item, word=NOT_FOUND) if id(item) in lost else item for item in findings)


def word_for(verdict: str, figure: Figure) -> str:
    """Lower or higher as better or worse."""
    good = metric(figure.name).better or "lower"
    if verdict in ("lower", "higher"):
        return BETTER if verdict == good else WORSE
    return NOT_FOUND if verdict == "unclear" else TOO_FEW


def shown_as(figure: Figure, kind: str, interval: Interval) -> str:
    """The middle of an interval, short: a ratio as x0.81, accuracy in points."""
    if interval.mean is None:
        return ""
    if kind == RATIO:
        return f"x{markdown.number(interval.mean)}"
    if metric(figure.name).unit == "share":
        return f"{100 * interval.mean:+.2f}"
    return ("+" if interval.mean > 0 else "") + markdown.number(interval.mean)


def log_ratios(
    one: Mapping[int | str | None, float], other: Mapping[int | str | None, float]
) -> dict[int | str | None, float]:
    """log(one / other) by meta-seed, where both are positive."""
    both = {seed: (value, other[seed]) for seed, value in one.items() if seed in other}
    return {seed: math.log(a) - math.log(b) for seed, (a, b) in both.items() if a > 0 and b > 0}


def middle(entry: Entry, step: int, figure: Figure) -> float | None:
    """The mean of a figure over meta-seeds and optimizees that did not diverge."""
    values = [
        outcome.figures[figure]
        for seeds in entry.at(step).values()
        for outcome in seeds.values()
        if not outcome.diverged and figure in outcome.figures
    ]
    return math.fsum(values) / len(values) if values else None


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """The rank correlation of two lists without ties."""
    ranks = [[sorted(values).index(value) for value in values] for values in (one, other)]
    n = len(one)
    return 1 - 6 * sum((a - b) ** 2 for a, b in zip(*ranks, strict=True)) / (n * (n * n - 1))
