"""The claims and numbers of Xiong & Hsieh, "Learning to Learn with Smooth Regularization" (ECCV 2022)."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine.comparison import Interval
from engine.comparison.paired import EQUAL_STEPS, MOST, RATIO
from engine.comparison.statistics import FEWEST_META_SEEDS
from engine.figures.base import estimate
from engine.presets.tables import stages
from engine.runs.results import mean
from engine.study.report.claim import (
    CONTRADICTED,
    MIXED,
    NOT_TESTED,
    SUPPORTED,
    TOO_FEW_META_SEEDS,
    BySeed,
    Claim,
    Finding,
    findings,
    judged,
    log_ratios,
    measured,
    said,
)
from engine.study.report.evidence import HEADLINE, SMOOTH, Evidence, SmoothAblation

# table 1: CIFAR-10, three-layer CNN, 10000 steps, `simple`; test accuracy in percent, mean and spread of five runs
TABLE_1 = {
    "": (69.02, 0.58),
    "smooth": (72.50, 0.49),
    "l2": (69.69, 0.56),
    "orthogonal": (10.00, 0.04),
    "spectral": (69.35, 1.23),
}
TABLE_1_TASK, TABLE_1_STEP, TABLE_1_KIND = "cifar10/conv3", 10_000, "simple"
OTHER_REGULARISERS = {"l2", "orthogonal", "spectral"}
CHANCE = 0.11  # at most; chance is 0.1 of ten classes
AT_CHANCE, ABOVE_CHANCE = "at chance", "above chance"
HAND_DESIGNED = ("sgd", "sgdm", "adam", "rmsprop", "amsgrad")
TWIN = "its twin, the candidate without smooth whose other penalties have the same values"
ACCURACY = {"": (EQUAL_STEPS, HEADLINE)}


@dataclass(frozen=True)
class Number:
    """A number of the paper beside ours: percent, mean and standard deviation over runs with different seeds."""

    regulariser: str
    paper_mean: float
    paper_spread: float
    arm: str = ""  # ours; empty where there is none
    mean: float | None = None
    standard_deviation: float | None = None
    n: int = 0
    remark: str = "not evaluated"


def claims(study: Evidence) -> list[Claim]:
    return [within(study), beyond(study), others(study), hand_designed(study), collapse(study), near_zero(study)]


def table_1(study: Evidence) -> list[Number]:
    """Ours beside the paper's table 1; empty where the study has nothing to do with it."""
    task = next((name for name in study.tasks if name.partition(" ")[0] == TABLE_1_TASK), None)
    if task is None or study.plan.report.get("paper") != "xh":
        return []
    return [_number(study, task, regulariser, *paper) for regulariser, paper in TABLE_1.items()]


def _number(study: Evidence, task: str, regulariser: str, paper_mean: float, paper_spread: float) -> Number:
    alike = [arm for arm in study.arms if set(study.penalties(arm)) == {regulariser} - {""}]
    arm = next((arm for arm in alike if study.kind(arm) == TABLE_1_KIND), "")
    entry, step = study.tasks[task].main(study.arms[arm]) if arm else None, study.last(task)
    number = Number(regulariser or "none", paper_mean, paper_spread)
    if entry is None or not entry.at(step):
        return number
    accuracy, by_seed = study.metric_at(task, HEADLINE), [list(seeds.values()) for seeds in entry.at(step).values()]
    means = [mean(None if item.diverged else item.metrics.get(accuracy) for item in seeds).mean for seeds in by_seed]
    values = [100 * value for value in means if value is not None]
    diverged = [outcome.diverged for seeds in by_seed for outcome in seeds]
    remarks = [] if step == TABLE_1_STEP else [f"ours after {step} steps"]
    remarks += [f"{sum(diverged)} of {len(diverged)} optimizees diverged and are left out"] if any(diverged) else []
    spread = statistics.stdev(values) if len(values) > 1 else None
    remark = "; ".join(remarks)
    return replace(number, arm=arm, mean=mean(values).mean, standard_deviation=spread, n=len(values), remark=remark)


