"""C9: learned optimizers that were meta-trained with a penalty against hand-designed ones that apply it explicitly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from engine.comparison import Entry, Figure
from engine.comparison.paired import EQUAL_STEPS, MATCHED_LOSS
from engine.study.report.claim import Claim, Question
from engine.study.report.evidence import TEST_ACCURACY, Evidence
from engine.study.report.findings import Finding, judged, middle

EXPLICIT = ("sam-", "gsam-", "gam-")  # baselines with a penalty of their own


def explicit(found: Evidence) -> Claim:
    rule = (
        "test accuracy after as many forward/backward passes, and sharpness at matched train loss, against the "
        "hand-designed optimizer with an explicit SAM, GSAM or GAM (the one of least validation loss after as many "
        "passes, tuned there): 95% interval over meta-seeds and over optimizees, the wider one, above 0 and below 1"
    )
    missing = "no baseline with an explicit penalty was measured where it has had as many passes"
    best = {task: rival for task in found.tasks if (rival := _explicit(found, task)) is not None}
    findings = [item for task, rival in best.items() for item in _against_explicit(found, task, *rival)]
    wants = (*found.regularised, found.plan.reference)  # whose runs are told of the baselines
    lacks = tuple(found.lacking(found.regularised, best))
    text, source = "they reduce the need for explicit regularisers", "the paper's abstract"
    question = Question("C9", text, source, rule, missing, wants, lacks)
    return question.decided(findings, _tuning(best.values()))


def _explicit(found: Evidence, task: str) -> tuple[str, Entry, int] | None:
    """Name, outcomes, and the inner step of equal passes: of those of which the fewest diverged, the best."""
    candidates = []
    for name, entry in found.tasks[task].baselines.items():
        at = found.last(task) // entry.facts_at(found.last(task)).passes_per_step
        loss = middle(entry, at, Figure("validation_loss"))
        if name.startswith(EXPLICIT) and loss is not None:
            lost = sum(outcome.diverged for seeds in entry.at(at).values() for outcome in seeds.values())
            candidates.append((lost, loss, name, entry, at))
    return min(candidates, key=lambda item: item[:3])[2:] if candidates else None


def _against_explicit(found: Evidence, task: str, name: str, entry: Entry, at: int) -> Iterator[Finding]:
    settings = {
        "accuracy": (EQUAL_STEPS, TEST_ACCURACY),
        "sharpness": (MATCHED_LOSS, Figure("sharpness", found.radius)),
    }
    for arm in found.regularised:
        for words, (setting, figure) in settings.items():
            effect = found.effect_against(task, arm, name, entry, setting, figure, at)
            if effect is not None:
                setting = "equal passes" if setting == EQUAL_STEPS else setting
                yield replace(judged(effect, f"{task}, {words}", arm), setting=setting)


def _tuning(rivals: Iterable[tuple[str, Entry, int]]) -> str:
    """Those whose settings were chosen for another step than that of the comparison."""
    others = {name for name, entry, at in rivals if entry.facts_at(at).tuned_at != at}
    return f"{', '.join(sorted(others))} had been tuned for more passes than are compared: a handicap" if others else ""
