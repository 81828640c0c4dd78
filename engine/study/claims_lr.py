"""The claims of "Learning Regularizers" (arXiv:2510.08968), and how a study decides them.

The paper's figures are not public as numbers, so only the direction of each claim is looked at. C1 to C9 are numbered
as in the project's method; its abstract makes C1, C2, C3 and C9, summaries of it report the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from engine.comparison import Effect, Figure
from engine.comparison.paired import EQUAL_STEPS, MATCHED_LOSS, RATIO
from engine.study import claims_sweep
from engine.study.claims import (
    BETTER,
    MIXED,
    NOT_FOUND,
    NOT_SUPPORTED,
    NOT_TESTED,
    RULE,
    SUPPORTED,
    TOO_FEW,
    WORSE,
    Claim,
    Finding,
    Question,
    difference,
    judged,
    log_ratio,
    measured,
    middle,
    pairs,
    spearman,
)
from engine.study.evidence import TEST_ACCURACY, Evidence
from engine.transfer_plan import GRID

DIRECT, SUMMARY = "the paper's abstract", "a summary of the paper"
EXPLICIT = ("sam-", "gsam-", "gam-")  # baselines with a penalty of their own
NO_ARMS = "no arm with a geometric penalty was evaluated on a task together with its arm without one"
HARD = ("cifar10/cnn", "cifar10/conv3")


def claims(found: Evidence) -> list[Claim]:
    makers = (accuracy, flatness, transfer, radii, sharp_landscapes, hard_task)
    return [
        *(make(found) for make in makers),
        claims_sweep.radius_sweep(found),
        claims_sweep.stability(found),
        explicit(found),
    ]


def accuracy(found: Evidence) -> Claim:
    rule = f"paired difference of test accuracy at equal steps, its 95% interval above 0; {RULE}"
    question = Question(
        "C1", "regularised learned optimizers beat unregularised ones in test accuracy", DIRECT, rule, NO_ARMS
    )
    return question.decided(_accuracies(found, found.tasks))


def flatness(found: Evidence) -> Claim:
    rule = (
        "ratio of sharpness and of the largest gradient norm within the ball at matched train loss, its 95% interval "
        f"below 1; {RULE}"
    )
    question = Question(
        "C2", "without a regulariser at test time they still find flatter minima", DIRECT, rule, NO_ARMS
    )
    figures = {"sharpness": "sharpness", "max_grad_norm": "max gradient norm"}
    findings = [
        judged(effect, f"{task}, {words}", arm)
        for task in found.tasks
        for name, words in figures.items()
        for arm, effect in _effects(found, task, MATCHED_LOSS, Figure(name, found.radius))
    ]
    return question.decided(findings, f"radius {found.radius}" if found.radius else "")


def transfer(found: Evidence) -> Claim:
    rule = f"C1's accuracy and C2's sharpness on every task but that of meta-training; {RULE}"
    question = Question("C3", "the effect transfers across data sets and networks", DIRECT, rule, NO_ARMS)
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
    return question.decided(findings, f"of the paper's grid not tested: {', '.join(missing)}" if missing else "")


def radii(found: Evidence) -> Claim:
    rule = (
        "where sharpness at matched train loss is lower at some radius, it is lower at all (better), at some only (not "
        f"found), or higher at another (worse); {RULE}"
    )
    missing = "no arm is flatter than its arm without a penalty at any radius, so there is nothing that could hold"
    question = Question("C4", "the effect holds over all radii", SUMMARY, rule, missing)
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
    plain = found.plain_of(arm)
    effects = [found.effect(task, arm, plain, MATCHED_LOSS, Figure("sharpness", radius)) for radius in found.radii]
    words = [effect.verdict for effect in effects if effect is not None and effect.verdict != TOO_FEW]
    if len(words) < 2 or "lower" not in words:
        return None
    word = WORSE if "higher" in words else BETTER if words.count("lower") == len(words) else NOT_FOUND
    shown = f"{words.count('lower')} of {len(words)}"
    return Finding(task, arm, word, shown, (arm, plain), task, found.last(task), MATCHED_LOSS, Figure("sharpness"))


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
        "mlp-relu against mlp on each data set: the effect's 95% interval (accuracy at equal steps; sharpness ratio at "
        f"matched train loss) lies wholly on the better side of the other's; {RULE}"
    )
    missing = "no data set on which both mlp and mlp-relu were evaluated"
    question = Question("C5", "the advantage is largest on sharp landscapes such as MLP-ReLU", SUMMARY, rule, missing)
    settings = {"accuracy": (EQUAL_STEPS, TEST_ACCURACY)}
    settings |= {"sharpness": (MATCHED_LOSS, Figure("sharpness", found.radius))} if found.radius else {}
    findings = []
    for task in found.tasks:
        sharp = task.replace("/mlp", "/mlp-relu")
        if task.partition(" ")[0].endswith("/mlp") and sharp in found.tasks:
            for words, how in settings.items():
                there = dict(_effects(found, sharp, *how))
                both = [(arm, there[arm], effect) for arm, effect in _effects(found, task, *how) if arm in there]
                findings += [_larger(*item, f"{task.partition('/')[0]}, {words}") for item in both]
    return question.decided(findings)


def _larger(arm: str, sharp: Effect, usual: Effect, row: str) -> Finding:
    """Whether the effect on the sharp landscape is better than on the usual one."""
    finding = judged(sharp, row, arm)
    sign = 1 if sharp.figure == TEST_ACCURACY else -1
    ends = [sign * end for effect in (sharp, usual) for end in _ends(effect)]
    few = TOO_FEW in (sharp.verdict, usual.verdict) or len(ends) < 4
    if few:
        word = TOO_FEW
    else:
        word = BETTER if min(ends[:2]) > max(ends[2:]) else WORSE if max(ends[:2]) < min(ends[2:]) else NOT_FOUND
    shown = f"{judged(usual, row, arm).shown} to {finding.shown}"
    return Finding(row, arm, word, shown, finding.arms, sharp.task, sharp.inner_step, sharp.setting, sharp.figure)


def _ends(effect: Effect) -> list[float]:
    return [end for end in (effect.interval.low, effect.interval.high) if end is not None]


def hard_task(found: Evidence) -> Claim:
    rule = (
        "on CIFAR-10 with a CNN, accuracy at equal steps: supported if neither all arms are better nor all worse, and "
        "gam is not better; not supported if all are better or all worse; else mixed"
    )
    tasks = [task for task in found.tasks if task.partition(" ")[0] in HARD]
    missing = f"{' or '.join(HARD)} was not evaluated"
    question = Question("C6", "inconclusive on CIFAR-10 with a CNN; GAM fails there", SUMMARY, rule, missing)
    findings = list(_accuracies(found, tasks))
    words = {finding.word for finding in findings if finding.word != TOO_FEW}
    claim = question.decided(findings)
    if not words:
        return claim
    gam = any(finding.word == BETTER and "gam" in found.penalties(finding.column) for finding in findings)
    word = NOT_SUPPORTED if words in ({BETTER}, {WORSE}) else MIXED if gam else SUPPORTED
    return question.because(word, claim.reason, findings)


def explicit(found: Evidence) -> Claim:
    rule = (
        "test accuracy and sharpness against the hand-designed optimizer with an explicit SAM, GSAM or GAM (the one of "
        f"least validation loss on the task), both after as many forward/backward passes; {RULE}"
    )
    missing = "no baseline with an explicit penalty was measured where it has had as many passes"
    question = Question("C9", "they reduce the need for explicit regularisers", DIRECT, rule, missing)
    return question.decided(finding for task in found.tasks for finding in _against_explicit(found, task))


def _against_explicit(found: Evidence, task: str) -> Iterator[Finding]:
    step, outcomes = found.last(task), found.tasks[task]
    candidates = []
    for name, entry in outcomes.baselines.items():
        at = step // entry.facts_at(step).passes_per_step
        loss = middle(entry, at, Figure("validation_loss"))
        if name.startswith(EXPLICIT) and loss is not None:
            candidates.append((loss, name, entry.at(at)))
    if not candidates:
        return
    _, name, theirs = min(candidates, key=lambda item: item[:2])
    for arm in found.regularised:
        main = outcomes.main(found.arms[arm])
        if main is None or not main.at(step):
            continue
        ours, sharpness = main.at(step), Figure("sharpness", found.radius)
        both = [
            measured(pairs(ours, theirs, difference(TEST_ACCURACY)), TEST_ACCURACY, f"{task}, accuracy", arm),
            measured(pairs(ours, theirs, log_ratio(sharpness)), sharpness, f"{task}, sharpness", arm, kind=RATIO),
        ]
        for item in both:
            yield Finding(
                **{**vars(item), "arms": (arm, name), "task": task, "inner_step": step, "setting": "equal passes"}
            )


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
