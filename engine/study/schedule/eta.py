"""How long a study will still take, by what its runs and transfer jobs have taken so far, kind by kind."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from engine.base.status import LIVE
from engine.study.plan.cost import cost_of
from engine.study.plan.snapshot import ENDED, Piece, Snapshot
from engine.study.plan.state import CellState

LEAST_SHARE = 0.05  # of a piece done, from which its own ETA tells of others
Kind = tuple[str, str]
"""Runs, transfers or baselines; and the arm: a reference arm's transfers take many times as long as others'."""


class Pace:
    """Remembers what has been taken, so that a look costs little: logs of what has finished are read once."""

    def __init__(self) -> None:
        self._taken: dict[Path, float] = {}  # seconds of a process
        self._at_once = 1

    def eta(self, seen: Snapshot) -> float | None:
        """Seconds left, with as many at work as now; None while nothing tells how long anything takes.

        What of a kind nothing is known takes as long as others: transfers of which none has begun, as the runs.
        """
        taken: dict[Kind, list[float]] = {}
        for piece in seen.pieces:
            if (seconds := self._seconds(piece)) is not None:
                taken.setdefault(_kind(piece), []).append(seconds)
        if not taken:
            return None
        left = {piece.run.path: _left(piece, taken) for piece in seen.pieces if piece.state not in ENDED}
        to_come = (seen.total - len(seen.pieces)) * _usual(("transfer", ""), taken)
        self._at_once = sum(piece.state in LIVE for piece in seen.pieces) or self._at_once
        return max((sum(left.values()) + to_come) / self._at_once, *left.values(), 0.0)

    def _seconds(self, piece: Piece) -> float | None:
        """What a piece has taken, or will have by its own ETA; None where that cannot be told."""
        path = piece.run.path
        if piece.state == "finished":
            if path not in self._taken:
                self._taken[path] = cost_of(path).seconds
            return self._taken[path] or None
        status = piece.run.recorded_status() if piece.state == "running" else None
        if status is None or status.eta_s is None or status.step < LEAST_SHARE * status.total:
            return None
        return time.time() - status.process_started + status.eta_s


def _kind(piece: Piece) -> Kind:
    if isinstance(piece, CellState):
        return "run", piece.cell.arm
    return "baselines" if piece.transfer.is_baselines else "transfer", piece.transfer.arm


def _left(piece: Piece, taken: dict[Kind, list[float]]) -> float:
    own = piece.run.recorded_status().eta_s if piece.state == "running" else None
    return _usual(_kind(piece), taken) if own is None else own


def _usual(kind: Kind, taken: dict[Kind, list[float]]) -> float:
    """What one of a kind takes; else one of its sort; else anything."""
    alike: Sequence[float] = taken.get(kind) or [
        s for other, each in taken.items() if other[0] == kind[0] for s in each
    ]
    return fmean(alike or [seconds for each in taken.values() for seconds in each])