def _against(arm: str, other: str) -> str:
    return f"{arm} against {other}"


def within(study: Evidence) -> Claim:
    rule = f"test accuracy at equal steps, up to as many as meta-trained, against {TWIN}: interval above 0"
    claim = _smoothing_claim(study, "X1", "smoothing helps DM and Simple", "fig. 3a, 3b, 3d, 3e", rule, "within")
    return claim.decided(_smoothing(study, False))


def beyond(study: Evidence) -> Claim:
    rule = f"test accuracy at equal steps, after more than meta-trained, against {TWIN}: interval above 0"
    text, source = "and over longer horizons than meta-trained", "fig. 3c, 3f, 4, table 1"
    return _smoothing_claim(study, "X2", text, source, rule, "beyond").decided(_smoothing(study, True))


def _smoothing_claim(study: Evidence, name: str, text: str, source: str, rule: str, where: str = "") -> Claim:
    """About the arms with smooth and their twins; `where`: within or beyond the horizon of meta-training."""
    wants = (*study.smoothed, *(twin.label for twin in study.twins.values() if twin is not None))
    missing = "no arm with smooth beside the same arm without it was evaluated"
    if where and (horizons := {horizon for *_, horizon in _marks(study)}):
        steps = ", ".join(map(str, sorted(horizons)))
        missing = f"no mark lies {where} the inner steps of meta-training ({steps})"
    return Claim(name, text, source, rule, missing, wants, study.lacking_twins(study.tasks))


def _marks(study: Evidence) -> Iterator[tuple[SmoothAblation, str, int, int]]:
    """Where an arm with smooth and its twin were both measured: the twin, task, inner step, and the arm's horizon."""
    for twin in filter(None, study.twins.values()):
        horizon = max(stages(study.preset(twin.arm)["meta"]))
        for task in study.tasks:
            if study.was_evaluated(task, twin.arm) and study.was_evaluated(task, twin.label):
                yield from ((twin, task, step, horizon) for step in study.steps[task])


def _smoothing(study: Evidence, is_beyond: bool) -> Iterator[Finding]:
    for twin, task, step, horizon in _marks(study):
        effect = study.effect(task, twin.arm, twin.label, EQUAL_STEPS, study.metric_at(task, HEADLINE), step)
        if effect is not None and (step > horizon) is is_beyond:
            yield judged(study, effect, f"{task}, {step} steps", _against(twin.arm, twin.label))


def _lone(study: Evidence, penalty: str) -> list[str]:
    """The planned arms with this penalty alone."""
    return [arm for arm in study.planned if set(study.penalties(arm)) == {penalty}]


def others(study: Evidence) -> Claim:
    rule = "test accuracy of smooth against each other regulariser at equal steps, interval above 0"
    missing = "no arm with l2, orthogonal or spectral beside one with smooth was evaluated"
    pairs = [
        (arm, other)
        for arm in _lone(study, SMOOTH)
        for other in study.planned
        if set(study.penalties(other)) & OTHER_REGULARISERS and study.kind(other) == study.kind(arm)
    ]
    wants = tuple(dict.fromkeys(arm for pair in pairs for arm in pair))
    text, lacks = "smoothing is better than other regularisers", study.lacking(wants, study.tasks)
    claim = Claim("X3", text, "table 1", rule, missing, wants, lacks)
    return claim.decided(findings(study, pairs, ACCURACY, column=_against))


