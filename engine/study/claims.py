"""Claims: what papers say, what would decide it, and what a study has found. Every rule is written beside its verdict.

A claim rests on findings: single comparisons with an interval. An interval that includes no difference is "not found",
neither for nor against.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine.comparison import Effect, Entry, Figure, Interval, Outcome, bootstrap, verdict
from engine.comparison.paired import DIFFERENCE, RATIO
from engine.comparison.tables import HIGHER_IS_BETTER
from engine.study import markdown

if TYPE_CHECKING:
    from engine.study.evidence import Evidence

SUPPORTED, NOT_SUPPORTED, MIXED, NOT_TESTED = "supported", "not supported", "mixed", "not tested"
BETTER, WORSE, NOT_FOUND, TOO_FEW = "better", "worse", "not found", "too few pairs"
WORDS = {"unclear": NOT_FOUND, TOO_FEW: TOO_FEW}
RULE = "supported: better in all comparisons; mixed: in some; not supported: in none"


@dataclass(frozen=True)
class Finding:
    """One comparison. `row` and `column`: its place in the claim's table. `arms`: whose runs it rests on."""

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


@dataclass(frozen=True)
class Claim:
    """A claim with its verdict. `source`: who makes it, and where it is read. `reason`: how the rule came out."""

    name: str
    text: str
    source: str
    rule: str
    verdict: str
    reason: str
    findings: tuple[Finding, ...] = ()

    @property
    def counts(self) -> str:
        """How many comparisons came out how, short."""
        counts = Counter(finding.word for finding in self.findings)
        return ", ".join(f"{counts[word]} {word}" for word in (BETTER, WORSE, NOT_FOUND, TOO_FEW) if counts[word])


@dataclass(frozen=True)
class Question:
    """A claim before it is decided. `missing`: why there may be nothing to decide it by."""

    name: str
    text: str
    source: str
    rule: str
    missing: str

    def decided(self, findings: Iterable[Finding], remark: str = "") -> Claim:
        """By counting: better in all comparisons, in some, in none. Those with too few pairs do not count."""
        found = tuple(findings)
        counts = Counter(finding.word for finding in found)
        tested = len(found) - counts[TOO_FEW]
        if not found:
            return self._claim(NOT_TESTED, self.missing)
        if not tested:
            return self._claim(NOT_TESTED, said(found), found)
        word = SUPPORTED if counts[BETTER] == tested else MIXED if counts[BETTER] else NOT_SUPPORTED
        return self._claim(word, "; ".join(filter(None, [said(found), remark])), found)

    def because(self, word: str, reason: str, findings: Iterable[Finding] = ()) -> Claim:
        return self._claim(word, reason, tuple(findings))

    def _claim(self, word: str, reason: str, findings: tuple[Finding, ...] = ()) -> Claim:
        return Claim(self.name, self.text, self.source, self.rule, word, reason, findings)


def claims(evidence: Evidence) -> dict[str, list[Claim]]:
    """The claims that a study's report looks at, by what they are called: those of its paper, and our controls."""
    from engine.study import claims_controls, claims_lr, claims_xh

    paper = evidence.plan.report.get("paper", "")
    found: dict[str, list[Claim]] = {}
    if paper == "lr":
        found["Claims of Learning Regularizers (arXiv:2510.08968)"] = claims_lr.claims(evidence)
    if paper == "xh":
        found["Claims of Learning to Learn with Smooth Regularization (ECCV 2022)"] = claims_xh.claims(evidence)
    found["Controls"] = claims_controls.claims(evidence)
    return found


def said(findings: Sequence[Finding]) -> str:
    """How the comparisons came out, in one line."""
    counts = Counter(finding.word for finding in findings)
    parts = [f"{word} in {counts[word]}" for word in (BETTER, WORSE, NOT_FOUND) if counts[word]]
    few = f"{counts[TOO_FEW]} with too few pairs" if counts[TOO_FEW] else ""
    tested = len(findings) - counts[TOO_FEW]
    whole = f"{', '.join(parts)} of {markdown.count(tested, 'comparison')}" if parts else ""
    return "; ".join(filter(None, [whole, few]))


def judged(effect: Effect, row: str, column: str) -> Finding:
    """An effect of an arm against its reference as a finding."""
    return Finding(
        row,
        column,
        word_for(effect.verdict, effect.figure),
        shown_as(effect.figure, effect.kind, effect.interval),
        (effect.arm, effect.reference),
        effect.task,
        effect.inner_step,
        effect.setting,
        effect.figure,
        effect.kind,
        effect.interval,
    )


def measured(
    groups: Sequence[Sequence[float]], figure: Figure, row: str, column: str, *, kind: str = DIFFERENCE
) -> Finding:
    """A finding from paired differences by meta-seed; of a ratio, from the logarithms."""
    interval = bootstrap(groups)
    word = verdict(interval, nothing=0.0)
    if kind == RATIO:
        ends = (interval.mean, interval.low, interval.high)
        mean, low, high = (None if end is None else math.exp(min(end, 700.0)) for end in ends)
        interval = replace(interval, mean=mean, low=low, high=high)
    shown = shown_as(figure, kind, interval)
    return Finding(row, column, word_for(word, figure), shown, figure=figure, kind=kind, interval=interval)


def word_for(verdict: str, figure: Figure) -> str:
    """Lower or higher as better or worse."""
    good = "higher" if figure.name in HIGHER_IS_BETTER else "lower"
    return WORDS.get(verdict) or (BETTER if verdict == good else WORSE)


def shown_as(figure: Figure, kind: str, interval: Interval) -> str:
    """The middle of an interval, short: a ratio as x0.81, accuracy in points."""
    if interval.mean is None:
        return ""
    if kind == RATIO:
        return f"x{markdown.number(interval.mean)}"
    if figure.name in HIGHER_IS_BETTER:
        return f"{100 * interval.mean:+.2f}"
    return ("+" if interval.mean > 0 else "") + markdown.number(interval.mean)


def pairs(
    one: Mapping[int | str | None, Mapping[int, Outcome]],
    other: Mapping[int | str | None, Mapping[int, Outcome]],
    value: Callable[[Outcome, Outcome], float | None],
) -> list[list[float]]:
    """The differences of two optimizers by meta-seed, where the same optimizee went well under both.

    A hand-designed optimizer has no meta-seeds (None), and is paired with each.
    """
    groups = []
    for meta_seed, seeds in one.items():
        others = other.get(meta_seed, other.get(None, {}))
        both = [(ours, others[seed]) for seed, ours in seeds.items() if seed in others]
        found = [value(*pair) for pair in both if not any(outcome.diverged for outcome in pair)]
        groups.append([difference for difference in found if difference is not None])
    return groups


def difference(figure: Figure) -> Callable[[Outcome, Outcome], float | None]:
    """One - other in a figure."""

    def of(one: Outcome, other: Outcome) -> float | None:
        mine, its = one.figures.get(figure), other.figures.get(figure)
        return None if mine is None or its is None else mine - its

    return of


def log_ratio(figure: Figure) -> Callable[[Outcome, Outcome], float | None]:
    """log(one / other) in a figure that is positive."""

    def of(one: Outcome, other: Outcome) -> float | None:
        mine, its = one.figures.get(figure, 0.0), other.figures.get(figure, 0.0)
        return math.log(mine) - math.log(its) if mine > 0 and its > 0 else None

    return of


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
