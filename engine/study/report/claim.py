"""Claim: what a paper says, what would decide it, and what a study has found. The rule stands beside the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.comparison.statistics import FEWEST_META_SEEDS
from engine.study.report import markdown
from engine.study.report.findings import (
    BETTER,
    NOT_FOUND,
    TOO_FEW,
    TOO_FEW_META_SEEDS,
    UNTESTED,
    WORSE,
    Finding,
    corrected,
)

SUPPORTED, MIXED, NOT_TESTED = "supported", "mixed", "not tested"
NOT_SUPPORTED = "not supported"  # no evidence for it
CONTRADICTED = "contradicted"  # evidence against it
WORDS = (BETTER, WORSE, NOT_FOUND, *UNTESTED)
VERDICTS = (
    "Verdicts, where a rule does not say otherwise. **Supported**: better in all comparisons, and none is missing; "
    "**mixed**: better in some; **contradicted**: worse in some, better in none; **not supported**: neither was found, "
    "so there is no evidence. A comparison is better or worse if its interval excludes no difference even after a Holm "
    "correction for the number of the claim's comparisons (figures shown are not corrected), and if it has at least "
    f"{FEWEST_META_SEEDS} meta-seeds. Where clearly more optimizees diverged under an arm than under its reference "
    "(interval above 0, or over half of all) it is worse, whatever the others reached; where clearly fewer did, it is "
    "better in accuracy and loss."
)


@dataclass(frozen=True)
class Claim:
    """A claim with its verdict. `source`: who makes it, and where it is read. `reason`: how the rule came out.

    `wants`: the arms that it is about. `waiting`: those of the arms it rests on of which something has not ended.
    """

    name: str
    text: str
    source: str
    rule: str
    verdict: str
    reason: str
    findings: tuple[Finding, ...] = ()
    wants: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()

    @property
    def counts(self) -> str:
        """How many comparisons came out how, short."""
        counts = Counter(finding.word for finding in self.findings)
        return ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])

    @property
    def arms(self) -> set[str]:
        """Whose runs it rests on, or would."""
        return {*self.wants, *(arm for finding in self.findings for arm in finding.arms)}


@dataclass(frozen=True)
class Question:
    """A claim before it is decided. `missing`: why there may be nothing to decide it by. `wants`: the arms that it is
    about. `lacks`: what is not there of them, in words; then it is never wholly supported.
    """

    name: str
    text: str
    source: str
    rule: str
    missing: str
    wants: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()

    def decided(self, findings: Iterable[Finding], remark: str = "") -> Claim:
        """By counting: better in all comparisons, in some, in none; worse in some."""
        found = corrected(tuple(findings))
        words = Counter(finding.word for finding in found if finding.word not in UNTESTED)
        if not words:
            return self.because(NOT_TESTED, said(found) or self.missing, found)
        if words[BETTER]:
            word = SUPPORTED if words[BETTER] == words.total() else MIXED
        else:
            word = CONTRADICTED if words[WORSE] else NOT_SUPPORTED
        return self.because(word, "; ".join(filter(None, [said(found), remark])), found)

    def because(self, word: str, reason: str, findings: Sequence[Finding] = ()) -> Claim:
        """A verdict with its reason; no more than mixed where something is missing, which the reason names."""
        absent = [*self.lacks, *_untested(findings)] if word != NOT_TESTED else list(self.lacks)
        word = MIXED if word == SUPPORTED and absent else word
        whole = "; ".join(filter(None, [reason, f"missing: {', '.join(absent)}" if absent else ""]))
        return Claim(self.name, self.text, self.source, self.rule, word, whole, tuple(findings), self.wants)


def _untested(findings: Sequence[Finding]) -> list[str]:
    """The arms of which some comparison could not be made."""
    lost: dict[str, Counter[str]] = {}
    for item in findings:
        if item.word in UNTESTED:
            lost.setdefault(item.arms[0], Counter())[item.word] += 1
    return [f"{arm} ({word} in {n})" for arm, words in lost.items() for word, n in words.items()]


def said(findings: Sequence[Finding]) -> str:
    """How the comparisons came out, in one line."""
    counts = Counter(finding.word for finding in findings)
    parts = [f"{word} in {counts[word]}" for word in (BETTER, WORSE, NOT_FOUND) if counts[word]]
    tested = sum(counts[word] for word in (BETTER, WORSE, NOT_FOUND))
    whole = f"{', '.join(parts)} of {markdown.count(tested, 'comparison')}" if parts else ""
    few = [f"{counts[word]} with {word}" for word in (TOO_FEW, TOO_FEW_META_SEEDS) if counts[word]]
    return "; ".join(filter(None, [whole, *few]))
