"""State of a study: read from the folders of its runs, never remembered. Whoever looks sees the same.

A cell's state is that of its run, or "missing". So a scheduler that was killed goes on where its runs are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.base.errors import RunError
from engine.base.files import read_json
from engine.presets.preset import Preset
from engine.runs.reader import RunReader
from engine.runs.results import mean
from engine.runs.writer import is_complete
from engine.study.plan.plan import MOST_CELLS, Cell, Point, StudyPlan, key_of

TRIALS = "trials.json"  # of a study with a search: the points asked for so far, arm by arm
MISSING = "missing"


@dataclass(frozen=True)
class CellState:
    """A cell and where its run is. `value`: of the metric that winners are picked by, over as many inner steps as all
    finished runs of its arm reached; None until the run has finished.
    """

    cell: Cell
    run: RunReader
    state: str  # a run's state, or missing
    value: float | None


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
    values = read_json(folder / "study.json", 2**24, folder)
    if not values:
        raise RunError("study.json: missing or damaged, so this is no study that can be used")
    return StudyPlan.from_json(values)


def trials_of(folder: Path) -> dict[str, list[Point]]:
    """The points that a search has asked for so far, by arm."""
    trials = read_json(folder / TRIALS, 2**24, folder)
    return {arm: [dict(point) for point in points] for arm, points in trials.items() if isinstance(points, list)}


def cells(plan: StudyPlan, folder: Path) -> list[Cell]:
    """The cells there are so far: the grid, or what the search has asked for. Raises RunError for too many."""
    if plan.search is None:
        return plan.grid()
    trials = trials_of(folder)
    if (runs := sum(map(len, trials.values())) * len(plan.seeds)) > MOST_CELLS:
        raise RunError(f"{TRIALS}: found {runs} runs; allowed: at most {MOST_CELLS}")
    return [cell for arm in plan.arms for cell in plan.cells_of(arm, trials.get(arm.name, []) if arm.axes else [{}])]


def state_of(run: RunReader) -> str:
    """A run's state, or missing: where there is no folder, or one that was never completed."""
    return run.state if is_complete(run.path) else MISSING


def candidates(states: Iterable[CellState]) -> list[Candidate]:
    """The cells grouped by arm and point, in order."""
    groups: dict[tuple[str, str], list[CellState]] = {}
    for state in states:
        groups.setdefault((state.cell.arm, key_of(state.cell.point)), []).append(state)
    return [Candidate(group[0].cell.arm, group[0].cell.point, tuple(group)) for group in groups.values()]


def winners(candidates: Sequence[Candidate]) -> dict[str, Candidate]:
    """The best candidate of every arm: the least mean value on validation. An arm without a finished one has none."""
    best: dict[str, tuple[float, Candidate]] = {}
    for candidate in candidates:
        value = candidate.value
        if value is not None and (candidate.arm not in best or value < best[candidate.arm][0]):
            best[candidate.arm] = (value, candidate)
    return {arm: candidate for arm, (_, candidate) in best.items()}
