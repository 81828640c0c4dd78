"""Search: the points of an arm that are tried next, by Optuna's ask and tell. Without a database.

What has been asked is in the study's folder (trials.json); what came of it, in its runs. From both the search is
rebuilt whenever a point is wanted, so it depends on nothing that a killed scheduler could take with it.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.base import seeds
from engine.base.errors import LregError
from engine.base.files import write_atomic
from engine.study.plan.plan import ArmPlan, Point, StudyAxis, StudyPlan, key_of
from engine.study.plan.snapshot import Over
from engine.study.plan.state import TRIALS, Candidate, trials_of

AT_ONCE = 5  # a search learns nothing from what has not ended: of its trials at most a fifth are open at a time
DIGITS = 4  # significant ones of a number that a search asks for
PATIENCE = 20  # draws before a point that nobody has asked for is looked up instead
FEW = 100_000  # points of a finite space that can be listed


def require() -> None:
    """Raise LregError where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise LregError("a study with a [search] needs Optuna, which is not installed: pip install optuna")


def ask_for_more(
    plan: StudyPlan, folder: Path, candidates: Sequence[Candidate], is_over: Over, room: int
) -> tuple[int, set[str]]:
    """Ask for points for as many more runs as there is room for, the arms with the fewest trials first.

    They are noted in the study's folder before their runs are made. Returns how many points came, and the arms that
    have no more.
    """
    assert plan.search is not None
    trials, exhausted, came = trials_of(folder), set(), 0
    by_point = {(item.arm, key_of(item.point)): item for item in candidates}
    for arm in sorted((arm for arm in plan.arms if arm.axes), key=lambda arm: len(trials.get(arm.name, []))):
        tried = trials.get(arm.name, [])
        values = [_value_of(by_point.get((arm.name, key_of(point))), is_over) for point in tried]
        most_open = max(1, plan.search.trials // AT_ONCE)
        count = min(most_open - values.count(None), math.ceil(room / len(plan.seeds)))
        points = next_points(plan, arm, tried, values, count)
        if not points and None not in values and count > 0 and len(tried) < plan.search.trials:
            exhausted.add(arm.name)
        trials[arm.name] = [*tried, *points]
        room -= len(points) * len(plan.seeds)
        came += len(points)
    if came:
        write_atomic(folder / TRIALS, json.dumps(trials, indent=1) + "\n")
    return came, exhausted


def _value_of(candidate: Candidate | None, is_over: Over) -> float | None:
    """What is known of a point: its value; NaN where a run of it failed; None while it is open."""
    if candidate is not None and candidate.value is None and all(map(is_over, candidate.cells)):
        return math.nan
    return candidate.value if candidate is not None else None


def next_points(
    plan: StudyPlan, arm: ArmPlan, tried: Sequence[Point], values: Sequence[float | None], count: int
) -> list[Point]:
    """Up to `count` points to try next, none that was asked before; [] when the search is over.

    `values` belong to `tried`: the candidate's mean on validation, None while it is not finished, NaN where it failed.
    The same arguments give the same points. Raises LregError where Optuna is not installed.
    """
    if plan.search is None:
        return []
    if not arm.axes:
        return [] if tried else [{}]
    require()
    points = [dict(point) for point in tried]
    while len(points) < min(plan.search.trials, len(tried) + count):
        before = set(map(key_of, points))
        told = [*values, *[None] * (len(points) - len(values))]
        drawn = (_ask(plan, arm, points, told, attempt) for attempt in range(PATIENCE))
        new = next((point for point in itertools.chain(drawn, _all(arm)) if key_of(point) not in before), None)
        if new is None:
            break
        points.append(new)
    return points[len(tried) :]


def _ask(plan: StudyPlan, arm: ArmPlan, tried: Sequence[Point], values: Sequence[float | None], attempt: int) -> Point:
    """What the sampler suggests, seeded by the number of the trial: the same whoever asks, and after any restart."""
    import optuna
    from optuna.trial import TrialState, create_trial

    assert plan.search is not None
    seed = seeds.derive(plan.search.seed, "search", arm.name, len(tried), attempt) % 2**32
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {axis.key: _distribution(axis) for axis in arm.axes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of options that older versions call experimental
        sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
        if plan.search.sampler == "tpe":
            at_random = max(1, min(10, plan.search.trials // 3))  # before there is enough to learn from
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=at_random, constant_liar=True)
        study = optuna.create_study(direction="minimize", sampler=sampler)
        for point, value in zip(tried, values, strict=True):
            params = {axis.key: _parameter(axis, point.get(axis.key)) for axis in arm.axes}
            if None not in params.values():  # else it fits no axis any more
                is_known = value is not None and math.isfinite(value)
                state = TrialState.COMPLETE if is_known else TrialState.RUNNING if value is None else TrialState.FAIL
                result = value if is_known else None
                study.add_trial(create_trial(state=state, value=result, params=params, distributions=distributions))
        suggested = study.ask(distributions).params
    return {axis.key: _value(axis, suggested[axis.key]) for axis in arm.axes}


def _distribution(axis: StudyAxis) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.low is None or axis.high is None:
        return CategoricalDistribution(range(len(axis.values)))
    if axis.integer:
        return IntDistribution(round(axis.low), round(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _value(axis: StudyAxis, parameter: Any) -> Any:
    """A value of the preset for what Optuna has suggested; numbers as short as people write them."""
    if axis.low is None or axis.high is None:
        return axis.values[parameter]
    if axis.integer:
        return int(parameter)
    return min(max(float(f"{parameter:.{DIGITS}g}"), axis.low), axis.high)


def _parameter(axis: StudyAxis, value: Any) -> Any:
    """The other way; None for a value that is none of the axis."""
    if axis.low is None or axis.high is None:
        choices = [json.dumps(choice, default=list) for choice in axis.values]
        written = json.dumps(value, default=list)
        return choices.index(written) if written in choices else None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and axis.low <= value <= axis.high else None


def _all(arm: ArmPlan) -> Iterator[Point]:
    """Every point of a finite space; none of one that is not, or that is too large to be used up."""
    if any(axis.low is not None and not axis.integer for axis in arm.axes):
        return
    values = [axis.values or range(round(axis.low or 0), round(axis.high or 0) + 1) for axis in arm.axes]
    if math.prod(map(len, values)) <= FEW:
        for point in itertools.product(*values):
            yield dict(zip((axis.key for axis in arm.axes), point, strict=True))
