"""The claims and numbers of Xiong & Hsieh, "Learning to Learn with Smooth Regularization" (ECCV 2022)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from engine.comparison import Figure, Interval
from engine.comparison.paired import EQUAL_STEPS, RATIO
from engine.figures.evaluated import estimate
from engine.results import mean
from engine.study.claims import (
    MIXED,
    NOT_SUPPORTED,
    NOT_TESTED,
    RULE,
    SUPPORTED,
    Claim,
    Finding,
    Question,
    difference,
    judged,
    measured,
    pairs,
)
from engine.study.evidence import TEST_ACCURACY, Evidence

# table 1: CIFAR-10, three-layer CNN, 10000 steps, `simple`; test accuracy in percent, mean and spread of five runs
TABLE_1 = {
    "": (69.02, 0.58),
    "smooth": (72.50, 0.49),
    "l2": (69.69, 0.56),
    "orthogonal": (10.00, 0.04),
    "spectral": (69.35, 1.23),
}
TABLE_1_TASK, TABLE_1_STEP, TABLE_1_KIND = "cifar10/conv3", 10_000, "simple"
OTHER_REGULARISERS = ("l2", "orthogonal", "spectral")
AT_CHANCE = 0.11  # at most; chance is 0.1 of ten classes
HAND_DESIGNED = ("sgd", "sgdm", "adam", "rmsprop", "amsgrad")
NO_TWIN = "no arm with smooth beside the same arm without it was evaluated"


@dataclass(frozen=True)
class Number:
    """A number of the paper beside ours: percent, mean and standard deviation over runs with different seeds."""

    regulariser: str
    paper: tuple[float, float]
    arm: str  # ours; empty where there is none
    mean: float | None
    deviation: float | None
    n: int
    remark: str


def claims(found: Evidence) -> list[Claim]:
    return [within(found), beyond(found), others(found), hand_designed(found), collapse(found), near_zero(found)]


def table_1(found: Evidence) -> list[Number]:
    """Ours beside the paper's table 1; empty where the study has nothing to do with it."""
    task = next((name for name in found.tasks if name.partition(" ")[0] == TABLE_1_TASK), None)
    if task is None:
        return []
    step = found.last(task)
    numbers = []
    for regulariser, paper in TABLE_1.items():
        wanted = {regulariser} - {""}
        alike = [arm for arm in found.arms if set(found.penalties(arm)) == wanted]
        arm = next((arm for arm in alike if found.kind(arm) == TABLE_1_KIND), "")
        entry = found.tasks[task].main(found.arms[arm]) if arm else None
        if entry is None or not entry.at(step):
            numbers.append(Number(regulariser or "none", paper, "", None, None, 0, "not evaluated"))
            continue
        means = [mean(_accuracies(seeds)) for seeds in entry.at(step).values()]
        values = [100 * item.mean for item in means if item.mean is not None]
        middle = mean(values).mean
        spread = (
            math.sqrt(sum((v - middle) ** 2 for v in values) / (len(values) - 1)) if middle and values[1:] else None
        )
        remarks = [] if step == TABLE_1_STEP else [f"ours after {step} steps"]
        every = [outcome.diverged for seeds in entry.at(step).values() for outcome in seeds.values()]
        remarks += [f"{sum(every)} of {len(every)} optimizees diverged and are left out"] if any(every) else []
        numbers.append(Number(regulariser or "none", paper, arm, middle, spread, len(values), "; ".join(remarks)))
    return numbers


def _accuracies(seeds: dict) -> list[float | None]:
    return [None if outcome.diverged else outcome.figures.get(TEST_ACCURACY) for outcome in seeds.values()]


def within(found: Evidence) -> Claim:
    rule = f"test accuracy at equal steps, up to as many as meta-trained, interval above 0; {RULE}"
    question = Question("X1", "smoothing helps DM and Simple", "fig. 3a, 3b, 3d, 3e", rule, NO_TWIN)
    return question.decided(_smoothing(found, False))


def beyond(found: Evidence) -> Claim:
    rule = f"test accuracy at equal steps, after more than meta-trained, interval above 0; {RULE}"
    question = Question("X2", "and over longer horizons than meta-trained", "fig. 3c, 3f, 4, table 1", rule, NO_TWIN)
    return question.decided(_smoothing(found, True))


def _smoothing(found: Evidence, is_beyond: bool) -> Iterator[Finding]:
    for smooth, plain in found.smoothed():
        stages = found.preset(smooth)["meta"]["inner_steps"]
        horizon = max(stages) if isinstance(stages, (list, tuple)) else stages
        for task, steps in found.steps.items():
            for step in steps:
                effect = found.effect(task, smooth, plain, EQUAL_STEPS, TEST_ACCURACY, step)
                if effect is not None and (step > horizon) is is_beyond:
                    yield judged(effect, f"{task}, {step} steps", f"{smooth} against {plain}")


