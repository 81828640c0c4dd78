"""A study while its scheduler works in this process: cells by state, what is running, how long it will take.

On a terminal it is redrawn in place; elsewhere a line is printed now and then; with `--json` every change is a line.
Before it what there is to do (`--dry-run`), after it the last words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from engine.base.status import LIVE
from engine.runs.kinds import STUDY
from engine.runs.reader import RunReader
from engine.runs.results import mean
from engine.runs.store import RunStore
from engine.study.plan.kept import report_file
from engine.study.plan.plan import StudyPlan
from engine.study.plan.snapshot import Snapshot, Watcher, WorkItem
from engine.study.plan.state import CellState, plan_of
from engine.study.schedule.loop import StudyProgress, words
from lreg_tui.cli import output
from lreg_tui.text import present

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

MOST_RUNNING = 12  # that are shown with their progress
MARKS = {"missing": ".", "queued": "o", "running": ">", "paused": "=", "stopped": "-", "finished": "#"}
BAD = "x"  # failed, crashed


class StudyDisplay:
    """Shows what the scheduler sees: `show` is its listener."""

    def __init__(self, reader: RunReader, *, as_json: bool, notice: Callable[[], str]) -> None:
        self.reader = reader
        self.as_json = as_json
        self.notice = notice
        self.last: StudyProgress | None = None
        self._display = output.Display(output.console(stderr=True))
        self.close = self._display.close

    def show(self, look: StudyProgress) -> None:
        is_first, self.last = self.last is None, look
        if not self.as_json:
            self._display.show("", lambda: self._frame(look), lambda: _words(look))
            return
        for piece in look.changed:
            if not is_first or piece.state != "missing":
                output.emit(event(piece))

    def _frame(self, look: StudyProgress) -> Group:
        from rich.columns import Columns
        from rich.console import Group

        seen, width, notice = look.snapshot, self._display.console.width, self.notice()
        head = present.text(self.reader.id, "bold")
        head.overflow = "fold"
        progress = Columns([output.bar(seen.done, seen.total, width), present.text(_words(look))])
        news = [present.text(notice, "yellow")] if notice else []
        return Group(head, progress, cells_table(seen, width), *_running(seen), *news)


def _words(look: StudyProgress) -> str:
    return look.message + (f"  ETA {present.duration(look.eta_s)}" if look.eta_s is not None else "")


def event(piece: WorkItem) -> dict[str, Any]:
    """A piece that has changed, for `--json`."""
    if not isinstance(piece, CellState):
        transfer, runs = piece.transfer, [run.id for run in piece.transfer.runs]
        facts: dict[str, Any] = {"event": "transfer", "transfer": piece.run.id, "arm": transfer.arm, "runs": runs}
        return facts | {"baselines": transfer.is_baselines, "state": piece.state}
    cell = piece.cell
    facts = {"event": "cell", "run": piece.run.id, "arm": cell.arm, "point": cell.point, "seed": cell.seed}
    return facts | {"state": piece.state, "value": piece.value}


def cells_table(seen: Snapshot, width: int) -> Table:
    """A line for each arm, a mark for each of its runs; and one for the transfers."""
    lines = {arm.name: [cell for cell in seen.cells if cell.cell.arm == arm.name] for arm in seen.plan.arms}
    groups: dict[str, Sequence[WorkItem]] = {**lines, "transfers": seen.transfers}
    table = output.grid()
    for name, pieces in groups.items():
        if pieces:
            table.add_row(present.text(name, "dim"), _marks(pieces, width))
    return table


def _marks(pieces: Sequence[WorkItem], width: int) -> Text:
    from rich.text import Text

    if len(pieces) > max(width - 30, 20):
        states = [piece.state for piece in pieces]
        return present.text(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    marks = Text(overflow="fold")
    for piece in pieces:
        marks.append(MARKS.get(piece.state, BAD), present.STATE_STYLES.get(piece.state, "dim"))
    return marks


def _running(seen: Snapshot) -> list[Any]:
    table = output.grid(4)
    busy = [piece for piece in seen.pieces if piece.state in LIVE]
    for piece in busy[:MOST_RUNNING]:
        status = piece.run.recorded_status()
        eta = f"ETA {present.duration(status.eta_s)}" if status.eta_s is not None else ""
        done = present.progress(status.step, status.total)
        table.add_row(present.state_text(piece.state), done, eta, present.text(words(piece)))
    more = [present.text(f"and {len(busy) - MOST_RUNNING} more", "dim")] if len(busy) > MOST_RUNNING else []
    return [table, *more] if busy else []


def winners_rows(seen: Snapshot) -> list[dict[str, Any]]:
    """The winner of every arm that has one: its point, the mean and interval of its metric over the meta-seeds."""
    rows = []
    for arm, winner in seen.winners.items():
        over_seeds = asdict(mean(cell.value for cell in winner.cells))
        runs = [cell.run.id for cell in winner.cells]
        rows.append({"arm": arm, "point": winner.point, "metric": seen.plan.pick.metric, **over_seeds, "runs": runs})
    return rows


def _point(point: Mapping[str, Any]) -> Text:
    return present.text(", ".join(f"{key} = {value}" for key, value in point.items()))


def summarize(reader: RunReader, state: str, seen: Snapshot | None, as_json: bool) -> None:
    """The last words on a study: the winners, where the report is, and what can be done next."""
    status, report = reader.status(), report_file(reader.path)
    path = str(report) if report.is_file() else None
    if as_json:
        rows = winners_rows(seen) if seen else []
        end = {"event": "end", "id": reader.id, "state": state, "message": status.message}
        output.emit({**end, "winners": rows, "report": path})
        return
    console = output.console()
    if seen is not None and seen.winners:
        table = output.lined(("arm", "winner"), ("seeds", present.label(seen.plan.pick.metric)))
        for row in winners_rows(seen):
            table.add_row(present.text(row["arm"]), _point(row["point"]), str(row["n"]), present.interval(row))
        console.print(table)
    reason = status.message or (f"report: {path}" if path else "")
    go_on = "" if state == "finished" else f"go on with: lreg resume {reader.id}"
    output.print_lines(console, f"{state}: {reader.id}", reason, go_on)


def print_plan(plan: StudyPlan, begun: RunReader | None, store: RunStore, *, as_json: bool) -> None:
    folder = begun.path if begun else store.root / STUDY.home / plan.name  # of a new one nothing is there
    seen = Watcher(replace(plan, stamp=plan_of(begun.path).stamp) if begun else plan, folder).look()
    if as_json:
        for cell in seen.cells:
            output.emit(event(cell))
        return
    table = output.lined(("arm", "point", "seed", "state", "run"))
    for cell in seen.cells:
        facts = [present.text(cell.cell.arm), _point(cell.cell.point), present.text(cell.cell.seed)]
        table.add_row(*facts, present.state_text(cell.state), present.text(cell.run.id))
    output.console().print(table)
    of_study = f"of {begun.id}" if begun else "of a new study"
    made = sum(cell.state != "missing" for cell in seen.cells)
    runs = present.count(len(seen.cells), "run")
    output.say(f"{runs} {of_study}, {made} of them there already; {seen.total} runs and transfers in all")
    if plan.search:
        output.say("a search asks for its points as it goes")
