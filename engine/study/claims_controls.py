"""Controls: what else than flatness could explain what a penalty seems to do. They are ours, and in every report."""

from __future__ import annotations

from collections.abc import Iterator

from engine.comparison import Entry, Figure
from engine.comparison.paired import EQUAL_STEPS, FRONTIER, MATCHED_LOSS
from engine.study.claims import BETTER, RULE, Claim, Finding, Question, difference, judged, measured, pairs
from engine.study.evidence import TEST_ACCURACY, TRAIN_LOSS, Evidence

OURS = "ours"
NORMALISED_DESCENT = "ngdm"


def claims(found: Evidence) -> list[Claim]:
    return [scale(found), reweighting(found), untrained(found)]


def scale(found: Evidence) -> Claim:
    """A penalty may do no more than change the size of the updates."""
    rule = (
        "sharpness at the arm's own train loss, against the lowest point of the curve that the reference arm, of the "
        "same learned optimizer, traces when its updates are multiplied by constants: ratio's 95% interval below 1; "
        f"{RULE}"
    )
    missing = "the reference arm was evaluated at fewer than two scales besides 1, or no arm of its kind has a penalty"
    question = Question("K1", "penalties do more than a constant factor of the updates", OURS, rule, missing)
    sharpness, reference = Figure("sharpness", found.radius), found.plan.reference
    pressed = [arm for arm in found.arms if not found.is_plain(arm) and not found.is_neutral(arm)]
    alike = [arm for arm in pressed if found.kind(arm) == found.kind(reference)]  # else the kind makes the difference
    return question.decided(
        judged(effect, task, arm)
        for task in found.tasks
        for arm in alike
        if (effect := found.effect(task, arm, reference, FRONTIER, sharpness)) is not None
    )


def reweighting(found: Evidence) -> Claim:
    """A penalty also multiplies the meta-loss."""
    rule = (
        "sharpness at matched train loss and test accuracy at equal steps, against an arm whose penalty has a ball of "
        f"radius 0, which is the loss once more; {RULE}"
    )
    missing = "no arm whose penalty has rho = 0 and the weight of the others, or none beside it"
    question = Question("K2", "penalties do more than re-weight the meta-loss", OURS, rule, missing)
    return question.decided(_against_neutral(found))


def _against_neutral(found: Evidence) -> Iterator[Finding]:
    neutral = next((arm for arm in found.arms if found.is_neutral(arm)), None)
    if neutral is None:
        return
    names = set(found.penalties(neutral))
    alike = [arm for arm in found.regularised if set(found.penalties(arm)) == names]
    settings = {
        "sharpness": (MATCHED_LOSS, Figure("sharpness", found.radius)),
        "accuracy": (EQUAL_STEPS, TEST_ACCURACY),
    }
    for task in found.tasks:
        for words, how in settings.items():
            for arm in alike:
                effect = found.effect(task, arm, neutral, *how)
                if effect is not None:
                    yield judged(effect, f"{task}, {words}", arm)


def untrained(found: Evidence) -> Claim:
    """An optimizer that cannot train is not worth regularising."""
    rule = (
        "train loss of the reference arm at equal steps, against its own fresh meta-parameters and against tuned "
        f"normalised gradient descent ({NORMALISED_DESCENT}): paired difference's 95% interval below 0, or the other "
        f"diverged in most optimizees and the arm in none; {RULE}"
    )
    missing = f"neither the untrained learned optimizer nor {NORMALISED_DESCENT} was evaluated"
    question = Question("K3", "meta-training is worth it at all", OURS, rule, missing)
    return question.decided(finding for task in found.tasks for finding in _against_fresh(found, task))


def _against_fresh(found: Evidence, task: str) -> Iterator[Finding]:
    reference = found.plan.reference
    outcomes, step = found.tasks[task], found.last(task)
    ours = outcomes.main(found.arms[reference]) if reference in found.arms else None
    others = {"untrained": outcomes.untrained.get(reference)}
    others[NORMALISED_DESCENT] = outcomes.baselines.get(NORMALISED_DESCENT)
    for name, entry in others.items():
        if ours is None or entry is None or not ours.at(step) or not entry.at(step):
            continue
        finding = measured(pairs(ours.at(step), entry.at(step), difference(TRAIN_LOSS)), TRAIN_LOSS, task, name)
        facts = {"arms": (reference, name), "task": task, "inner_step": step, "setting": EQUAL_STEPS}
        if _diverged(entry, step) > 0.5 and not _diverged(ours, step):
            facts |= {"word": BETTER, "shown": f"it diverged in {100 * _diverged(entry, step):.0f}%"}
        yield Finding(**{**vars(finding), **facts})


def _diverged(entry: Entry, step: int) -> float:
    """Share of the optimizees."""
    every = [outcome.diverged for seeds in entry.at(step).values() for outcome in seeds.values()]
    return sum(every) / len(every)
