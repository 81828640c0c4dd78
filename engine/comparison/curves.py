"""Where a polyline of (train loss, figure) passes a train loss: matched training loss and the scale frontier.

Segments are straight in log-log coordinates (a figure that is not positive: straight in the logarithm of the loss), so
that power laws are interpolated exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

Point = tuple[float, float]  # train loss (positive), figure


def at_first_crossing(curve: Sequence[Point], loss: float) -> float | None:
    """The figure where a learning curve first comes down to a train loss.

    None where it does not: it ends above, or is below it already where it was first measured.
    """
    if not curve or curve[0][0] < loss:
        return None
    return next(crossings(curve, loss, downward=True), None)


def crossings(curve: Sequence[Point], loss: float, *, downward: bool = False) -> Iterator[float]:
    """The figure wherever the polyline passes a train loss, from its beginning on; `downward`: only as loss falls."""
    if len(curve) == 1 and curve[0][0] == loss:
        yield curve[0][1]
    for first, second in zip(curve, curve[1:], strict=False):
        falls = first[0] >= loss >= second[0]
        if falls or (not downward and first[0] <= loss <= second[0]):
            yield _between(first, second, loss)
            if first[0] == second[0]:  # a vertical piece: its other end counts as well
                yield second[1]


def _between(first: Point, second: Point, loss: float) -> float:
    if loss == first[0]:
        return first[1]
    if loss == second[0]:
        return second[1]
    length = math.log(first[0]) - math.log(second[0])
    share = (math.log(first[0]) - math.log(loss)) / length if length else 0.0  # 0: neighbours among floats
    if first[1] > 0 and second[1] > 0:
        return math.exp((1 - share) * math.log(first[1]) + share * math.log(second[1]))
    return (1 - share) * first[1] + share * second[1]
