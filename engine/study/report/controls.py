"""Controls: what else than flatness could explain what a penalty seems to do. They are ours, and in every report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from engine.comparison import Figure
from engine.comparison.paired import EQUAL_STEPS, FRONTIER, MATCHED_LOSS
from engine.study.report.claim import Claim, Question
from engine.study.report.evidence import TEST_ACCURACY, TRAIN_LOSS, Evidence
from engine.study.report.findings import Finding, judged

OURS = "ours"
NORMALISED_DESCENT = "ngdm"


def claims(found: Evidence) -> list[Claim]:
    return [scale(found), reweighting(found), untrained(found)]


def scale(found: Evidence) -> Claim:
    """A penalty may do no more than change the size of the updates."""
    rule = (
        "sharpness at the arm's own train loss, against the lowest point of the curve that the reference arm, of the "
        "same learned optimizer, traces when its updates are multiplied by constants: ratio's 95% interval below 1"
    )
    missing = "the reference arm was evaluated at fewer than two scales besides 1, or no arm of its kind has a penalty"
    sharpness, reference = Figure("sharpness", found.radius), found.plan.reference
    pressed = [arm for arm in found.planned if not found.is_plain(arm) and not found.is_neutral(arm)]
    alike = [arm for arm in pressed if found.kind(arm) == found.kind(reference)]  # else the kind makes the difference
    wants, text = (*alike, reference), "penalties do more than a constant factor of the updates"
    question = Question("K1", text, OURS, rule, missing, wants, tuple(found.lacking(wants, found.tasks)))
    return question.decided(
        judged(effect, task, arm)
        for task in found.tasks
        for arm in alike
        if (effect := found.effect(task, arm, reference, FRONTIER, sharpness)) is not None
    )


def reweighting(found: Evidence) -> Claim:
    """A penalty also multiplies the meta-loss."""
    rule = (
        "sharpness at matched train loss (ratio's 95% interval below 1) and test accuracy at equal steps (difference's "
        "above 0), against an arm whose penalty has as much weight but a ball of radius 0, which is the loss once more"
    )
    missing = "no arm whose penalty has rho = 0 and the weight of the others, or none beside it"
    beside = {arm: neutral for arm in found.regularised if (neutral := _neutral_of(found, arm)) is not None}
    wants = tuple(dict.fromkeys((*beside, *beside.values())))
    lacks = tuple(found.lacking(wants, found.tasks))
    text = "penalties do more than re-weight the meta-loss"
    question = Question("K2", text, OURS, rule, missing, wants, lacks)
    return question.decided(_against_neutral(found, beside))


def _neutral_of(found: Evidence, arm: str) -> str | None:
    """The arm that re-weights the loss as much as this one's penalties with a ball do, and is the same otherwise."""
    neutral = (other for other in found.planned if found.is_neutral(other))
    return next((other for other in neutral if _weights(found, other) == _weights(found, arm)), None)


def _weights(found: Evidence, arm: str) -> tuple[str, float, dict[str, Any]]:
    penalties = found.penalties(arm)
    balls = {name for name, values in penalties.items() if "rho" in values}
    rest = {name: values for name, values in penalties.items() if name not in balls}
    return found.kind(arm), sum(float(penalties[name].get("weight", 1.0)) for name in balls), rest


def _against_neutral(found: Evidence, beside: Mapping[str, str]) -> Iterator[Finding]:
    settings = {
        "sharpness": (MATCHED_LOSS, Figure("sharpness", found.radius)),
        "accuracy": (EQUAL_STEPS, TEST_ACCURACY),
    }
    for task in found.tasks:
        for words, how in settings.items():
            for arm, neutral in beside.items():
                effect = found.effect(task, arm, neutral, *how)
                if effect is not None:
                    yield judged(effect, f"{task}, {words}", arm)


def untrained(found: Evidence) -> Claim:
    """An optimizer that cannot train is not worth regularising."""
    rule = (
        "train loss of the reference arm at equal steps, against its own fresh meta-parameters and against tuned "
        f"normalised gradient descent ({NORMALISED_DESCENT}; the wider interval of that over meta-seeds and that over "
        "optimizees): paired difference's 95% interval below 0"
    )
    missing = f"neither the untrained learned optimizer nor {NORMALISED_DESCENT} was evaluated"
    wants = (found.plan.reference,)
    lacks = tuple(found.lacking(wants, found.tasks))
    question = Question("K3", "meta-training is worth it at all", OURS, rule, missing, wants, lacks)
    return question.decided(finding for task in found.tasks for finding in _against_fresh(found, task))


def _against_fresh(found: Evidence, task: str) -> Iterator[Finding]:
    reference, outcomes = found.plan.reference, found.tasks[task]
    others = {"untrained": outcomes.untrained.get(reference)}
    others[NORMALISED_DESCENT] = outcomes.baselines.get(NORMALISED_DESCENT)
    for name, entry in others.items():
        if entry is not None:
            effect = found.effect_against(task, reference, name, entry, EQUAL_STEPS, TRAIN_LOSS)
            if effect is not None:
                yield judged(effect, task, name)
