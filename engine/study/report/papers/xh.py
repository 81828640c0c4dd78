"""The claims and numbers of Xiong & Hsieh, "Learning to Learn with Smooth Regularization" (ECCV 2022)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine.comparison import Figure, Interval
from engine.comparison.paired import EQUAL_STEPS, MOST, RATIO
from engine.comparison.statistics import FEWEST_META_SEEDS
from engine.figures.evaluated import estimate
from engine.runs.results import mean
from engine.study.plan.twins import SmoothAblation
from engine.study.report.claim import CONTRADICTED, MIXED, NOT_TESTED, SUPPORTED, Claim, Question, said
from engine.study.report.evidence import TEST_ACCURACY, Evidence
from engine.study.report.findings import TOO_FEW_META_SEEDS, Finding, judged, log_ratios, measured

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
CHANCE = 0.11  # at most; chance is 0.1 of ten classes
AT_CHANCE, ABOVE_CHANCE = "at chance", "above chance"
HAND_DESIGNED = ("sgd", "sgdm", "adam", "rmsprop", "amsgrad")
TWIN = "its twin, the candidate without smooth whose other penalties have the same values"
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
    rule = f"test accuracy at equal steps, up to as many as meta-trained, against {TWIN}: interval above 0"
    question = _smoothing_question(found, "X1", "smoothing helps DM and Simple", "fig. 3a, 3b, 3d, 3e", rule, "within")
    return question.decided(_smoothing(found, False))


def beyond(found: Evidence) -> Claim:
    rule = f"test accuracy at equal steps, after more than meta-trained, against {TWIN}: interval above 0"
    text, source = "and over longer horizons than meta-trained", "fig. 3c, 3f, 4, table 1"
    return _smoothing_question(found, "X2", text, source, rule, "beyond").decided(_smoothing(found, True))


def _smoothing_question(found: Evidence, name: str, text: str, source: str, rule: str, where: str = "") -> Question:
    """About the arms with smooth and their twins; `where`: within or beyond the horizon of meta-training."""
    wants = (*found.smoothed, *(twin.label for twin in found.twins.values() if twin is not None))
    lacks = (*found.lacking(found.smoothed, found.tasks), *found.without_twin(found.tasks))
    missing = NO_TWIN
    if where and _marks(found):
        steps = sorted({horizon for *_, horizon in _marks(found)})
        missing = f"no mark lies {where} the inner steps of meta-training ({', '.join(map(str, steps))})"
    return Question(name, text, source, rule, missing, wants, lacks)


def _marks(found: Evidence) -> list[tuple[SmoothAblation, str, int, int]]:
    """Where an arm with smooth and its twin were both measured: the twin, task, inner step, and the arm's horizon."""
    marks = []
    for twin in filter(None, found.twins.values()):
        stages = found.preset(twin.arm)["meta"]["inner_steps"]
        horizon = max(stages) if isinstance(stages, (list, tuple)) else stages
        both = [task for task in found.tasks if all(found.was_evaluated(task, arm) for arm in (twin.arm, twin.label))]
        marks += [(twin, task, step, horizon) for task in both for step in found.steps[task]]
    return marks


def _smoothing(found: Evidence, is_beyond: bool) -> Iterator[Finding]:
    for twin, task, step, horizon in _marks(found):
        effect = found.effect(task, twin.arm, twin.label, EQUAL_STEPS, TEST_ACCURACY, step)
        if effect is not None and (step > horizon) is is_beyond:
            yield judged(effect, f"{task}, {step} steps", f"{twin.arm} against {twin.label}")


def _lone(found: Evidence, penalty: str) -> list[str]:
    """The planned arms with this penalty alone."""
    return [arm for arm in found.planned if set(found.penalties(arm)) == {penalty}]


def others(found: Evidence) -> Claim:
    rule = "test accuracy of smooth against each other regulariser at equal steps, interval above 0"
    missing = "no arm with l2, orthogonal or spectral beside one with smooth was evaluated"
    smooth = _lone(found, "smooth")
    pairs = [
        (arm, other)
        for arm in smooth
        for other in found.planned
        if set(found.penalties(other)) & set(OTHER_REGULARISERS) and found.kind(other) == found.kind(arm)
    ]
    wants = tuple(dict.fromkeys(arm for pair in pairs for arm in pair))
    lacks = tuple(found.lacking(wants, found.tasks))
    question = Question("X3", "smoothing is better than other regularisers", "table 1", rule, missing, wants, lacks)
    return question.decided(
        judged(effect, f"{task}, {found.last(task)} steps", f"{arm} against {other}")
        for task in found.tasks
        for arm, other in pairs
        if (effect := found.effect(task, arm, other, EQUAL_STEPS, TEST_ACCURACY)) is not None
    )