def others(found: Evidence) -> Claim:
    rule = f"test accuracy of smooth against each other regulariser at equal steps, interval above 0; {RULE}"
    missing = "no arm with l2, orthogonal or spectral beside one with smooth was evaluated"
    question = Question("X3", "smoothing is better than other regularisers", "table 1", rule, missing)
    smooth = [arm for arm in found.arms if set(found.penalties(arm)) == {"smooth"}]
    return question.decided(
        judged(effect, f"{task}, {found.last(task)} steps", f"{arm} against {other}")
        for task in found.tasks
        for arm in smooth
        for other in found.arms
        if set(found.penalties(other)) & set(OTHER_REGULARISERS) and found.kind(other) == found.kind(arm)
        if (effect := found.effect(task, arm, other, EQUAL_STEPS, TEST_ACCURACY)) is not None
    )


def hand_designed(found: Evidence) -> Claim:
    rule = f"test accuracy against each tuned hand-designed optimizer at equal steps, interval above 0; {RULE}"
    missing = "no hand-designed optimizer beside an arm with smooth was evaluated"
    question = Question("X4", "smoothed learned optimizers beat hand-designed ones", "fig. 4", rule, missing)
    return question.decided(finding for task in found.tasks for finding in _against_baselines(found, task))


def _against_baselines(found: Evidence, task: str) -> Iterator[Finding]:
    outcomes, step = found.tasks[task], found.last(task)
    for arm in (arm for arm in found.arms if set(found.penalties(arm)) == {"smooth"}):
        main = outcomes.main(found.arms[arm])
        for name in HAND_DESIGNED:
            entry = outcomes.baselines.get(name)
            if main is None or entry is None or not main.at(step) or not entry.at(step):
                continue
            groups = pairs(main.at(step), entry.at(step), difference(TEST_ACCURACY))
            finding = measured(groups, TEST_ACCURACY, f"{task}, {name}", arm)
            facts = {"arms": (arm, name), "task": task, "inner_step": step, "setting": EQUAL_STEPS}
            yield Finding(**{**vars(finding), **facts})


def collapse(found: Evidence) -> Claim:
    rule = "mean test accuracy at most 11%, where chance is 10%, or every optimizee diverged; else not supported"
    missing = "no arm with the orthogonal penalty was evaluated"
    question = Question("X5", "the orthogonal penalty falls to chance", "table 1", rule, missing)
    findings, at_chance = [], []
    for task, outcomes in found.tasks.items():
        for arm in (arm for arm in found.arms if set(found.penalties(arm)) == {"orthogonal"}):
            entry, step = outcomes.main(found.arms[arm]), found.last(task)
            if entry is None or not entry.at(step):
                continue
            value = estimate(entry.at(step), TEST_ACCURACY)
            at_chance.append(value is None or value[0] <= AT_CHANCE)
            shown = "all diverged" if value is None else f"{100 * value[0]:.2f}%"
            interval = (
                Interval(*value, n=len(entry.at(step)), meta_seeds=len(entry.at(step)), over="") if value else None
            )
            word = "at chance" if at_chance[-1] else "above chance"
            facts = ((arm,), task, step, EQUAL_STEPS, TEST_ACCURACY)
            findings.append(Finding(task, arm, word, shown, *facts, interval=interval))
    if not findings:
        return question.because(NOT_TESTED, missing)
    verdict = SUPPORTED if all(at_chance) else MIXED if any(at_chance) else NOT_SUPPORTED
    reason = ", ".join(f"{item.column} on {item.row}: {item.shown}" for item in findings)
    return question.because(verdict, reason, findings)


def near_zero(found: Evidence) -> Claim:
    rule = (
        "Lipschitz ratio of the update rule around the zero state, paired by meta-seed: ratio's 95% interval below 1; "
        + RULE
    )
    question = Question("X6", "smoothed updates are small and stable near zero", "fig. 7", rule, NO_TWIN)
    return question.decided(
        finding for smooth, plain in found.smoothed() if (finding := _steadier(found, smooth, plain)) is not None
    )


def _steadier(found: Evidence, smooth: str, plain: str) -> Finding | None:
    ours, theirs = (_lipschitz(found, arm) for arm in (smooth, plain))
    both = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    logs = [[math.log(a) - math.log(b)] for a, b in both if a > 0 and b > 0]
    if not logs:
        return None
    finding = measured(logs, Figure("lipschitz"), f"{smooth} against {plain}", "Lipschitz ratio", kind=RATIO)
    return Finding(**{**vars(finding), "arms": (smooth, plain), "setting": "update rule"})


def _lipschitz(found: Evidence, arm: str) -> dict[int | str | None, float]:
    """By meta-seed, from any evaluation that says it: it does not depend on the task."""
    values: dict[int | str | None, float] = {}
    for task in found.tasks.values():
        entry = task.main(found.arms[arm])
        for facts in entry.facts.values() if entry is not None else ():
            rules = {seed: own.update_rule for seed, own in facts.items() if len(own.update_rule) == 3}
            values |= {seed: rule[2] for seed, rule in rules.items() if rule[2] is not None}
    return values
