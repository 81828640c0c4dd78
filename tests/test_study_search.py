"""A search asks for points that fit their axes, none twice, and the same ones whoever asks and after any restart."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from engine.presets.preset import load_preset
from engine.study.plan.plan import ArmPlan, Point, Search, StudyAxis, StudyPlan
from engine.study.plan.search import next_points

pytest.importorskip("optuna", reason="the extra `study` is not installed")

EPSILON = StudyAxis("penalty.smooth.epsilon", low=0.01, high=10.0)
TRUNCATION = StudyAxis("meta.truncation", low=5, high=50, log=False, integer=True)
WEIGHTS = StudyAxis("meta.weights", values=("uniform", "linear"))


def study(*axes: StudyAxis, **search: object) -> tuple[StudyPlan, ArmPlan]:
    arm = ArmPlan("smooth", load_preset("lo-smooth").values, axes)
    return StudyPlan("mine", "20261121-120000", (0,), (arm,), "smooth", search=Search(**search)), arm


def loss(point: Point) -> float:
    """Least, 0, at epsilon = 0.3."""
    return math.log10(point[EPSILON.key] / 0.3) ** 2


def searched(plan: StudyPlan, arm: ArmPlan, at_once: int = 1) -> list[Point]:
    """All points of a search whose candidates finish `at_once` at a time."""
    asked: list[Point] = []
    while points := next_points(plan, arm, asked, [loss(point) for point in asked], at_once):
        asked += points
    return asked


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_points_fit_their_axes_and_the_presets(sampler):
    plan, arm = study(EPSILON, TRUNCATION, WEIGHTS, sampler=sampler, trials=12)
    points = searched(plan, arm, at_once=3)
    assert len(points) == 12 and len({json.dumps(point) for point in points}) == 12
    assert all(list(point) == [EPSILON.key, TRUNCATION.key, WEIGHTS.key] for point in points)
    assert all(0.01 <= point[EPSILON.key] <= 10 and 5 <= point[TRUNCATION.key] <= 50 for point in points)
    assert {type(point[TRUNCATION.key]) for point in points} == {int}
    assert {point[WEIGHTS.key] for point in points} == {"uniform", "linear"}
    assert len({cell.run_id(plan.stamp) for cell in plan.cells_of(arm, points)}) == 12
    assert json.loads(json.dumps(points)) == points  # trials.json keeps them as they are


def test_a_search_learns_from_what_is_known():
    late = {}
    for sampler in ("tpe", "random"):
        searches = [searched(*study(EPSILON, sampler=sampler, trials=24, seed=seed)) for seed in range(3)]
        late[sampler] = [loss(point) for points in searches for point in points[8:]]
        assert all(min(map(loss, points)) < 0.1 for points in searches)
    assert sum(late["tpe"]) < 0.8 * sum(late["random"])


def test_it_goes_on_as_it_would_have_without_a_restart():
    plan, arm = study(EPSILON, WEIGHTS, trials=20)
    whole = searched(plan, arm)
    again = StudyPlan.from_json(json.loads(plan.dumps()))
    asked = json.loads(json.dumps(whole[:13]))
    values = [loss(point) for point in asked]
    assert next_points(again, again.arms[0], asked, values, 1) == whole[13:14]
    together = next_points(plan, arm, asked, values, 3)
    one_by_one = list(asked)
    for _ in range(3):  # nothing finishes between the three
        one_by_one += next_points(plan, arm, one_by_one, values, 1)
    assert one_by_one[13:] == together and len(together) == 3


def test_the_seed_and_the_arm_decide():
    plan, arm = study(EPSILON)
    other = replace(plan, search=replace(plan.search, seed=1))
    first = [next_points(which, where, [], [], 1) for which, where in ((plan, arm), (other, arm))]
    first.append(next_points(plan, replace(arm, name="other"), [], [], 1))
    assert len({json.dumps(points) for points in first}) == 3


def test_pending_and_failed_candidates_are_known_as_such():
    plan, arm = study(EPSILON, trials=100)
    known: list[Point] = [{EPSILON.key: value} for value in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)] * 2
    values = [loss(point) for point in known]
    (usual,) = next_points(plan, arm, known, values, 1)
    near: list[Point] = [{EPSILON.key: usual[EPSILON.key] * factor} for factor in (0.8, 0.9, 1.0, 1.1, 1.2)]
    (pending,) = next_points(plan, arm, [*known, *near], [*values, *[None] * 5], 1)
    (failed,) = next_points(plan, arm, [*known, *near], [*values, *[math.nan] * 5], 1)
    (best,) = next_points(
        plan, arm, [*known, {EPSILON.key: 8.0}, *near[1:]], [*values, *[-1.0] * 1, *[math.nan] * 4], 1
    )
    assert pending != failed  # what runs already is not tried next to; what failed tells nothing of its neighbours
    assert abs(math.log10(best[EPSILON.key] / 8)) < abs(math.log10(failed[EPSILON.key] / 8))
    assert next_points(plan, arm, [*known, *near], values, 1) == [pending]  # no value yet: one to wait for


def test_no_more_than_the_trials_that_were_ordered():
    plan, arm = study(EPSILON, trials=5)
    asked = next_points(plan, arm, [], [], 99)
    assert len(asked) == 5 and next_points(plan, arm, asked, [None] * 5, 1) == []
    assert next_points(plan, arm, asked, [0.1] * 5, 1) == []
    assert next_points(plan, arm, [], [], 0) == []


def test_a_finite_space_is_used_up_and_no_point_is_asked_for_twice():
    plan, arm = study(WEIGHTS, StudyAxis(TRUNCATION.key, low=5, high=7, integer=True), trials=50)
    points = next_points(plan, arm, [], [], 50)
    assert len(points) == 6 == len({json.dumps(point) for point in points})
    assert next_points(plan, arm, points, [0.1] * 6, 1) == []


def test_choices_that_are_lists():
    stages = StudyAxis("meta.inner_steps", values=([50, 100], [200]))
    plan, arm = study(stages, trials=9)
    points = next_points(plan, arm, [], [], 9)
    assert sorted(point[stages.key] for point in points) == [[50, 100], [200]]
    assert next_points(plan, arm, points[:1], [0.1], 9) != points[:1]


def test_an_arm_without_axes_is_one_point():
    plan, arm = study()
    assert next_points(plan, arm, [], [], 5) == [{}] and next_points(plan, arm, [{}], [None], 5) == []


def test_points_that_fit_no_axis_do_no_harm():
    plan, arm = study(EPSILON, WEIGHTS)
    odd = [{}, {EPSILON.key: 99.0, WEIGHTS.key: "linear"}, {EPSILON.key: "x", WEIGHTS.key: "?"}]
    assert len(next_points(plan, arm, odd, [0.1, None, math.nan], 2)) == 2


def test_without_a_search_there_is_nothing_to_ask():
    plan, arm = study(EPSILON)
    assert next_points(replace(plan, search=None), arm, [], [], 1) == []
