"""State of a study: read from the folders of its runs and transfer jobs, never remembered. Whoever looks sees the same.

A cell's state is that of its run, or "missing". So a scheduler that was killed goes on where its runs are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.base.errors import RunError
from engine.base.files import read_json
from engine.presets.preset import Preset
from engine.runs.reader import RunReader
from engine.runs.results import at_horizon, by_horizon, common_horizon, mean
from engine.runs.writer import is_complete
from engine.study.plan.plan import MOST_CELLS, Cell, Point, StudyPlan

TRIALS = "trials.json"  # of a study with a search: the points asked for so far, arm by arm
MISSING = "missing"


@dataclass(frozen=True)
class CellState:
    """A cell and where its run is."""

    cell: Cell
    run: RunReader
    state: str  # a run's state, or missing
    value: float | None  # of the metric that winners are picked by, see Looker; None until the run has finished


@dataclass(frozen=True)
class Candidate:
    """A point of an arm over all meta-seeds."""

    arm: str
    point: Point
    cells: tuple[CellState, ...]

    @property
    def preset(self) -> Preset:
        """Of its first run; the others differ from it in the seed."""
        return self.cells[0].cell.preset

    @property
    def value(self) -> float | None:
        """Mean of the metric over the meta-seeds; None until every run has finished."""
        values = [cell.value for cell in self.cells if cell.state == "finished" and cell.value is not None]
        return mean(values).mean if len(values) == len(self.cells) else None


def plan_of(folder: Path) -> StudyPlan:
    """The plan in a study's folder. Raises RunError where there is none."""
    found = read_json(folder / "study.json", 2**24, folder)
    if not found:
        raise RunError("study.json: missing or damaged, so this is no study that can be used")
    return StudyPlan.from_json(found)


def trials_of(folder: Path) -> dict[str, list[Point]]:
    """The points that a search has asked for so far, by arm."""
    found = read_json(folder / TRIALS, 2**24, folder)
    return {arm: [dict(point) for point in points] for arm, points in found.items() if isinstance(points, list)}


def cells(plan: StudyPlan, folder: Path) -> list[Cell]:
    """The cells there are so far: the grid, or what the search has asked for. Raises RunError for too many."""
    if plan.search is None:
        return plan.grid()
    asked = trials_of(folder)
    if (runs := sum(map(len, asked.values())) * len(plan.seeds)) > MOST_CELLS:
        raise RunError(f"{TRIALS}: found {runs} runs; allowed: at most {MOST_CELLS}")
    return [cell for arm in plan.arms for cell in plan.cells_of(arm, asked.get(arm.name, []) if arm.axes else [{}])]


class Looker:
    """Looks at a study again and again: what cannot change is kept between two looks."""

    def __init__(self, plan: StudyPlan, folder: Path) -> None:
        """The run store is the folder that the study's lies in."""
        self.plan = plan
        self.folder = folder
        self.store = folder.parent.parent
        self._cells: dict[str, list[tuple[Cell, RunReader]]] = {}  # of the points asked for so far
        self._values: dict[Path, dict[float, float | None]] = {}  # of the runs that have finished

    def look(self) -> list[CellState]:
        """Where every cell's run is; values are over as many inner steps as all finished runs of its arm reached."""
        states = [(cell, run, self._state(run)) for cell, run in self._found()]
        horizons: dict[str, float | None] = {}
        for arm in {cell.arm for cell, _, _ in states}:
            reached = [self._values.get(run.path, {}) for cell, run, _ in states if cell.arm == arm]
            horizons[arm] = common_horizon(reached)
        return [
            CellState(cell, run, state, at_horizon(self._values.get(run.path, {}), horizons[cell.arm]))
            for cell, run, state in states
        ]

    def _found(self) -> list[tuple[Cell, RunReader]]:
        asked = "" if self.plan.search is None else json.dumps(trials_of(self.folder), sort_keys=True)
        if asked not in self._cells:
            found = {cell.run_id(self.plan.stamp): cell for cell in cells(self.plan, self.folder)}  # each run once
            self._cells = {asked: [(cell, RunReader(self.store / run_id)) for run_id, cell in found.items()]}
        return self._cells[asked]

    def _state(self, run: RunReader) -> str:
        if run.path in self._values and is_complete(run.path):  # what has finished stays so, unless it is deleted
            return "finished"
        self._values.pop(run.path, None)
        state = state_of(run)
        if state == "finished":
            self._values[run.path] = by_horizon(run, self.plan.pick.metric)
        return state


def look(plan: StudyPlan, folder: Path) -> list[CellState]:
    """Where every cell's run is, for whoever looks once."""
    return Looker(plan, folder).look()


def state_of(run: RunReader) -> str:
    """A run's state, or missing: where there is no folder, or one that was never completed."""
    return run.state if is_complete(run.path) else MISSING


def candidates(states: Iterable[CellState]) -> list[Candidate]:
    """The cells grouped by arm and point, in order."""
    groups: dict[str, list[CellState]] = {}
    for state in states:
        key = json.dumps([state.cell.arm, state.cell.point], sort_keys=True, default=list)
        groups.setdefault(key, []).append(state)
    return [Candidate(group[0].cell.arm, group[0].cell.point, tuple(group)) for group in groups.values()]


def winners(found: Sequence[Candidate]) -> dict[str, Candidate]:
    """The best candidate of every arm: the least mean value on validation. An arm without a finished one has none."""
    best: dict[str, Candidate] = {}
    for candidate in found:
        value = candidate.value
        if value is None:
            continue
        other = best[candidate.arm].value if candidate.arm in best else None
        if other is None or value < other:
            best[candidate.arm] = candidate
    return best
