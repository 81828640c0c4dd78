"""The report's first page: what was asked, and what was found, in words and in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.base.settings import show
from engine.comparison import Effect, controls
from engine.comparison.paired import EQUAL_STEPS, FRONTIER, GRID, MATCHED_LOSS, REGULAR
from engine.comparison.statistics import FEWEST_META_SEEDS
from engine.runs.evaluations import SHARPNESS
from engine.study.plan.plan import ArmPlan, StudyAxis
from engine.study.report.claim import BETTER, EXPLAINED, NOT_FOUND, TESTED, WORSE, shown_as, smallest, word_of
from engine.study.report.evidence import HEADLINE, Evidence
from engine.study.report.markdown import NOTHING, bullets, code, codes, count, paragraph, table, text

HOW = {
    EQUAL_STEPS: "at equal steps",
    MATCHED_LOSS: "at matched train loss",
    REGULAR: "against the reference's scales up to its best",
    FRONTIER: "against all of the reference's scales",
    GRID: "against the reference's scale x weight decay",
}
TOLD = ("weight", "rho", "epsilon", "radius")  # of a penalty's or term's settings


def asked(study: Evidence) -> Iterator[str]:
    """The arms, and what their learned optimizers were made to do."""
    yield "## What was asked\n"
    trained, seeds = sorted(study.meta_trained_on), study.plan.seeds
    words = (
        f"Every arm is a way to meta-train a learned optimizer on {codes(trained)}, from "
        f"{count(len(seeds), 'meta-seed')}. The others are compared with {code(study.plan.reference)}."
    )
    if study.tasks:
        unseen = sum(task.partition(" ")[0] not in trained for task in study.tasks)
        steps = sorted({study.last(task) for task in study.tasks})
        words += (
            f" Frozen, and without any penalty, the learned optimizers then train networks on "
            f"{count(len(study.tasks), 'task')}, {unseen} of them never seen in meta-training, for "
            f"{' or '.join(map(str, steps))} inner steps: {codes(study.tasks)}."
        )
    yield paragraph(words)
    yield table(["arm", "penalties and terms", "axes"], [_arm(study, arm) for arm in study.plan.arms], left=3)
    if named := controls(list(study.arms.values())):
        yield bullets(text(control.words) for control in named.values())


def _arm(study: Evidence, arm: ArmPlan) -> list[str]:
    penalties = [
        " ".join([name, *(f"{key} {show(values[key])}" for key in TOLD if key in values)])
        for name, values in study.penalties(arm.name).items()
    ]
    return [code(arm.name), text("; ".join(penalties) or "none"), "; ".join(map(_axis, arm.axes)) or NOTHING]


def _axis(axis: StudyAxis) -> str:
    values = ", ".join(map(show, axis.values)) if axis.values else f"{axis.low} to {axis.high}"
    return f"{code(axis.key)}: {text(values)}"


def found(study: Evidence) -> Iterator[str]:
    """How each arm compares with the reference, over all tasks."""
    reference = study.plan.reference
    yield "## What was found\n"
    if not study.tasks:
        yield "There are no transfer evaluations of winners, so the arms cannot be compared yet.\n"
        return
    if reference not in study.arms:
        yield f"The reference arm {code(reference)} has no winner, so the others cannot be compared with it yet.\n"
        return
    if len(study.plan.seeds) < FEWEST_META_SEEDS:
        yield paragraph(
            f"{count(len(study.plan.seeds), 'meta-seed')}: too few to call any arm better or worse than the reference "
            f"{code(reference)}; that takes {FEWEST_META_SEEDS}. The differences stand under Results."
        )
        return
    lines = {arm: arm_lines for arm in study.arms if arm != reference and (arm_lines := list(_lines(study, arm)))}
    if not lines:
        yield f"No other arm has been evaluated where the reference arm {code(reference)} was.\n"
        return
    yield table(
        ["arm", "reading", "compared", BETTER, WORSE, NOT_FOUND, "effects", "power from"],
        [_row(study, arm, line) for arm, arm_lines in lines.items() for line in arm_lines],
        left=3,
    )
    yield paragraph(
        "Counts are of tasks, each comparison by itself, not corrected for their number; ratios and differences are "
        f"arm against reference, from the lowest to the highest. {EXPLAINED}; here the median over tasks."
    )


def _called(study: Evidence, arm: str) -> str:
    return code(arm) + (" so far" if study.waiting & {arm, study.plan.reference} else "")


@dataclass(frozen=True)
class Reading:
    """One reading of an arm in one setting, over all tasks where it was compared."""

    name: str  # of the metric, as `Evidence.metric_at` takes it
    setting: str
    effects: Sequence[Effect]


def _lines(study: Evidence, arm: str) -> Iterator[Reading]:
    sharpness = study.sharpness
    readings = [(sharpness, how) for how in (MATCHED_LOSS, REGULAR, FRONTIER, GRID, EQUAL_STEPS)]
    readings += [(SHARPNESS, how) for how in (MATCHED_LOSS, GRID) if sharpness != SHARPNESS]
    readings += [("test_loss", EQUAL_STEPS), ("test_loss", MATCHED_LOSS), (HEADLINE, EQUAL_STEPS)]
    for name, setting in readings:
        over = [
            study.effect(task, arm, study.plan.reference, setting, study.metric_at(task, name)) for task in study.tasks
        ]
        if effects := [effect for effect in over if effect is not None]:
            yield Reading(name, setting, effects)


def _row(study: Evidence, arm: str, line: Reading) -> list[str]:
    words = Counter(word_of(study, effect) for effect in line.effects)
    counts = [str(words[word]) for word in TESTED]
    power = NOTHING
    if tested := sorted(_tested(study, line), key=lambda effect: effect.interval.detectable or 0.0):
        middle = tested[len(tested) // 2]
        power = smallest(study.metric(middle.task, middle.at.name), middle.kind, middle.interval) or NOTHING
    how = HOW[line.setting].replace("the reference", code(study.plan.reference))
    return [_called(study, arm), _reading(study, line), how, *counts, _range(study, line), power]


def _reading(study: Evidence, line: Reading) -> str:
    """What is read; where tasks are judged by different metrics, all of them."""
    at = {f" at {effect.radius}" if effect.radius else "" for effect in line.effects}
    words = dict.fromkeys(study.metric(effect.task, effect.at.name).words for effect in line.effects)
    return text(", ".join(words)) + (at.pop() if len(at) == 1 else "")


def _tested(study: Evidence, line: Reading) -> list[Effect]:
    """Those with enough pairs to be counted."""
    enough = [effect for effect in line.effects if word_of(study, effect) in TESTED]
    return [effect for effect in enough if effect.interval.mean is not None]


def _range(study: Evidence, line: Reading) -> str:
    tested = _tested(study, line)
    if not tested:
        return NOTHING
    ends = [pick(tested, key=lambda effect: effect.interval.mean or 0.0) for pick in (min, max)]
    texts = [shown_as(study.metric(end.task, end.at.name), end.kind, end.interval) for end in ends]
    return " to ".join(dict.fromkeys(texts))
