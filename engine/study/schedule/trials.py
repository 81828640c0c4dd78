"""Trials: the points that a search asks for, noted in the study's folder before their runs are made."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from engine.base.files import write_atomic
from engine.study.plan.plan import Point, StudyPlan
from engine.study.plan.snapshot import Over
from engine.study.plan.state import TRIALS, Candidate, trials_of

AT_ONCE = 5  # a search learns nothing from what has not ended: of its trials at most a fifth are open at a time


def ask(plan: StudyPlan, folder: Path, found: Sequence[Candidate], is_over: Over, room: int) -> tuple[int, list[str]]:
    """Ask for points for as many more runs as there is room for, the arms with the fewest trials first.

    Returns how many points came, and the arms that have no more.
    """
    from engine.study.plan.search import next_points

    assert plan.search is not None
    trials, exhausted, came = trials_of(folder), [], 0
    most_open = max(1, plan.search.trials // AT_ONCE)
    for arm in sorted((arm for arm in plan.arms if arm.axes), key=lambda arm: len(trials.get(arm.name, []))):
        asked = trials.get(arm.name, [])
        values = _values(arm.name, asked, found, is_over)
        fitting = math.ceil(room / len(plan.seeds))
        count = min(most_open - values.count(None), plan.search.trials - len(asked), fitting)
        if count <= 0:
            continue
        points = next_points(plan, arm, asked, values, count)
        exhausted += [] if points or None in values else [arm.name]
        trials[arm.name] = [*asked, *points]
        room -= len(points) * len(plan.seeds)
        came += len(points)
    if came:
        write_atomic(folder / TRIALS, json.dumps(trials, indent=1) + "\n")
    return came, exhausted


def _values(arm: str, asked: Sequence[Point], found: Sequence[Candidate], is_over: Over) -> list[float | None]:
    """What is known of each point: its value; NaN where a run of it failed; None while it is open."""
    known = {_key(candidate.point): candidate for candidate in found if candidate.arm == arm}
    values: list[float | None] = []
    for point in asked:
        candidate = known.get(_key(point))
        value = candidate.value if candidate else None
        failed = candidate is not None and value is None and all(map(is_over, candidate.cells))
        values.append(math.nan if failed else value)
    return values


def _key(point: Point) -> str:
    return json.dumps(point, sort_keys=True, default=list)
