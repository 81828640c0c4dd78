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
from typing import TYPE_CHECKING, Any

from engine.base import seeds
from engine.base.errors import LregError
from engine.study.plan.plan import ArmPlan, Axis, Point, StudyPlan

if TYPE_CHECKING:
    import optuna

DIGITS = 4  # significant ones of a number that a search asks for
PATIENCE = 20  # draws before a point that nobody has asked for is looked up instead
FEW = 100_000  # points of a finite space that can be listed


def require() -> None:
    """Raise LregError where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise LregError("a study with a [search] needs Optuna, which is not installed: pip install optuna")


def next_points(
    plan: StudyPlan, arm: ArmPlan, asked: Sequence[Point], values: Sequence[float | None], count: int
) -> list[Point]:
    """Up to `count` points to try next, none that was asked before; [] when the search is over.

    `values` belong to `asked`: the candidate's mean on validation, None while it is not finished, NaN where it failed.
    The same arguments give the same points. Raises LregError where Optuna is not installed.
    """
    if plan.search is None:
        return []
    if not arm.axes:
        return [] if asked else [{}]
    require()
    points = [dict(point) for point in asked]
    known = [*values, *[None] * (len(points) - len(values))]
    while len(points) < min(plan.search.trials, len(asked) + count):
        point = _next(plan, arm, points, known)
        if point is None:
            break
        points.append(point)
        known.append(None)
    return points[len(asked) :]


def _next(plan: StudyPlan, arm: ArmPlan, asked: Sequence[Point], values: Sequence[float | None]) -> Point | None:
    """One more point; None where every point has been asked for."""
    before = {_key(point) for point in asked}
    for attempt in range(PATIENCE):
        point = _ask(plan, arm, asked, values, attempt)
        if _key(point) not in before:
            return point
    return next((point for point in _all(arm) if _key(point) not in before), None)


def _ask(plan: StudyPlan, arm: ArmPlan, asked: Sequence[Point], values: Sequence[float | None], attempt: int) -> Point:
    """What the sampler suggests, seeded by the number of the trial: the same whoever asks, and after any restart."""
    import optuna

    assert plan.search is not None
    seed = seeds.derive(plan.search.seed, "search", arm.name, len(asked), attempt) % 2**32
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {axis.key: _distribution(axis) for axis in arm.axes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of options that older versions call experimental
        study = optuna.create_study(direction="minimize", sampler=_sampler(plan, seed))
        for point, value in zip(asked, values, strict=True):
            trial = _trial(arm, point, value, distributions)
            if trial is not None:
                study.add_trial(trial)
        found = study.ask(distributions).params
    return {axis.key: _value(axis, found[axis.key]) for axis in arm.axes}


def _sampler(plan: StudyPlan, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    assert plan.search is not None
    if plan.search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    at_random = max(1, min(10, plan.search.trials // 3))  # before there is enough to learn from
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=at_random, constant_liar=True)


def _distribution(axis: Axis) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.low is None or axis.high is None:
        return CategoricalDistribution(range(len(axis.values)))
    if axis.integer:
        return IntDistribution(round(axis.low), round(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _value(axis: Axis, parameter: Any) -> Any:
    """A value of the preset for what Optuna has suggested; numbers as short as people write them."""
    if axis.low is None or axis.high is None:
        return axis.values[parameter]
    if axis.integer:
        return int(parameter)
    return min(max(float(f"{parameter:.{DIGITS}g}"), axis.low), axis.high)


def _trial(arm: ArmPlan, point: Point, value: float | None, distributions: dict[str, Any]) -> Any:
    """A point as Optuna knows it: pending, failed or complete. None for one that fits no axis any more."""
    from optuna.trial import TrialState, create_trial

    parameters = {axis.key: _parameter(axis, point.get(axis.key)) for axis in arm.axes}
    if None in parameters.values():
        return None
    state = TrialState.RUNNING if value is None else TrialState.COMPLETE if math.isfinite(value) else TrialState.FAIL
    figure = value if state == TrialState.COMPLETE else None
    return create_trial(state=state, value=figure, params=parameters, distributions=distributions)


def _parameter(axis: Axis, value: Any) -> Any:
    if axis.low is None or axis.high is None:
        keys = [json.dumps(choice, default=list) for choice in axis.values]
        found = json.dumps(value, default=list)
        return keys.index(found) if found in keys else None
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


def _key(point: Point) -> str:
    return json.dumps(point, sort_keys=True, default=list)
