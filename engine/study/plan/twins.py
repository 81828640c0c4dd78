"""Twins: what an arm with smooth is compared with, equal in every other penalty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.base.settings import show
from engine.comparison.arms import NAMES
from engine.study.plan.state import Candidate

SMOOTH = "smooth"


@dataclass(frozen=True)
class SmoothAblation:
    """A candidate whose penalties have the values that those of `arm`'s winner have beside smooth.

    `label` is its arm, with the point where it is not that arm's winner.
    """

    arm: str
    label: str
    candidate: Candidate


def twins(winners: Mapping[str, Candidate], candidates: Sequence[Candidate]) -> dict[str, SmoothAblation | None]:
    """For every arm whose winner has smooth; None where no finished candidate is its twin.

    Of several, one that is its own arm's winner; the one with the fewest other settings of its own; the best.
    """
    found: dict[str, SmoothAblation | None] = {}
    for arm, winner in winners.items():
        penalties = weighing(winner)
        if SMOOTH in penalties:
            wanted = {name: values for name, values in penalties.items() if name != SMOOTH}
            alike = [
                item
                for item in candidates
                if item.value is not None and weighing(item) == wanted and _kind(item) == _kind(winner)
            ]
            best = min(
                alike,
                key=lambda item: (item is not winners.get(item.arm), _differing(item, winner), item.value),
                default=None,
            )
            found[arm] = None if best is None else SmoothAblation(arm, _label(best, winners), best)
    return found


def weighing(candidate: Candidate) -> dict[str, Mapping[str, Any]]:
    """The penalties that weigh something."""
    found = candidate.cells[0].cell.preset.values.get("penalty", {})
    return {name: values for name, values in found.items() if values.get("weight") != 0}


def _differing(one: Candidate, other: Candidate) -> int:
    """In how many settings beside names and penalties."""
    flats = [item.cells[0].cell.preset.flat() for item in (one, other)]
    keys = {key for flat in flats for key in flat if key not in NAMES and not key.startswith("penalty.")}
    return sum(flats[0].get(key) != flats[1].get(key) for key in keys)


def _kind(candidate: Candidate) -> Any:
    return candidate.cells[0].cell.preset.values.get("optimizer", {}).get("kind")


def _label(candidate: Candidate, winners: Mapping[str, Candidate]) -> str:
    if candidate is winners.get(candidate.arm):
        return candidate.arm
    return f"{candidate.arm} ({', '.join(f'{key} = {show(value)}' for key, value in candidate.point.items())})"