def hand_designed(study: Evidence) -> Claim:
    rule = (
        "test accuracy against each tuned hand-designed optimizer at equal steps: interval over meta-seeds and over "
        "optimizees, the wider one, above 0"
    )
    missing = "no hand-designed optimizer beside an arm with smooth was evaluated"
    smooth = _lone(study, SMOOTH)
    wants = (*smooth, study.plan.reference)  # whose runs are told of the baselines
    text, lacks = "smoothed learned optimizers beat hand-designed ones", study.lacking(smooth, study.tasks)
    return Claim("X4", text, "fig. 4", rule, missing, wants, lacks).decided(
        judged(study, effect, f"{task}, {name}", arm)
        for task in study.tasks
        for arm in smooth
        for name in HAND_DESIGNED
        if (entry := study.tasks[task].baselines.get(name)) is not None
        if (effect := study.effect_against(task, arm, name, entry, EQUAL_STEPS, study.metric_at(task, HEADLINE)))
    )


def collapse(study: Evidence) -> Claim:
    rule = (
        "mean test accuracy at most 11%, where chance is 10%, or most optimizees diverged: supported if so everywhere, "
        "mixed if somewhere, else contradicted"
    )
    missing = "no arm with the orthogonal penalty was evaluated"
    arms = tuple(_lone(study, "orthogonal"))
    lacks = study.lacking(arms, study.tasks)
    claim = Claim("X5", "the orthogonal penalty falls to chance", "table 1", rule, missing, arms, lacks)
    both = [(task, arm) for task in study.tasks for arm in arms if study.was_evaluated(task, arm)]
    compared = [_at_chance(study, task, arm) for task, arm in both]
    words = {item.word for item in compared} - {TOO_FEW_META_SEEDS}
    if not words:
        return claim.because(NOT_TESTED, said(compared) or missing, compared)
    verdict = SUPPORTED if words == {AT_CHANCE} else MIXED if AT_CHANCE in words else CONTRADICTED
    return claim.because(verdict, ", ".join(f"{item.column} on {item.row}: {item.text}" for item in compared), compared)


def _at_chance(study: Evidence, task: str, arm: str) -> Finding:
    entry, step, accuracy = study.tasks[task].main(study.arms[arm]), study.last(task), study.metric_at(task, HEADLINE)
    assert entry is not None
    outcomes = entry.at(step)
    value, n = estimate(outcomes, accuracy), len(outcomes)
    diverged = [outcome.diverged for seeds in outcomes.values() for outcome in seeds.values()]
    if value is None or sum(diverged) > MOST * len(diverged):
        word, text = AT_CHANCE, f"{sum(diverged)} of {len(diverged)} diverged"
    else:
        word, text = AT_CHANCE if value[0] <= CHANCE else ABOVE_CHANCE, f"{100 * value[0]:.2f}%"
    word = word if n >= FEWEST_META_SEEDS else TOO_FEW_META_SEEDS
    interval = Interval(*value, n=n, meta_seeds=n, over="") if value else None
    return Finding(task, arm, word, text, (arm,), task, step, EQUAL_STEPS, accuracy, interval=interval)


def near_zero(study: Evidence) -> Claim:
    rule = (
        f"Lipschitz ratio of the update rule around the zero state, against {TWIN}, paired by meta-seed: ratio's 95% "
        "interval below 1"
    )
    compared = []
    for twin in filter(None, study.twins.values()):
        arms = (twin.arm, twin.label)
        if logs := log_ratios(_lipschitz(study, twin.arm), _lipschitz(study, twin.label)):
            row = _against(*arms)
            compared.append(measured(logs, "lipschitz", row, "Lipschitz ratio", RATIO, *arms, setting="update rule"))
    text = "smoothed updates are small and stable near zero"
    return _smoothing_claim(study, "X6", text, "fig. 7", rule).decided(compared)


def _lipschitz(study: Evidence, arm: str) -> BySeed:
    """By meta-seed, from any evaluation that says it: it does not depend on the task."""
    runs = study.arm(arm)
    entries = [task.main(runs) for task in study.tasks.values()] if runs is not None else []
    of_steps = [facts for entry in entries if entry is not None for facts in entry.facts.values()]
    rules = [
        (seed, fact.update_rule) for facts in of_steps for seed, fact in facts.items() if len(fact.update_rule) == 3
    ]
    return {seed: ratio for seed, (*_, ratio) in rules if ratio is not None}
