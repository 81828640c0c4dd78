"""The claims that a study's report looks at: those of its paper, and our controls.

Controls ask what else than flatness could explain what a penalty seems to do; they are in every report.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from engine.base.metrics import metric
from engine.comparison.paired import EQUAL_STEPS, FRONTIER, MATCHED_LOSS
from engine.study.report.claim import Claim, Finding, findings, judged
from engine.study.report.evidence import HEADLINE, Evidence
from engine.study.report.papers import lr, xh

OURS = "ours"
NORMALISED_DESCENT = "ngdm"


def claims(study: Evidence) -> dict[str, list[Claim]]:
    """By what they are called, each with the arms of which something may still come."""
    paper = study.plan.report.get("paper", "")
    groups: dict[str, list[Claim]] = {}
    if paper == "lr":
        groups["Claims of Learning Regularizers (arXiv:2510.08968)"] = lr.claims(study)
    if paper == "xh":
        groups["Claims of Learning to Learn with Smooth Regularization (ECCV 2022)"] = xh.claims(study)
    groups["Controls"] = [scale(study), reweighting(study), untrained(study)]
    waiting = [arm for arm in study.planned if arm in study.waiting]
    return {
        title: [replace(claim, waiting=tuple(arm for arm in waiting if arm in claim.arms)) for claim in group]
        for title, group in groups.items()
    }


def scale(study: Evidence) -> Claim:
    """A penalty may do no more than change the size of the updates."""
    reference = study.plan.reference
    pressed = [arm for arm in study.planned if study.penalties(arm) and not study.is_neutral(arm)]
    alike = [arm for arm in pressed if study.kind(arm) == study.kind(reference)]  # else the kind makes the difference
    wants = (*alike, reference)
    return Claim(
        "K1",
        "penalties do more than a constant factor of the updates",
        OURS,
        f"{metric(study.sharpness).words} at the arm's own train loss, against the lowest point of the curve that the "
        "reference arm, of the same learned optimizer, traces when its updates are multiplied by constants: ratio's "
        "95% interval below 1",
        "the reference arm was evaluated at fewer than two scales besides 1, or no arm of its kind has a penalty",
        wants,
        study.lacking(wants, study.tasks),
    ).decided(findings(study, [(arm, reference) for arm in alike], {"": (FRONTIER, study.sharpness)}))


def reweighting(study: Evidence) -> Claim:
    """A penalty also multiplies the meta-loss."""
    neutral = [arm for arm in study.planned if study.is_neutral(arm)]
    beside = {
        arm: other
        for arm in study.regularised
        if (other := next((item for item in neutral if _weights(study, item) == _weights(study, arm)), None))
    }
    wants = tuple(dict.fromkeys((*beside, *beside.values())))
    readings = {"sharpness": (MATCHED_LOSS, study.sharpness), "accuracy": (EQUAL_STEPS, HEADLINE)}
    return Claim(
        "K2",
        "penalties do more than re-weight the meta-loss",
        OURS,
        f"{metric(study.sharpness).words} at matched train loss (ratio's 95% interval below 1) and test accuracy at "
        "equal steps (difference's above 0), against an arm whose penalty has as much weight but a ball of radius 0, "
        "which is the loss once more",
        "no arm whose penalty has rho = 0 and the weight of the others, or none beside it",
        wants,
        study.lacking(wants, study.tasks),
    ).decided(findings(study, beside.items(), readings))


def _weights(study: Evidence, arm: str) -> tuple[str, float, dict[str, Any]]:
    """How much an arm's penalties with a ball re-weight the loss, and what else it has."""
    penalties = study.penalties(arm)
    rest = {name: values for name, values in penalties.items() if "rho" not in values}
    weight = sum(float(values.get("weight", 1.0)) for values in penalties.values() if "rho" in values)
    return study.kind(arm), weight, rest


def untrained(study: Evidence) -> Claim:
    """An optimizer that cannot train is not worth regularising."""
    wants = (study.plan.reference,)
    return Claim(
        "K3",
        "meta-training is worth it at all",
        OURS,
        "train loss of the reference arm at equal steps, against its own fresh meta-parameters and against tuned "
        f"normalised gradient descent ({NORMALISED_DESCENT}; the wider interval of that over meta-seeds and that over "
        "optimizees): paired difference's 95% interval below 0",
        f"neither the untrained learned optimizer nor {NORMALISED_DESCENT} was evaluated",
        wants,
        study.lacking(wants, study.tasks),
    ).decided(_against_fresh(study))


def _against_fresh(study: Evidence) -> Iterator[Finding]:
    arm = study.plan.reference
    for task, outcomes in study.tasks.items():
        others = {"untrained": outcomes.untrained.get(arm)}
        others[NORMALISED_DESCENT] = outcomes.baselines.get(NORMALISED_DESCENT)
        for name, entry in others.items():
            if entry is not None:
                reading = study.metric_at(task, "train_loss")
                effect = study.effect_against(task, arm, name, entry, EQUAL_STEPS, reading)
                if effect is not None:
                    yield judged(study, effect, task, name)
