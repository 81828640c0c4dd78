"""Claims that are decided over meta-seeds, by how meta-training went: the sweep of rho, and the stability of smooth."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from engine.base.settings import show
from engine.comparison import Figure, Interval
from engine.comparison.paired import DIFFERENCE, RATIO
from engine.comparison.statistics import FEWEST_META_SEEDS, META_SEEDS
from engine.runs.reader import RunReader
from engine.runs.results import CONFIDENCE, at_horizon, by_horizon, common_horizon
from engine.study.plan.plan import ArmPlan
from engine.study.plan.state import Candidate
from engine.study.plan.twins import SmoothAblation
from engine.study.report.claim import Claim, Question
from engine.study.report.evidence import Evidence
from engine.study.report.findings import (
    BETTER,
    NOT_FOUND,
    TOO_FEW_META_SEEDS,
    WORSE,
    Finding,
    log_ratios,
    measured,
    shown_as,
)

BALANCED = 0.01  # the rho that the paper is said to have found balanced
BySeed = dict[int | str | None, float]
NEAR = 1.5  # a rho within this factor of it stands for it


def radius_sweep(found: Evidence) -> Claim:
    """C7: sharpness at the end of meta-training, where every candidate has it, not only the winners."""
    rule = (
        "sharpness at the last evaluation of meta-training over as many inner steps as all of the axis reached: that "
        "of rho near 0.01 over that of the smallest and of the greatest rho, paired by meta-seed, its 95% interval "
        "below 1"
    )
    missing = "no arm sweeps rho with a value near 0.01 between others"
    text, source = "a small rho misses, a large one spans minima; 0.01 is balanced", "a summary of the paper"
    return Question("C7", text, source, rule, missing).decided(
        finding for arm in found.plan.arms for axis in arm.axes for finding in _sweep(found, arm, axis.key)
    )


def _sweep(found: Evidence, arm: ArmPlan, key: str) -> Iterator[Finding]:
    """The comparisons along an axis, for each point of the other axes."""
    if not key.endswith(".rho"):
        return
    groups: dict[str, dict[float, Candidate]] = {}
    for candidate in found.candidates_of(arm.name):
        others = ", ".join(f"{name} = {show(value)}" for name, value in candidate.point.items() if name != key)
        groups.setdefault(others, {})[float(candidate.point[key])] = candidate
    for others, along in groups.items():
        near = [rho for rho in along if rho and max(rho / BALANCED, BALANCED / rho) <= NEAR]
        inner = [rho for rho in near if min(along) < rho < max(along)]
        if inner:
            middle = min(inner, key=lambda rho: abs(math.log(rho / BALANCED)))
            row = ", ".join(filter(None, [arm.name, others]))
            sharpness = dict(zip(along, _of_each(along.values(), "sharpness"), strict=True))
            for words, end in (("smallest", min(along)), ("greatest", max(along))):
                yield _flatter(
                    sharpness[middle], sharpness[end], arm.name, row, f"rho {middle:g} against {words}, {end:g}"
                )


def _flatter(ours: BySeed, theirs: BySeed, arm: str, row: str, column: str) -> Finding:
    finding = measured(log_ratios(ours, theirs), Figure("sharpness"), row, column, RATIO)
    return replace(finding, arms=(arm,), setting="end of meta-training")


def _of_each(candidates: Iterable[Candidate], metric: str) -> list[BySeed]:
    """A metric of each candidate by meta-seed, of the runs that have finished: as far as all of them were evaluated."""
    read = [
        {cell.cell.seed: by_horizon(cell.run, metric) for cell in candidate.cells if cell.state == "finished"}
        for candidate in candidates
    ]
    horizon = common_horizon(run for candidate in read for run in candidate.values())
    at = [{seed: at_horizon(run, horizon) for seed, run in candidate.items()} for candidate in read]
    return [{seed: value for seed, value in candidate.items() if value is not None} for candidate in at]


def _at_the_end(candidate: Candidate, metric: str) -> BySeed:
    """The newest value of a metric by meta-seed, of the runs that have finished."""
    found: BySeed = {}
    for cell in candidate.cells:
        value = _latest(cell.run).get(metric) if cell.state == "finished" else None
        if value is not None and math.isfinite(value):
            found[cell.cell.seed] = value
    return found


def _latest(run: RunReader) -> Mapping[str, Any]:
    return RunReader(run.path).figures()


def stability(found: Evidence) -> Claim:
    """C8: the spread over meta-seeds, and how many unrolls diverged."""
    rule = (
        "each arm with smooth against its twin, the candidate without smooth whose other penalties have the same "
        "values: variance over meta-seeds of the metric that winners are picked by (F interval of its ratio below 1), "
        "and diverged unrolls in meta-training (paired by meta-seed, 95% interval below 0; left out where none did)"
    )
    source, missing = "a summary of the paper; Xiong and Hsieh", "no arm with smooth beside the same arm without it"
    wants = tuple(found.smoothed)
    lacks = (*found.lacking(wants), *found.without_twin())
    question = Question("C8", "smoothing stabilises meta-training", source, rule, missing, wants, lacks)
    pairs = [twin for twin in found.twins.values() if twin is not None]
    return question.decided(itertools.chain.from_iterable(_calmer(found, twin) for twin in pairs))


def _calmer(found: Evidence, twin: SmoothAblation) -> Iterator[Finding]:
    ours, theirs = found.winners[twin.arm], twin.candidate
    row, arms = f"{twin.arm} against {twin.label}", (twin.arm, twin.label)
    values = [list(by_seed.values()) for by_seed in _of_each((ours, theirs), found.plan.pick.metric)]
    yield _spread(values[0], values[1], row, arms)
    lost, theirs_lost = (_at_the_end(candidate, "diverged") for candidate in (ours, theirs))
    both = {seed: lost[seed] - theirs_lost[seed] for seed in lost if seed in theirs_lost}
    if any(lost[seed] or theirs_lost[seed] for seed in both):
        finding = measured(both, Figure("diverged"), row, "diverged unrolls", DIFFERENCE)
        yield replace(finding, arms=arms, setting="end of meta-training")


def _spread(ours: list[float], theirs: list[float], row: str, arms: tuple[str, str]) -> Finding:
    """The ratio of two variances over meta-seeds, with its F interval (of normally distributed values)."""
    from scipy.special import fdtr, fdtri

    figure = Figure("variance over meta-seeds")
    few = Finding(row, "variance", TOO_FEW_META_SEEDS, "", arms, setting="meta-seeds", figure=figure)
    if min(len(ours), len(theirs)) < FEWEST_META_SEEDS:
        return few
    mine, its = statistics.variance(ours), statistics.variance(theirs)
    if min(mine, its) <= 0:
        return few
    ratio, tail = mine / its, (1 - CONFIDENCE) / 2
    quantiles = [float(fdtri(len(ours) - 1, len(theirs) - 1, share)) for share in (tail, 1 - tail)]
    n, low, high = min(len(ours), len(theirs)), ratio / quantiles[1], ratio / quantiles[0]
    below = float(fdtr(len(ours) - 1, len(theirs) - 1, ratio))
    interval = Interval(ratio, low, high, n, n, META_SEEDS, 2 * min(below, 1 - below))
    word = BETTER if high < 1 else WORSE if low > 1 else NOT_FOUND
    shown = shown_as(figure, RATIO, interval)
    return Finding(row, "variance", word, shown, arms, "", None, "meta-seeds", figure, RATIO, interval, interval.p)
