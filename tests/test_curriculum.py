"""The rule by which meta-training moves from one unroll length to the next."""

from __future__ import annotations

import json
import math

from engine.meta_training.curriculum import Curriculum


def judged(curriculum: Curriculum, *losses: float) -> list[str]:
    return [curriculum.judge(loss) for loss in losses]


def test_a_single_length_never_ends_and_keeps_the_best():
    curriculum = Curriculum((100,))
    curriculum.baseline(1.0)
    assert judged(curriculum, 0.9, 0.95, 0.95, 0.95, 0.8) == ["improved", *["continue"] * 3, "improved"]
    assert (curriculum.evaluated_steps, curriculum.best) == (100, 0.8)


def test_a_stage_that_improved_is_left_once_it_stops_improving():
    curriculum = Curriculum((100, 200, 500))
    curriculum.baseline(1.0)
    assert curriculum.evaluated_steps == 200
    assert judged(curriculum, 0.9, 0.95, 0.85, 0.9) == ["improved", "continue", "improved", "next stage"]
    assert (curriculum.stage, curriculum.inner_steps, curriculum.evaluated_steps) == (1, 200, 500)
    curriculum.baseline(0.7)
    assert judged(curriculum, 0.6, 0.5, 0.4, 0.45) == ["improved"] * 3 + ["next stage"]
    assert (curriculum.inner_steps, curriculum.evaluated_steps) == (500, 750)
    curriculum.baseline(0.3)
    assert judged(curriculum, 0.2, 0.25, 0.25) == ["improved", "continue", "ended"]
    assert curriculum.ended


def test_a_stage_that_never_improves_ends_meta_training():
    curriculum = Curriculum((100, 200))
    curriculum.baseline(1.0)
    assert judged(curriculum, 1.1, math.inf, 1.0) == ["continue", "continue", "ended"]


def test_an_infinite_baseline_is_beaten_by_any_loss_and_survives_json():
    curriculum = Curriculum((100, 200))
    curriculum.baseline(math.nan)
    again = Curriculum.from_json(json.loads(json.dumps(curriculum.to_json(), allow_nan=False)))
    assert again == curriculum and again.judge(1e9) == "improved"
