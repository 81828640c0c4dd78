"""The three readings of a pair: at equal steps, at matched training loss, and against the scale frontier."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from engine.comparison.curves import Point, at_first_crossing, crossings
from engine.comparison.evaluations import Figure, Outcome

EQUAL_STEPS, MATCHED_LOSS, FRONTIER = "equal steps", "matched loss", "frontier"
TRAIN_LOSS = Figure("train_loss")
Both = tuple[float, float]  # of the reference, of the arm


@dataclass(frozen=True)
class Pair:
    """One optimizee seed under both: where it ends, its way there, and the reference's other scales."""

    reference: Outcome
    arm: Outcome
    reference_path: list[Outcome]
    arm_path: list[Outcome]
    scaled: list[Outcome]  # the reference under its scales, ascending, 1 among them


class Outside(Exception):
    """One of a pair does not reach the train loss at which the two are compared."""


def _at_equal_steps(pair: Pair, figure: Figure) -> Both | None:
    theirs, ours = pair.reference.figures.get(figure), pair.arm.figures.get(figure)
    return None if theirs is None or ours is None else (theirs, ours)


def _at_matched_loss(pair: Pair, figure: Figure) -> Both | None:
    ends = _at_equal_steps(pair, TRAIN_LOSS)
    curves = [_polyline(path, figure) for path in (pair.reference_path, pair.arm_path)]
    if ends is None or min(ends) <= 0 or not all(curves):
        return None
    theirs, ours = (at_first_crossing(curve, max(ends)) for curve in curves)
    if theirs is None or ours is None:
        raise Outside
    return theirs, ours


def _at_frontier(pair: Pair, figure: Figure) -> Both | None:
    loss, ours = pair.arm.figures.get(TRAIN_LOSS, 0.0), pair.arm.figures.get(figure)
    line = _polyline([outcome for outcome in pair.scaled if not outcome.diverged], figure)
    if loss <= 0 or ours is None or len(line) < 2:
        return None
    passed = list(crossings(line, loss))
    if not passed:
        raise Outside
    return max(passed) if figure.name == "test_accuracy" else min(passed), ours


METHODS: Mapping[str, Callable[[Pair, Figure], Both | None]] = {
    EQUAL_STEPS: _at_equal_steps,
    MATCHED_LOSS: _at_matched_loss,
    FRONTIER: _at_frontier,
}


def _polyline(outcomes: Iterable[Outcome], figure: Figure) -> list[Point]:
    """Train loss and figure of those outcomes that have both."""
    points = ((outcome.figures.get(TRAIN_LOSS), outcome.figures.get(figure)) for outcome in outcomes)
    return [(loss, value) for loss, value in points if loss is not None and loss > 0 and value is not None]