def hand_designed(found: Evidence) -> Claim:
    rule = (
        "test accuracy against each tuned hand-designed optimizer at equal steps: interval over meta-seeds and over "
        "optimizees, the wider one, above 0"
    )
    missing = "no hand-designed optimizer beside an arm with smooth was evaluated"
    smooth = _lone(found, "smooth")
    wants = (*smooth, found.plan.reference)  # whose runs are told of the baselines
    lacks = tuple(found.lacking(smooth, found.tasks))
    text = "smoothed learned optimizers beat hand-designed ones"
    question = Question("X4", text, "fig. 4", rule, missing, wants, lacks)
    return question.decided(
        judged(effect, f"{task}, {name}", arm)
        for task in found.tasks
        for arm in smooth
        for name in HAND_DESIGNED
        if (entry := found.tasks[task].baselines.get(name)) is not None
        if (effect := found.effect_against(task, arm, name, entry, EQUAL_STEPS, TEST_ACCURACY)) is not None
    )


def collapse(found: Evidence) -> Claim:
    rule = (
        "mean test accuracy at most 11%, where chance is 10%, or most optimizees diverged: supported if so everywhere, "
        "mixed if somewhere, else contradicted"
    )
    missing = "no arm with the orthogonal penalty was evaluated"
    arms = tuple(_lone(found, "orthogonal"))
    lacks = tuple(found.lacking(arms, found.tasks))
    question = Question("X5", "the orthogonal penalty falls to chance", "table 1", rule, missing, arms, lacks)
    both = [(task, arm) for task in found.tasks for arm in arms if found.was_evaluated(task, arm)]
    findings = [_at_chance(found, task, arm) for task, arm in both]
    words = {item.word for item in findings} - {TOO_FEW_META_SEEDS}
    if not words:
        return question.because(NOT_TESTED, said(findings) or missing, findings)
    verdict = SUPPORTED if words == {AT_CHANCE} else MIXED if AT_CHANCE in words else CONTRADICTED
    reason = ", ".join(f"{item.column} on {item.row}: {item.shown}" for item in findings)
    return question.because(verdict, reason, findings)


def _at_chance(found: Evidence, task: str, arm: str) -> Finding:
    entry, step = found.tasks[task].main(found.arms[arm]), found.last(task)
    assert entry is not None
    outcomes = entry.at(step)
    value, n = estimate(outcomes, TEST_ACCURACY), len(outcomes)
    lost = [outcome.diverged for seeds in outcomes.values() for outcome in seeds.values()]
    is_lost = value is None or sum(lost) > MOST * len(lost)
    word = AT_CHANCE if is_lost or value is not None and value[0] <= CHANCE else ABOVE_CHANCE
    word = word if n >= FEWEST_META_SEEDS else TOO_FEW_META_SEEDS
    shown = f"{sum(lost)} of {len(lost)} diverged" if is_lost or value is None else f"{100 * value[0]:.2f}%"
    interval = Interval(*value, n=n, meta_seeds=n, over="") if value else None
    facts = ((arm,), task, step, EQUAL_STEPS, TEST_ACCURACY)
    return Finding(task, arm, word, shown, *facts, interval=interval)


def near_zero(found: Evidence) -> Claim:
    rule = (
        f"Lipschitz ratio of the update rule around the zero state, against {TWIN}, paired by meta-seed: ratio's 95% "
        "interval below 1"
    )
    question = _smoothing_question(found, "X6", "smoothed updates are small and stable near zero", "fig. 7", rule)
    return question.decided(
        finding
        for twin in found.twins.values()
        if twin is not None and (finding := _steadier(found, twin.arm, twin.label)) is not None
    )


def _steadier(found: Evidence, smooth: str, plain: str) -> Finding | None:
    logs = log_ratios(*(_lipschitz(found, arm) for arm in (smooth, plain)))
    if not logs:
        return None
    finding = measured(logs, Figure("lipschitz"), f"{smooth} against {plain}", "Lipschitz ratio", RATIO)
    return replace(finding, arms=(smooth, plain), setting="update rule")


def _lipschitz(found: Evidence, arm: str) -> dict[int | str | None, float]:
    """By meta-seed, from any evaluation that says it: it does not depend on the task."""
    values: dict[int | str | None, float] = {}
    for task in found.tasks.values():
        mine = found.arm(arm)
        entry = None if mine is None else task.main(mine)
        for facts in entry.facts.values() if entry is not None else ():
            rules = {seed: own.update_rule for seed, own in facts.items() if len(own.update_rule) == 3}
            values |= {seed: rule[2] for seed, rule in rules.items() if rule[2] is not None}
    return values
