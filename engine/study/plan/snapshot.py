"""Snapshot: a study at one moment, as its scheduler, the command line and the console see it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.base.errors import LregError
from engine.base.status import LIVE
from engine.runs.reader import RunReader
from engine.study.plan.plan import Axis, StudyPlan
from engine.study.plan.state import Candidate, CellState, Looker, candidates, state_of, trials_of, winners
from engine.study.plan.transfers import TransferState, expected, wanted

ENDED = ("finished", "failed")
DAMAGE = (LregError, TypeError, ValueError, LookupError, AttributeError, RecursionError)  # what damaged files lead to

Piece = CellState | TransferState
"""A run of a study, or one of its transfer jobs."""
Over = Callable[[CellState], bool]
"""Whether nothing more will come of a cell."""


def has_ended(cell: CellState) -> bool:
    return cell.state in ENDED


@dataclass(frozen=True)
class Snapshot:
    """A study at one moment. `winners` are those of the arms that are complete."""

    plan: StudyPlan
    cells: Sequence[CellState]
    transfers: Sequence[TransferState]
    candidates: Sequence[Candidate]
    winners: dict[str, Candidate]
    total: int  # runs and transfers that there will be in the end, as far as can be told

    @property
    def pieces(self) -> list[Piece]:
        """What there is to do: the runs, then the transfers."""
        return [*self.cells, *self.transfers]

    @cached_property
    def counts(self) -> Counter[str]:
        """How many pieces are in which state."""
        return Counter(piece.state for piece in self.pieces)

    @cached_property
    def done(self) -> float:
        """How many pieces' worth of work is done."""
        return sum(1.0 if piece.state in ENDED else _share(piece) for piece in self.pieces)


class Watcher:
    """Takes snapshots of a study, each cheaper than a first look."""

    def __init__(self, plan: StudyPlan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self._looker = Looker(plan, folder)
        self._finished: set[Path] = set()  # transfer jobs

    def look(self, is_over: Over = has_ended, exhausted: Collection[str] = ()) -> Snapshot:
        """`exhausted`: arms for which the search has no more points, whatever the plan says."""
        cells = self._looker.look()
        found = candidates(cells)
        open_arms = {cell.cell.arm for cell in cells if not is_over(cell)}
        complete = [arm for arm in self.asked_out(exhausted) if arm not in open_arms]
        best = winners([candidate for candidate in found if candidate.arm in complete])
        transfers = [
            TransferState(transfer, run, self._transfer_state(run))
            for transfer, run in wanted(self.plan, cells, best, self._looker.store)
        ]
        return Snapshot(self.plan, cells, transfers, found, best, self._total(len(cells), len(transfers)))

    def asked_out(self, exhausted: Collection[str]) -> list[str]:
        """The arms to which no more points will come."""
        if self.plan.search is None:
            return [arm.name for arm in self.plan.arms]
        trials, most = trials_of(self.folder), self.plan.search.trials
        return [
            arm.name
            for arm in self.plan.arms
            if not arm.axes or arm.name in exhausted or len(trials.get(arm.name, [])) >= most
        ]

    def _transfer_state(self, run: RunReader) -> str:
        state = "finished" if run.path in self._finished and (run.path / "run.json").is_file() else state_of(run)
        if state == "finished":
            self._finished.add(run.path)
        return state

    def _total(self, cells: int, transfers: int) -> int:
        if self.plan.search is not None:
            searched = sum(bool(arm.axes) for arm in self.plan.arms)
            points = searched * self.plan.search.trials + len(self.plan.arms) - searched
            cells = max(cells, points * len(self.plan.seeds))
        return cells + max(transfers, expected(self.plan, cells))


def _share(piece: Piece) -> float:
    """How much of a piece is done."""
    status = piece.run.recorded_status()
    return min(status.step / status.total, 1.0) if status.total and piece.state != "missing" else 0.0


def summary(plan: StudyPlan) -> dict[str, Any]:
    """What a study asks for, for people: by key, as in its file."""
    found: dict[str, Any] = {"name": plan.name, "description": plan.description, "seeds": plan.seeds}
    for arm in plan.arms:
        found[f"arm {arm.name}"] = "; ".join(map(_axis, arm.axes)) or "one point"
    found |= {"reference": plan.reference, "pick": plan.pick.metric}
    tables = {"search": plan.search, "transfer": plan.transfer}
    for name, table in ((name, asdict(table)) for name, table in tables.items() if table is not None):
        settings, evaluation = table.pop("settings", {}), _dotted("evaluation", table.pop("evaluation", {}))
        flat = table | settings | evaluation
        found |= {f"{name}.{key}": value for key, value in flat.items()}
    return {key: value for key, value in found.items() if value not in ("", None, (), [], {})}


def _axis(axis: Axis) -> str:
    if axis.values:
        return f"{axis.key}: {', '.join(map(str, axis.values))}"
    return f"{axis.key}: {axis.low} to {axis.high}"


def _dotted(name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}.{key}": value for key, value in table.items()}


def live(pieces: Iterable[Piece]) -> list[RunReader]:
    return [piece.run for piece in pieces if piece.state in LIVE]
