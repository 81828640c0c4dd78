"""Snapshot: a study at one moment, as its scheduler, the command line and the console see it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.base.errors import LregError, RunError, printable, shortened
from engine.runs.reader import RunReader
from engine.runs.results import at_horizon, by_horizon, common_horizon
from engine.runs.writer import is_complete
from engine.study.plan.plan import Cell, StudyAxis, StudyPlan
from engine.study.plan.state import Candidate, CellState, candidates, cells, plan_of, state_of, trials_of, winners
from engine.study.plan.transfers import TransferState, expected, wanted_transfers

ENDED = ("finished", "failed")
DAMAGE = (LregError, TypeError, ValueError, LookupError, AttributeError, RecursionError)  # what damaged files lead to
WorkItem = CellState | TransferState
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
    def pieces(self) -> list[WorkItem]:
        """What there is to do: the runs, then the transfers."""
        return [*self.cells, *self.transfers]

    @property
    def best(self) -> dict[str, Candidate]:
        """The winners, and of arms that are still at work the best so far; in the order of the arms."""
        best = {**winners(self.candidates), **self.winners}
        return {arm.name: best[arm.name] for arm in self.plan.arms if arm.name in best}

    @cached_property
    def counts(self) -> Counter[str]:
        """How many pieces are in which state."""
        return Counter(piece.state for piece in self.pieces)

    @cached_property
    def done(self) -> float:
        """How many pieces' worth of work is done."""
        return sum(1.0 if piece.state in ENDED else _share(piece) for piece in self.pieces)


class Watcher:
    """Takes snapshots of a study, each cheaper than a first look: what cannot change is kept between two."""

    def __init__(self, plan: StudyPlan, folder: Path) -> None:
        """The run store is the folder that the study's lies in."""
        self.plan = plan
        self.folder = folder
        self.store = folder.parent.parent
        self._cells: dict[str, list[tuple[Cell, RunReader]]] = {}  # of the points asked for so far
        self._values: dict[Path, dict[float, float | None]] = {}  # of the runs that have finished, by horizon
        self._finished: set[Path] = set()  # transfer jobs

    def look(self, is_over: Over = has_ended, exhausted: Collection[str] = ()) -> Snapshot:
        """`exhausted`: arms for which the search has no more points, whatever the plan says."""
        cells = self._look_at_cells()
        every = candidates(cells)
        open_arms = {cell.cell.arm for cell in cells if not is_over(cell)}
        complete = [arm for arm in self.asked_out(exhausted) if arm not in open_arms]
        best = winners([candidate for candidate in every if candidate.arm in complete])
        transfers = [
            TransferState(transfer, run, self._transfer_state(run))
            for transfer, run in wanted_transfers(self.plan, cells, best, self.store)
        ]
        runs = len(cells)
        if self.plan.search is not None:
            points = sum(self.plan.search.trials if arm.axes else 1 for arm in self.plan.arms)
            runs = max(runs, points * len(self.plan.seeds))
        total = runs + max(len(transfers), expected(self.plan, runs))
        return Snapshot(self.plan, cells, transfers, every, best, total)

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

    def _look_at_cells(self) -> list[CellState]:
        trials = "" if self.plan.search is None else json.dumps(trials_of(self.folder), sort_keys=True)
        if trials not in self._cells:
            by_id = {cell.run_id(self.plan.stamp): cell for cell in cells(self.plan, self.folder)}  # each run once
            self._cells = {trials: [(cell, RunReader(self.store / run_id)) for run_id, cell in by_id.items()]}
        states = [(cell, run, self._state(run)) for cell, run in self._cells[trials]]
        reached: dict[str, list[dict[float, float | None]]] = {}
        for cell, run, _ in states:
            reached.setdefault(cell.arm, []).append(self._values.get(run.path, {}))
        horizons = {arm: common_horizon(runs) for arm, runs in reached.items()}
        return [
            CellState(cell, run, state, at_horizon(self._values.get(run.path, {}), horizons[cell.arm]))
            for cell, run, state in states
        ]

    def _state(self, run: RunReader) -> str:
        if run.path in self._values and is_complete(run.path):  # what has finished stays so, unless it is deleted
            return "finished"
        self._values.pop(run.path, None)
        state = state_of(run)
        if state == "finished":
            self._values[run.path] = by_horizon(run, self.plan.pick.metric)
        return state

    def _transfer_state(self, run: RunReader) -> str:
        state = "finished" if run.path in self._finished and (run.path / "run.json").is_file() else state_of(run)
        if state == "finished":
            self._finished.add(run.path)
        return state


def look_at(folder: Path) -> Snapshot:
    """A study's folder, for whoever looks once. Raises RunError, in one line, where it is damaged."""
    try:
        return Watcher(plan_of(folder), folder).look()
    except DAMAGE as error:
        problem = str(error).splitlines()[0] if isinstance(error, LregError) else f"damaged ({type(error).__name__})"
        raise RunError(f"{folder / 'study.json'}: {problem.removeprefix('study.json: ')}") from None


def _share(piece: WorkItem) -> float:
    """How much of a piece is done."""
    status = piece.run.recorded_status()
    return min(status.step / status.total, 1.0) if status.total and piece.state != "missing" else 0.0


def summary(plan: StudyPlan) -> dict[str, Any]:
    """What a study asks for, for people: by key, as in its file."""
    values: dict[str, Any] = {"name": plan.name, "description": plan.description, "seeds": plan.seeds}
    values |= {f"arm {arm.name}": "; ".join(map(_axis, arm.axes)) or "one point" for arm in plan.arms}
    values |= {"reference": plan.reference, "pick": plan.pick.metric}
    for name, table in {"search": plan.search, "transfer": plan.transfer}.items():
        keys = asdict(table) if table is not None else {}
        evaluation = {f"evaluation.{key}": value for key, value in keys.pop("evaluation", {}).items()}
        values |= {f"{name}.{key}": value for key, value in (keys | keys.pop("settings", {}) | evaluation).items()}
    return {key: value for key, value in values.items() if value not in ("", None, (), [], {})}


def _axis(axis: StudyAxis) -> str:
    return f"{axis.key}: {', '.join(map(str, axis.values)) if axis.values else f'{axis.low} to {axis.high}'}"


def winner_runs(study: RunReader) -> dict[str, list[RunReader]]:
    """The finished runs of the winner of every arm that has one, the reference arm first.

    As in the report, the winner of an arm that is still at work is the best so far. Raises RunError where the study's
    folder is damaged.
    """
    seen = look_at(study.path)
    best = sorted(seen.best.items(), key=lambda item: item[0] != seen.plan.reference)
    return {name: [cell.run for cell in winner.cells] for name, winner in best}


def transferred_runs(study: RunReader) -> list[RunReader]:
    """Those of the winners' runs that have transfer evaluations, the reference arm's first.

    Raises RunError where there are none.
    """
    winning = [run for runs in winner_runs(study).values() for run in runs]
    transferred = [run for run in winning if run.transfers()]
    if not transferred:
        status = study.status()
        message = f", {shortened(printable(status.message))}" if status.message else ""
        lacks = "none of its winners has been transferred yet" if winning else "no arm of it has a winner yet"
        raise RunError(f"study {study.id}: {lacks} ({status.state}{message})")
    return transferred
