"""The claims of "Learning Regularizers" (arXiv:2510.08968), and how a study decides them.

The paper's figures are not public as numbers, so only the direction of each claim is looked at. C1 to C9 are numbered
as in docs/method.md#claims; its abstract makes C1, C2, C3 and C9, summaries of it report the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

from engine.comparison import Effect, Figure, t_interval, verdict
from engine.comparison.paired import EQUAL_STEPS, MATCHED_LOSS, RATIO, exponential
from engine.comparison.statistics import FEWEST_META_SEEDS
from engine.evaluation.transfer_plan import GRID
from engine.study.report.claim import CONTRADICTED, MIXED, NOT_SUPPORTED, NOT_TESTED, SUPPORTED, Claim, Question, said
from engine.study.report.evidence import TEST_ACCURACY, Evidence
from engine.study.report.findings import (
    BETTER,
    NOT_FOUND,
    TOO_FEW,
    TOO_FEW_META_SEEDS,
    UNTESTED,
    WORSE,
    Finding,
    corrected,
    judged,
    middle,
    outlived,
    shown_as,
    spearman,
    word_for,
    word_of,
)
from engine.study.report.papers import explicit as claims_explicit
from engine.study.report.papers import sweep as claims_sweep

DIRECT, SUMMARY = "the paper's abstract", "a summary of the paper"
NO_ARMS = "no arm with a geometric penalty was evaluated on a task together with its arm without one"
HARD = ("cifar10/cnn", "cifar10/conv3")


def claims(found: Evidence) -> list[Claim]:
    makers = (accuracy, flatness, transfer, radii, sharp_landscapes, hard_task)
    return [
        *(make(found) for make in makers),
        claims_sweep.radius_sweep(found),
        claims_sweep.stability(found),
        claims_explicit.explicit(found),
    ]


def _question(
    found: Evidence, name: str, text: str, source: str, rule: str, tasks: Iterable[str], missing: str = NO_ARMS
) -> Question:
    """About the regularised arms and those that they are compared with, on some tasks."""
    arms = found.regularised
    wants = tuple(dict.fromkeys([*arms, *map(found.plain_of, arms)]))
    return Question(name, text, source, rule, missing, wants, tuple(found.lacking(wants, tasks)))


def accuracy(found: Evidence) -> Claim:
    rule = "paired difference of test accuracy at equal steps, its 95% interval above 0"
    text = "regularised learned optimizers beat unregularised ones in test accuracy"
    return _question(found, "C1", text, DIRECT, rule, found.tasks).decided(_accuracies(found, found.tasks))


def flatness(found: Evidence) -> Claim:
    rule = (
        "ratio of sharpness and of the largest gradient norm within the ball at matched train loss, its 95% interval "
        "below 1"
    )
    text = "without a regulariser at test time they still find flatter minima"
    figures = {"sharpness": "sharpness", "max_grad_norm": "max gradient norm"}
    findings = [
        judged(effect, f"{task}, {words}", arm)
        for task in found.tasks
        for name, words in figures.items()
        for arm, effect in _effects(found, task, MATCHED_LOSS, Figure(name, found.radius))
    ]
    question = _question(found, "C2", text, DIRECT, rule, found.tasks)
    return question.decided(findings, f"radius {found.radius}" if found.radius else "")


def transfer(found: Evidence) -> Claim:
    rule = "C1's accuracy and C2's sharpness on every task but that of meta-training"
    unseen = [task for task in found.tasks if task.partition(" ")[0] not in found.meta_trained_on()]
    findings = [
        *(_renamed(finding, "accuracy") for finding in _accuracies(found, unseen)),
        *(
            judged(effect, f"{task}, sharpness", arm)
            for task in unseen
            for arm, effect in _effects(found, task, MATCHED_LOSS, Figure("sharpness", found.radius))
        ),
    ]
    missing = [name for name in GRID if name not in {finding.task.partition(" ")[0] for finding in findings}]
    missing = [name for name in missing if name not in found.meta_trained_on()]
    question = _question(found, "C3", "the effect transfers across data sets and networks", DIRECT, rule, unseen)
    return question.decided(findings, f"of the paper's grid not tested: {', '.join(missing)}" if missing else "")


def radii(found: Evidence) -> Claim:
    rule = (
        "where sharpness at matched train loss is lower at some radius, it is lower at all (better), at some only (not "
        "found), or higher at another (worse)"
    )
    missing = "no arm is flatter than its arm without a penalty at any radius, so there is nothing that could hold"
    question = _question(found, "C4", "the effect holds over all radii", SUMMARY, rule, found.tasks, missing)
    if len(found.radii) < 2:
        return question.because(NOT_TESTED, "sharpness was measured at fewer than two radii")
    agreement = _rank_agreement(found)
    remark = "" if agreement is None else f"rank agreement of the arms between radii {agreement:.2f} (Spearman)"
    findings = [
        finding
        for task in found.tasks
        for arm in found.regularised
        if (finding := _over_radii(found, task, arm)) is not None
    ]
    claim = question.decided(findings, remark)
    return claim if findings or not remark else question.because(NOT_TESTED, f"{missing}; {remark}")


def _over_radii(found: Evidence, task: str, arm: str) -> Finding | None:
    plain, figures = found.plain_of(arm), [Figure("sharpness", radius) for radius in found.radii]
    effects = [found.effect(task, arm, plain, MATCHED_LOSS, figure) for figure in figures]
    words = [(word_of(effect), effect.interval.p) for effect in effects if effect is not None]
    there = [(word, p) for word, p in words if word not in UNTESTED]
    flatter = sum(word == BETTER for word, _ in there)
    where = ((arm, plain), task, found.last(task), MATCHED_LOSS, Figure("sharpness"))
    if words and not there:
        return Finding(task, arm, words[0][0], "", *where)
    if len(there) < 2 or not flatter:
        return None
    sharper = [p for word, p in there if word == WORSE and p is not None]
    word = WORSE if sharper else BETTER if flatter == len(there) else NOT_FOUND
    # all radii are as sure as the least sure of them; one where it is sharper is enough against
    p = min(sharper) if sharper else max(p for _, p in there if p is not None)
    return Finding(task, arm, word, f"{flatter} of {len(there)}", *where, p=p)


def _rank_agreement(found: Evidence) -> float | None:
    """Spearman's rank correlation of the arms' mean sharpness, mean over tasks and pairs of radii."""
    agreements = []
    for name, task in found.tasks.items():
        entries = [entry for arm in found.arms.values() if (entry := task.main(arm)) is not None]
        columns = [[middle(entry, found.last(name), Figure("sharpness", r)) for entry in entries] for r in found.radii]
        whole = [[value for value in column if value is not None] for column in columns]
        whole = [column for column in whole if len(column) == len(entries)]
        if len(entries) > 2:
            agreements += [spearman(one, other) for one, other in itertools.combinations(whole, 2)]
    return sum(agreements) / len(agreements) if agreements else None


def sharp_landscapes(found: Evidence) -> Claim:
    rule = (
        "mlp-relu against mlp on each data set: the effect of the one less that of the other, paired by meta-seed "
        "(accuracy at equal steps, its 95% interval above 0; sharpness ratio at matched train loss, below 1)"
    )
    missing = "no data set on which both mlp and mlp-relu were evaluated"
    pairs = {task: task.replace("/mlp", "/mlp-relu") for task in found.tasks if task.partition(" ")[0].endswith("/mlp")}
    pairs = {task: sharp for task, sharp in pairs.items() if sharp in found.tasks}
    settings = {"accuracy": (EQUAL_STEPS, TEST_ACCURACY)}
    settings |= {"sharpness": (MATCHED_LOSS, Figure("sharpness", found.radius))} if found.radius else {}
    findings = []
    for task, sharp in pairs.items():
        for words, how in settings.items():
            there = dict(_effects(found, sharp, *how))
            both = [(arm, there[arm], effect) for arm, effect in _effects(found, task, *how) if arm in there]
            findings += [_larger(*item, f"{task.partition('/')[0]}, {words}") for item in both]
    text = "the advantage is largest on sharp landscapes such as MLP-ReLU"
    return _question(found, "C5", text, SUMMARY, rule, [*pairs, *pairs.values()], missing).decided(findings)


def _larger(arm: str, sharp: Effect, usual: Effect, row: str) -> Finding:
    """Whether the effect on the sharp landscape is better than on the usual one."""
    there = [(seed, sharp.values[seed], usual.values.get(seed)) for seed in sharp.values]
    means = {seed: {0: _mean(ours) - _mean(theirs)} for seed, ours, theirs in there if ours and theirs}
    interval = t_interval(means)
    if sharp.divergence.meta_seeds < FEWEST_META_SEEDS:
        word = TOO_FEW_META_SEEDS
    elif outlived(sharp) == WORSE:
        word = WORSE
    else:
        word = TOO_FEW if outlived(usual) == WORSE else word_for(verdict(interval, nothing=0.0), sharp.figure)
    shown = " to ".join(shown_as(sharp.figure, sharp.kind, effect.interval) for effect in (usual, sharp))
    interval = exponential(interval) if sharp.kind == RATIO else interval
    where = ((sharp.arm, sharp.reference), sharp.task, sharp.inner_step, sharp.setting, sharp.figure, sharp.kind)
    return Finding(row, arm, word, shown, *where, interval, None if outlived(sharp) else interval.p)


def _mean(values: Mapping[int, float]) -> float:
    return sum(values.values()) / len(values)


def hard_task(found: Evidence) -> Claim:
    rule = (
        "on CIFAR-10 with a CNN, accuracy at equal steps: supported if gam is worse and not every arm is; contradicted "
        "if every arm is better; not supported if nothing was found; else mixed"
    )
    tasks = [task for task in found.tasks if task.partition(" ")[0] in HARD]
    text, missing = "inconclusive on CIFAR-10 with a CNN; GAM fails there", f"{' or '.join(HARD)} was not evaluated"
    question = _question(found, "C6", text, SUMMARY, rule, tasks, missing)
    findings = corrected(tuple(_accuracies(found, tasks)))
    words = {item.word for item in findings} - set(UNTESTED)
    gam = {item.word for item in findings if "gam" in found.penalties(item.column)} - set(UNTESTED)
    if not words:
        return question.decided(findings)
    if words == {BETTER}:
        word = CONTRADICTED
    elif words == {NOT_FOUND}:
        word = NOT_SUPPORTED
    else:
        word = SUPPORTED if gam == {WORSE} and words != {WORSE} else MIXED
    return question.because(word, said(findings) + ("" if gam else "; no arm with gam among them"), findings)


def _effects(found: Evidence, task: str, setting: str, figure: Figure) -> Iterator[tuple[str, Effect]]:
    """Every regularised arm against its arm without a penalty."""
    for arm in found.regularised:
        effect = found.effect(task, arm, found.plain_of(arm), setting, figure)
        if effect is not None:
            yield arm, effect


def _accuracies(found: Evidence, tasks: Iterable[str]) -> Iterator[Finding]:
    for task in tasks:
        for arm, effect in _effects(found, task, EQUAL_STEPS, TEST_ACCURACY):
            yield judged(effect, task, arm)


def _renamed(finding: Finding, words: str) -> Finding:
    return Finding(**{**vars(finding), "row": f"{finding.row}, {words}"})
