"""Claims: what somebody says, what would decide it, and what a study has found. The rule stands beside the verdict.

A claim rests on findings: single comparisons in one word, by their interval, their meta-seeds, and who diverged. An
interval that includes no difference is "not found", neither for nor against.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from engine.base.metrics import Metric, metric
from engine.comparison import Effect, Interval, MetricAt, holm, t_interval, verdict
from engine.comparison.paired import DIFFERENCE, RATIO, exponential, more_diverged
from engine.comparison.statistics import FEWEST_META_SEEDS
from engine.runs.results import CONFIDENCE
from engine.study.report import markdown
from engine.study.report.evidence import Evidence

BETTER, WORSE, NOT_FOUND = "better", "worse", "not found"
TOO_FEW, TOO_FEW_META_SEEDS = "too few pairs", "too few meta-seeds"
TESTED, UNTESTED = (BETTER, WORSE, NOT_FOUND), (TOO_FEW, TOO_FEW_META_SEEDS)
WORDS = (*TESTED, *UNTESTED)
SUPPORTED, MIXED, NOT_TESTED = "supported", "mixed", "not tested"
NOT_SUPPORTED = "not supported"  # no evidence for it
CONTRADICTED = "contradicted"  # evidence against it
VERDICTS = (
    "Verdicts, where a rule does not say otherwise. **Supported**: better in all comparisons, and none is missing; "
    "**mixed**: better in some; **contradicted**: worse in some, better in none; **not supported**: neither was found, "
    "so there is no evidence. A comparison is better or worse if its interval excludes no difference even after a Holm "
    "correction for the number of the claim's comparisons (figures shown are not corrected), and if it has at least "
    f"{FEWEST_META_SEEDS} meta-seeds. Where clearly more optimizees diverged under an arm than under its reference "
    "(interval above 0, or over half of all) it is worse, whatever the others reached; where clearly fewer did, it is "
    "better in what the task measures. Where a task measures no accuracy, what it is judged by stands for it."
)
MetaSeed = int | str | None
BySeed = Mapping[MetaSeed, float]
"""A number for each meta-seed."""
EXPLAINED = (
    "*Power from* says how small an effect this design finds: one of that size or larger comes out clear of none in "
    "80% of such studies (t-test at 5%, not corrected; as many meta-seeds, with the spread that was measured)"
)


# -- findings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """One comparison. `row` and `column`: its place in the claim's table. `arms`: whose runs it rests on. `p`: to be
    corrected for the number of a claim's comparisons; None where something else than the interval has decided.
    """

    row: str
    column: str
    word: str
    text: str = ""
    arms: tuple[str, ...] = ()
    task: str = ""
    inner_step: int | None = None
    setting: str = ""
    at: MetricAt | None = None
    kind: str = DIFFERENCE
    interval: Interval | None = None
    p: float | None = None


def findings(
    study: Evidence,
    pairs: Iterable[tuple[str, str]],
    readings: Mapping[str, tuple[str, str]],
    tasks: Iterable[str] | None = None,
    column: Callable[[str, str], str] = lambda arm, reference: arm,
) -> list[Finding]:
    """Arms against other arms, task by task: one for each reading, a setting and the name of a metric."""
    pairs = list(pairs)
    return [
        judged(study, effect, f"{task}, {words}" if words else task, column(arm, reference))
        for task in (study.tasks if tasks is None else tasks)
        for words, (setting, name) in readings.items()
        for arm, reference in pairs
        if (effect := study.effect(task, arm, reference, setting, study.metric_at(task, name))) is not None
    ]


def judged(study: Evidence, effect: Effect, row: str, column: str) -> Finding:
    """An effect of an arm against its reference as a finding."""
    measured, survived = study.metric(effect.task, effect.at.name), outlived(study, effect)
    return Finding(
        row,
        column,
        word_of(study, effect),
        f"diverged {100 * (effect.divergence.mean or 0.0):+.0f}%"
        if survived
        else shown_as(measured, effect.kind, effect.interval),
        (effect.arm, effect.reference),
        effect.task,
        effect.inner_step,
        effect.setting,
        effect.at,
        effect.kind,
        effect.interval,
        None if survived else effect.interval.p,
    )


def word_of(study: Evidence, effect: Effect) -> str:
    """An effect in one word. Those optimizees that went well decide nothing where clearly more diverged on one side."""
    if effect.divergence.meta_seeds < FEWEST_META_SEEDS:
        return TOO_FEW_META_SEEDS
    if word := outlived(study, effect):
        return word
    if effect.interval.meta_seeds < FEWEST_META_SEEDS:
        return TOO_FEW
    return word_for(effect.verdict, study.metric(effect.task, effect.at.name))


def outlived(study: Evidence, effect: Effect) -> str:
    """worse where the arm diverged clearly more often than its reference; better, in what tells how far training came,
    where the reference did; else nothing.
    """
    more = more_diverged(effect) if effect.divergence.meta_seeds >= FEWEST_META_SEEDS else 0
    if more > 0:
        return WORSE
    return BETTER if more < 0 and study.metric(effect.task, effect.at.name).kind == "task" else ""


def measured(values: BySeed, name: str, row: str, column: str, kind: str, *arms: str, setting: str) -> Finding:
    """A finding from one paired difference for each meta-seed; of a ratio, from the logarithms."""
    interval = t_interval({meta_seed: {0: value} for meta_seed, value in values.items()})
    word = word_for(verdict(interval, nothing=0.0), metric(name))
    word = TOO_FEW_META_SEEDS if interval.meta_seeds < FEWEST_META_SEEDS else word
    interval = exponential(interval) if kind == RATIO else interval
    text = shown_as(metric(name), kind, interval)
    return Finding(row, column, word, text, arms, "", None, setting, MetricAt(name), kind, interval, interval.p)


def log_ratios(one: BySeed, other: BySeed) -> BySeed:
    """log(one / other) by meta-seed, where both are positive."""
    both = {seed: (value, other[seed]) for seed, value in one.items() if seed in other}
    return {seed: math.log(a) - math.log(b) for seed, (a, b) in both.items() if a > 0 and b > 0}


def word_for(verdict: str, metric: Metric) -> str:
    """Lower or higher as better or worse; of a number that knows no better, lower is."""
    if verdict in ("lower", "higher"):
        return BETTER if verdict == (metric.better or "lower") else WORSE
    return NOT_FOUND if verdict == "unclear" else TOO_FEW


def shown_as(metric: Metric, kind: str, interval: Interval) -> str:
    """The middle of an interval, short: a ratio as x0.81, a share in points."""
    if interval.mean is None:
        return ""
    if kind == RATIO:
        return f"x{markdown.number(interval.mean)}"
    if metric.unit == "share":
        return f"{100 * interval.mean:+.2f}"
    return ("+" if interval.mean > 0 else "") + markdown.number(interval.mean)


def corrected(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """What is left of the words when p-values are corrected for the number of comparisons (Holm)."""
    tested = {id(item): item.p for item in findings if item.p is not None and item.word in TESTED}
    p_values = dict(zip(tested, holm(list(tested.values())), strict=True))
    return tuple(
        replace(item, word=NOT_FOUND) if p_values.get(id(item), 0.0) >= 1 - CONFIDENCE else item for item in findings
    )


# -- claims ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """`source`: who makes it, and where it is read. `missing`: why there may be nothing to decide it by. `wants`: the
    arms that it is about; `lacks`: what is not there of them, in words, then it is never wholly supported. `reason`:
    how the rule came out. `waiting`: those of the arms it rests on of which something has not ended.
    """

    name: str
    text: str
    source: str
    rule: str
    missing: str
    wants: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    verdict: str = NOT_TESTED
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    waiting: tuple[str, ...] = ()

    def decided(self, findings: Iterable[Finding], remark: str = "") -> Claim:
        """By counting: better in all comparisons, in some, in none; worse in some."""
        findings = corrected(tuple(findings))
        words = Counter(item.word for item in findings if item.word in TESTED)
        if not words:
            return self.because(NOT_TESTED, said(findings) or self.missing, findings)
        if words[BETTER]:
            word = SUPPORTED if words[BETTER] == words.total() else MIXED
        else:
            word = CONTRADICTED if words[WORSE] else NOT_SUPPORTED
        return self.because(word, "; ".join(filter(None, [said(findings), remark])), findings)

    def because(self, word: str, reason: str, findings: Sequence[Finding] = ()) -> Claim:
        """A verdict with its reason; no more than mixed where something is missing, which the reason names."""
        lost = Counter((item.arms[0], item.word) for item in findings if item.word in UNTESTED)
        untested = [f"{arm} ({few} in {n})" for (arm, few), n in lost.items()] if word != NOT_TESTED else []
        absent = [*self.lacks, *untested]
        word = MIXED if word == SUPPORTED and absent else word
        reason = "; ".join(filter(None, [reason, f"missing: {', '.join(absent)}" if absent else ""]))
        return replace(self, verdict=word, reason=reason, findings=tuple(findings))

    @property
    def counts(self) -> str:
        """How many comparisons came out how, short."""
        counts = Counter(item.word for item in self.findings)
        return ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])

    @property
    def arms(self) -> set[str]:
        """Whose runs it rests on, or would."""
        return {*self.wants, *(arm for item in self.findings for arm in item.arms)}


def said(findings: Sequence[Finding]) -> str:
    """How the comparisons came out, in one line."""
    counts = Counter(item.word for item in findings)
    parts = [f"{word} in {counts[word]}" for word in TESTED if counts[word]]
    tested = sum(counts[word] for word in TESTED)
    whole = f"{', '.join(parts)} of {markdown.count(tested, 'comparison')}" if parts else ""
    few = [f"{counts[word]} with {word}" for word in UNTESTED if counts[word]]
    return "; ".join(filter(None, [whole, *few]))


def smallest(measured: Metric, kind: str, interval: Interval) -> str:
    """The smallest effect that is found with 80% power, as it is shown; "" where too few meta-seeds tell."""
    value = interval.detectable
    if value is None or interval.meta_seeds < FEWEST_META_SEEDS:
        return ""
    return _shown(measured, kind, value)


def of_findings(study: Evidence, findings: Iterable[Finding]) -> str:
    """The power of a claim's comparisons, reading by reading: the range of the smallest effects, and their median."""
    readings: dict[tuple[Metric, str], list[float]] = {}
    for item in findings:
        value = item.interval.detectable if item.interval is not None and item.word in TESTED else None
        if value is not None and item.at is not None:
            measured = study.metric(item.task, item.at.name) if item.task else metric(item.at.name)
            readings.setdefault((measured, item.kind), []).append(value)
    return "; ".join(
        f"{measured.words} {_range(measured, kind, values)}" for (measured, kind), values in readings.items()
    )


def _range(measured: Metric, kind: str, values: list[float]) -> str:
    ends = [_shown(measured, kind, value) for value in (min(values), statistics.median(values), max(values))]
    return ends[0] if len(values) == 1 else f"{ends[1]} ({ends[0]} to {ends[2]})"


def _shown(measured: Metric, kind: str, value: float) -> str:
    if kind == RATIO:
        return f"x{markdown.number(1 / value)}"
    return f"±{100 * value:.2f} points" if measured.unit == "share" else f"±{markdown.number(value)}"
