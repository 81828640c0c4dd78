"""The claims of "Learning Regularizers" (arXiv:2510.08968), and how a study decides them.

The paper's figures are not public as numbers, so only the direction of each claim is looked at. C1 to C9 are numbered
as in docs/method.md#claims; its abstract makes C1, C2, C3 and C9, summaries of it report the others.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import replace

from engine.base.metrics import metric
from engine.base.settings import show
from engine.comparison import Effect, Interval, MetricAt, TaskResult, t_interval, verdict
from engine.comparison.paired import DIFFERENCE, EQUAL_STEPS, MATCHED_LOSS, RATIO, exponential
from engine.comparison.statistics import FEWEST_META_SEEDS, META_SEEDS, POWER
from engine.evaluation.transfer_plan import GRID
from engine.figures.base import estimate
from engine.runs.reader import RunReader
from engine.runs.results import CONFIDENCE, at_horizon, by_horizon, common_horizon
from engine.study.plan.plan import ArmPlan
from engine.study.plan.state import Candidate
from engine.study.report.claim import (
    BETTER,
    CONTRADICTED,
    MIXED,
    NOT_FOUND,
    NOT_SUPPORTED,
    NOT_TESTED,
    SUPPORTED,
    TESTED,
    TOO_FEW,
    TOO_FEW_META_SEEDS,
    WORSE,
    BySeed,
    Claim,
    Finding,
    MetaSeed,
    corrected,
    findings,
    judged,
    log_ratios,
    measured,
    outlived,
    said,
    shown_as,
    word_for,
    word_of,
)
from engine.study.report.evidence import HEADLINE, Evidence, SmoothAblation

DIRECT, SUMMARY = "the paper's abstract", "a summary of the paper"
NO_ARMS = "no arm with a geometric penalty was evaluated on a task together with its arm without one"
HARD = ("cifar10/cnn", "cifar10/conv3")
EXPLICIT = ("sam-", "gsam-", "gam-")  # baselines with a penalty of their own
BALANCED = 0.01  # the rho that the paper is said to have found balanced
NEAR = 1.5  # a rho within this factor of it stands for it
AT_THE_END = "end of meta-training"
ACCURACY, SHARPNESS = (EQUAL_STEPS, HEADLINE), (MATCHED_LOSS, "sharpness")


def claims(study: Evidence) -> list[Claim]:
    makers = (accuracy, flatness, transfer, radii, sharp_landscapes, hard_task, radius_sweep, stability, explicit)
    return [make(study) for make in makers]


def _claim(
    study: Evidence, name: str, text: str, source: str, rule: str, tasks: Iterable[str], missing: str = NO_ARMS
) -> Claim:
    """About the regularised arms and those that they are compared with, on some tasks."""
    wants = tuple(dict.fromkeys([*study.regularised, *study.regularised.values()]))
    return Claim(name, text, source, rule, missing, wants, study.lacking(wants, tasks))


def accuracy(study: Evidence) -> Claim:
    rule = "paired difference of test accuracy at equal steps, its 95% interval above 0"
    text = "regularised learned optimizers beat unregularised ones in test accuracy"
    claim = _claim(study, "C1", text, DIRECT, rule, study.tasks)
    return claim.decided(findings(study, study.regularised.items(), {"": ACCURACY}))


def flatness(study: Evidence) -> Claim:
    rule = (
        "ratio of sharpness and of the largest gradient norm within the ball at matched train loss, its 95% interval "
        "below 1"
    )
    text = "without a regulariser at test time they still find flatter minima"
    readings = {"sharpness": SHARPNESS, "max gradient norm": (MATCHED_LOSS, "max_grad_norm")}
    claim = _claim(study, "C2", text, DIRECT, rule, study.tasks)
    compared = findings(study, study.regularised.items(), readings)
    return claim.decided(compared, f"radius {study.radius}" if study.radius else "")


def transfer(study: Evidence) -> Claim:
    rule = "C1's accuracy and C2's sharpness on every task but that of meta-training"
    unseen = [task for task in study.tasks if task.partition(" ")[0] not in study.meta_trained_on]
    compared = findings(study, study.regularised.items(), {"accuracy": ACCURACY, "sharpness": SHARPNESS}, unseen)
    tested = {finding.task.partition(" ")[0] for finding in compared} | study.meta_trained_on
    missing = [name for name in GRID if name not in tested]
    claim = _claim(study, "C3", "the effect transfers across data sets and networks", DIRECT, rule, unseen)
    return claim.decided(compared, f"of the paper's grid not tested: {', '.join(missing)}" if missing else "")


def radii(study: Evidence) -> Claim:
    rule = (
        "where sharpness at matched train loss is lower at some radius, it is lower at all (better), at some only (not "
        "found), or higher at another (worse)"
    )
    missing = "no arm is flatter than its arm without a penalty at any radius, so there is nothing that could hold"
    claim = _claim(study, "C4", "the effect holds over all radii", SUMMARY, rule, study.tasks, missing)
    if len(study.radii) < 2:
        return claim.because(NOT_TESTED, "sharpness was measured at fewer than two radii")
    by_arm = [_over_radii(study, task, *pair) for task in study.tasks for pair in study.regularised.items()]
    return claim.decided(finding for finding in by_arm if finding is not None)


def _over_radii(study: Evidence, task: str, arm: str, plain: str) -> Finding | None:
    readings = [MetricAt("sharpness", radius) for radius in study.radii]
    effects = [study.effect(task, arm, plain, MATCHED_LOSS, reading) for reading in readings]
    words = [(word_of(study, effect), effect.interval.p) for effect in effects if effect is not None]
    tested = [(word, p) for word, p in words if word in TESTED]
    flatter = sum(word == BETTER for word, _ in tested)
    where = ((arm, plain), task, study.last(task), MATCHED_LOSS, MetricAt("sharpness"))
    if words and not tested:
        return Finding(task, arm, words[0][0], "", *where)
    if len(tested) < 2 or not flatter:
        return None
    sharper = [p for word, p in tested if word == WORSE and p is not None]
    word = WORSE if sharper else BETTER if flatter == len(tested) else NOT_FOUND
    # all radii are as sure as the least sure of them; one where it is sharper is enough against
    p = min(sharper) if sharper else max(p for _, p in tested if p is not None)
    return Finding(task, arm, word, f"{flatter} of {len(tested)}", *where, p=p)


def _mean(entry: TaskResult, step: int, reading: MetricAt) -> float | None:
    value = estimate(entry.at(step), reading)
    return None if value is None else value[0]


def sharp_landscapes(study: Evidence) -> Claim:
    rule = (
        "mlp-relu against mlp on each data set: the effect of the one less that of the other, paired by meta-seed "
        "(accuracy at equal steps, its 95% interval above 0; sharpness ratio at matched train loss, below 1)"
    )
    missing = "no data set on which both mlp and mlp-relu were evaluated"
    pairs = {task: task.replace("/mlp", "/mlp-relu") for task in study.tasks if task.partition(" ")[0].endswith("/mlp")}
    pairs = {task: sharp for task, sharp in pairs.items() if sharp in study.tasks}
    readings = {"accuracy": ACCURACY} | ({"sharpness": SHARPNESS} if study.radius else {})
    compared = []
    for task, sharp in pairs.items():
        for words, (setting, name) in readings.items():
            for arm, plain in study.regularised.items():
                both = [study.effect(on, arm, plain, setting, study.metric_at(on, name)) for on in (sharp, task)]
                if both[0] is not None and both[1] is not None:
                    compared.append(_larger(study, arm, both[0], both[1], f"{task.partition('/')[0]}, {words}"))
    text = "the advantage is largest on sharp landscapes such as MLP-ReLU"
    return _claim(study, "C5", text, SUMMARY, rule, [*pairs, *pairs.values()], missing).decided(compared)


def _larger(study: Evidence, arm: str, sharp: Effect, usual: Effect, row: str) -> Finding:
    """Whether the effect on the sharp landscape is better than on the usual one."""
    both = [(seed, sharp.values[seed], usual.values.get(seed)) for seed in sharp.values]
    means = {
        seed: {0: statistics.fmean(ours.values()) - statistics.fmean(theirs.values())}
        for seed, ours, theirs in both
        if ours and theirs
    }
    interval, judged_by = t_interval(means), study.metric(sharp.task, sharp.at.name)
    if sharp.divergence.meta_seeds < FEWEST_META_SEEDS:
        word = TOO_FEW_META_SEEDS
    elif outlived(study, sharp) == WORSE:
        word = WORSE
    else:
        is_lost = outlived(study, usual) == WORSE
        word = TOO_FEW if is_lost else word_for(verdict(interval, nothing=0.0), judged_by)
    text = " to ".join(shown_as(judged_by, sharp.kind, effect.interval) for effect in (usual, sharp))
    interval = exponential(interval) if sharp.kind == RATIO else interval
    where = ((sharp.arm, sharp.reference), sharp.task, sharp.inner_step, sharp.setting, sharp.at, sharp.kind)
    return Finding(row, arm, word, text, *where, interval, None if outlived(study, sharp) else interval.p)


def hard_task(study: Evidence) -> Claim:
    rule = (
        "on CIFAR-10 with a CNN, accuracy at equal steps: supported if gam is worse and not every arm is; contradicted "
        "if every arm is better; not supported if nothing was found; else mixed"
    )
    tasks = [task for task in study.tasks if task.partition(" ")[0] in HARD]
    text, missing = "inconclusive on CIFAR-10 with a CNN; GAM fails there", f"{' or '.join(HARD)} was not evaluated"
    claim = _claim(study, "C6", text, SUMMARY, rule, tasks, missing)
    compared = corrected(findings(study, study.regularised.items(), {"": ACCURACY}, tasks))
    words = {item.word for item in compared if item.word in TESTED}
    gam = {item.word for item in compared if item.word in TESTED and "gam" in study.penalties(item.column)}
    if not words:
        return claim.decided(compared)
    if words == {BETTER}:
        word = CONTRADICTED
    elif words == {NOT_FOUND}:
        word = NOT_SUPPORTED
    else:
        word = SUPPORTED if gam == {WORSE} and words != {WORSE} else MIXED
    return claim.because(word, said(compared) + ("" if gam else "; no arm with gam among them"), compared)


# -- how meta-training went, over meta-seeds -------------------------------------------------------------------------


def radius_sweep(study: Evidence) -> Claim:
    """Sharpness at the end of meta-training, where every candidate has it, not only the winners."""
    rule = (
        "sharpness at the last evaluation of meta-training over as many inner steps as all of the axis reached: that "
        "of rho near 0.01 over that of the smallest and of the greatest rho, paired by meta-seed, its 95% interval "
        "below 1"
    )
    missing = "no arm sweeps rho with a value near 0.01 between others"
    text = "a small rho misses, a large one spans minima; 0.01 is balanced"
    return Claim("C7", text, SUMMARY, rule, missing).decided(
        finding
        for arm in study.plan.arms
        for axis in arm.axes
        if axis.key.endswith(".rho")
        for finding in _sweep(study, arm, axis.key)
    )


def _sweep(study: Evidence, arm: ArmPlan, key: str) -> Iterator[Finding]:
    """The comparisons along an axis, for each point of the other axes."""
    groups: dict[str, dict[float, Candidate]] = {}
    for candidate in study.candidates_of(arm.name):
        others = ", ".join(f"{name} = {show(value)}" for name, value in candidate.point.items() if name != key)
        groups.setdefault(others, {})[float(candidate.point[key])] = candidate
    for others, along in groups.items():
        smallest, greatest = min(along), max(along)
        near = [rho for rho in along if smallest < rho < greatest and max(rho / BALANCED, BALANCED / rho) <= NEAR]
        if not near:
            continue
        middle = min(near, key=lambda rho: abs(math.log(rho / BALANCED)))
        row = ", ".join(filter(None, [arm.name, others]))
        sharpness = dict(zip(along, _of_each(along.values(), "sharpness"), strict=True))
        for words, end in (("smallest", smallest), ("greatest", greatest)):
            ratios = log_ratios(sharpness[middle], sharpness[end])
            column = f"rho {middle:g} against {words}, {end:g}"
            yield measured(ratios, "sharpness", row, column, RATIO, arm.name, setting=AT_THE_END)


def _of_each(candidates: Iterable[Candidate], metric: str) -> list[BySeed]:
    """A metric of each candidate by meta-seed, of the runs that have finished: as far as all of them were evaluated."""
    read = [
        {cell.cell.seed: by_horizon(cell.run, metric) for cell in candidate.cells if cell.state == "finished"}
        for candidate in candidates
    ]
    horizon = common_horizon(run for candidate in read for run in candidate.values())
    at = [{seed: at_horizon(run, horizon) for seed, run in candidate.items()} for candidate in read]
    return [{seed: value for seed, value in candidate.items() if value is not None} for candidate in at]


def stability(study: Evidence) -> Claim:
    """The spread over meta-seeds, and how many unrolls diverged."""
    rule = (
        "each arm with smooth against its twin, the candidate without smooth whose other penalties have the same "
        "values: variance over meta-seeds of the metric that winners are picked by (F interval of its ratio below 1), "
        "and diverged unrolls in meta-training (paired by meta-seed, 95% interval below 0; left out where none did)"
    )
    source, missing = f"{SUMMARY}; Xiong and Hsieh", "no arm with smooth beside the same arm without it"
    text, wants = "smoothing stabilises meta-training", tuple(study.smoothed)
    return Claim("C8", text, source, rule, missing, wants, study.lacking_twins()).decided(
        finding for twin in study.twins.values() if twin is not None for finding in _calmer(study, twin)
    )


def _calmer(study: Evidence, twin: SmoothAblation) -> Iterator[Finding]:
    both = (study.winners[twin.arm], twin.candidate)
    row, arms = f"{twin.arm} against {twin.label}", (twin.arm, twin.label)
    values = _of_each(both, study.plan.pick.metric)
    yield _spread(list(values[0].values()), list(values[1].values()), row, arms)
    ours, theirs = map(_diverged, both)
    more = {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}
    if any(ours[seed] or theirs[seed] for seed in more):
        yield measured(more, "diverged", row, "diverged unrolls", DIFFERENCE, *arms, setting=AT_THE_END)


def _diverged(candidate: Candidate) -> BySeed:
    """How many unrolls did in the end, by meta-seed, of the runs that have finished."""
    counts: dict[MetaSeed, float] = {}
    for cell in candidate.cells:
        value = RunReader(cell.run.path).figures().get("diverged") if cell.state == "finished" else None
        if value is not None and math.isfinite(value):
            counts[cell.cell.seed] = value
    return counts


def _spread(ours: list[float], theirs: list[float], row: str, arms: tuple[str, str]) -> Finding:
    """The ratio of two variances over meta-seeds, with its F interval (of normally distributed values)."""
    from scipy.special import fdtr, fdtri

    reading = MetricAt("variance over meta-seeds")
    few = Finding(row, "variance", TOO_FEW_META_SEEDS, "", arms, setting="meta-seeds", at=reading)
    if min(len(ours), len(theirs)) < FEWEST_META_SEEDS:
        return few
    variances = statistics.variance(ours), statistics.variance(theirs)
    if min(variances) <= 0:
        return few
    ratio, freedom = variances[0] / variances[1], (len(ours) - 1, len(theirs) - 1)
    low, high = (ratio / float(fdtri(*freedom, share)) for share in ((1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2))
    n, below = min(len(ours), len(theirs)), float(fdtr(*freedom, ratio))
    rare, usual = float(fdtri(*freedom, (1 - CONFIDENCE) / 2)), float(fdtri(*freedom, POWER))
    interval = Interval(ratio, low, high, n, n, META_SEEDS, 2 * min(below, 1 - below), usual / rare)
    word = BETTER if high < 1 else WORSE if low > 1 else NOT_FOUND
    text = shown_as(metric(reading.name), RATIO, interval)
    return replace(few, word=word, text=text, kind=RATIO, interval=interval, p=interval.p)


# -- hand-designed optimizers that apply a penalty explicitly --------------------------------------------------------


def explicit(study: Evidence) -> Claim:
    rule = (
        "test accuracy after as many forward/backward passes, and sharpness at matched train loss, against the "
        "hand-designed optimizer with an explicit SAM, GSAM or GAM (the one of least validation loss after as many "
        "passes, tuned there): 95% interval over meta-seeds and over optimizees, the wider one, above 0 and below 1"
    )
    missing = "no baseline with an explicit penalty was measured where it has had as many passes"
    best = {task: rival for task in study.tasks if (rival := _rival(study, task)) is not None}
    wants = (*study.regularised, study.plan.reference)  # whose runs are told of the baselines
    text = "they reduce the need for explicit regularisers"
    handicapped = {name for name, entry, at in best.values() if entry.facts_at(at).tuned_at != at}
    remark = f"{', '.join(sorted(handicapped))} had been tuned for more passes than are compared: a handicap"
    claim = Claim("C9", text, DIRECT, rule, missing, wants, study.lacking(study.regularised, best))
    compared = [item for task, rival in best.items() for item in _against_rival(study, task, *rival)]
    return claim.decided(compared, remark if handicapped else "")


def _rival(study: Evidence, task: str) -> tuple[str, TaskResult, int] | None:
    """Name, outcomes, and the inner step of equal passes: of those of which the fewest diverged, the best."""
    candidates = []
    for name, entry in study.tasks[task].baselines.items():
        at = study.last(task) // entry.facts_at(study.last(task)).passes_per_step
        loss = _mean(entry, at, MetricAt("validation_loss"))
        if name.startswith(EXPLICIT) and loss is not None:
            lost = sum(outcome.diverged for seeds in entry.at(at).values() for outcome in seeds.values())
            candidates.append((lost, loss, name, entry, at))
    return min(candidates, key=lambda item: item[:3])[2:] if candidates else None


def _against_rival(study: Evidence, task: str, name: str, entry: TaskResult, at: int) -> Iterator[Finding]:
    for arm in study.regularised:
        for words, (setting, metric_name) in {"accuracy": ACCURACY, "sharpness": SHARPNESS}.items():
            reading = study.metric_at(task, metric_name)
            effect = study.effect_against(task, arm, name, entry, setting, reading, at)
            if effect is not None:
                setting = "equal passes" if setting == EQUAL_STEPS else setting
                yield replace(judged(study, effect, f"{task}, {words}", arm), setting=setting)
