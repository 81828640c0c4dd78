"""A study while its scheduler works in this process: cells by state, what is running, how long it will take.

On a terminal it is redrawn in place; elsewhere a line is printed now and then; with `--json` every change is a line.
Before it what there is to do (`--dry-run`), after it the last words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from engine.base.status import LIVE
from engine.runs.kinds import STUDY
from engine.runs.reader import RunReader
from engine.runs.results import mean
from engine.runs.store import RunStore
from engine.study.plan.plan import StudyPlan
from engine.study.plan.snapshot import Piece, Snapshot, Watcher
from engine.study.plan.state import CellState, plan_of
from engine.study.schedule.loop import Look, words
from lreg_tui.cli import output
from lreg_tui.text import present

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

LINE_EVERY_S = 10.0
FRAME_EVERY_S = 0.5
MOST_RUNNING = 12  # that are shown with their progress
MARKS = {"missing": ".", "queued": "o", "running": ">", "paused": "=", "stopped": "-", "finished": "#"}
BAD = "x"  # failed, crashed


class Display:
    """Shows what the scheduler sees: `show` is its listener."""

    def __init__(self, reader: RunReader, *, as_json: bool, notice: Callable[[], str]) -> None:
        self.reader = reader
        self.as_json = as_json
        self.notice = notice
        self.last: Look | None = None
        self._console: Console = output.console(stderr=True)
        self._live: Live | None = None
        self._shown_at = -LINE_EVERY_S
        self._line = ""

    def show(self, look: Look) -> None:
        first, self.last = self.last is None, look
        if self.as_json:
            for piece in look.changed:
                if not first or piece.state != "missing":
                    output.emit(event(piece))
        elif self._console.is_terminal:
            self._show_frame(look)
        else:
            self._show_line(look)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show_frame(self, look: Look) -> None:
        from rich.live import Live

        if not look.changed and time.monotonic() - self._shown_at < FRAME_EVERY_S:
            return
        self._shown_at = time.monotonic()
        frame = self._frame(look)
        if self._live is None:
            self._live = Live(frame, console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(frame, refresh=True)

    def _frame(self, look: Look) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar

        seen = look.snapshot
        bar = ProgressBar(total=max(seen.total, 1), completed=seen.done, width=min(32, self._console.width))
        eta = f"  ETA {present.duration(look.eta_s)}" if look.eta_s is not None else ""
        head = present.text(self.reader.id, "bold")
        head.overflow = "fold"
        notice = self.notice()
        news = [present.text(notice, "yellow")] if notice else []
        progress = output.grid(2)
        progress.add_row(bar, present.text(look.message + eta))
        parts = [head, progress, cells_table(seen, self._console.width), *_running(seen)]
        return Group(*parts, *news)

    def _show_line(self, look: Look) -> None:
        eta = f"  ETA {present.duration(look.eta_s)}" if look.eta_s is not None else ""
        if look.message == self._line or time.monotonic() - self._shown_at < LINE_EVERY_S:
            return
        self._line, self._shown_at = look.message, time.monotonic()
        self._console.print(present.clean(look.message + eta), markup=False, soft_wrap=True)


def event(piece: Piece) -> dict[str, Any]:
    """A piece that has changed, for `--json`."""
    if not isinstance(piece, CellState):
        runs = [run.id for run in piece.transfer.runs]
        found: dict[str, Any] = {"event": "transfer", "transfer": piece.run.id, "arm": piece.transfer.arm}
        return found | {"runs": runs, "baselines": piece.transfer.is_baselines, "state": piece.state}
    cell = piece.cell
    found = {"event": "cell", "run": piece.run.id, "arm": cell.arm}
    return found | {"point": cell.point, "seed": cell.seed, "state": piece.state, "value": piece.value}


def cells_table(seen: Snapshot, width: int) -> Table:
    """A line for each arm, a mark for each of its runs; and one for the transfers."""
    lines = {arm.name: [cell for cell in seen.cells if cell.cell.arm == arm.name] for arm in seen.plan.arms}
    groups: dict[str, Sequence[Piece]] = {**lines, "transfers": seen.transfers}
    table = output.grid()
    for name, pieces in groups.items():
        if pieces:
            table.add_row(present.text(name, "dim"), _marks(pieces, width))
    return table


def _marks(pieces: Sequence[Piece], width: int) -> Text:
    from rich.text import Text

    if len(pieces) > max(width - 30, 20):
        states = [piece.state for piece in pieces]
        return present.text(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    marks = Text(overflow="fold")
    for piece in pieces:
        marks.append(MARKS.get(piece.state, BAD), present.STATE_STYLES.get(piece.state, "dim"))
    return marks


def _running(seen: Snapshot) -> list[Any]:
    """What is running, with its progress."""
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
        found = mean(cell.value for cell in winner.cells)
        figures = {"mean": found.mean, "ci95": found.ci95, "n": found.n}
        runs = [cell.run.id for cell in winner.cells]
        rows.append({"arm": arm, "point": winner.point, "metric": seen.plan.pick.metric, **figures, "runs": runs})
    return rows


def winners_table(seen: Snapshot) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for heading in ("arm", "winner", "seeds", present.label(seen.plan.pick.metric)):
        table.add_column(heading, justify="right" if heading not in ("arm", "winner") else "left")
    for row in winners_rows(seen):
        point = ", ".join(f"{key} = {present.clean(value)}" for key, value in row["point"].items())
        figure = present.interval(row)
        table.add_row(present.text(row["arm"]), present.text(point), str(row["n"]), figure)
    return table


def cells_list(seen: Snapshot) -> Table:
    """Every run there will be, and what is there of it."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for heading in ("arm", "point", "seed", "state", "run"):
        table.add_column(heading, overflow="fold")
    for cell in seen.cells:
        point = ", ".join(f"{key} = {present.clean(value)}" for key, value in cell.cell.point.items())
        where = [present.text(cell.cell.arm), present.text(point), present.text(cell.cell.seed)]
        table.add_row(*where, present.state_text(cell.state), present.text(cell.run.id))
    return table


def summarize(reader: RunReader, state: str, seen: Snapshot | None, as_json: bool) -> None:
    """The last words on a study: the winners, where the report is, and what can be done next."""
    status = reader.status()
    report = reader.path / "report" / "report.md"
    shown = str(report) if report.is_file() else None
    if as_json:
        rows = winners_rows(seen) if seen else []
        end = {"event": "end", "id": reader.id, "state": state, "message": status.message}
        output.emit({**end, "winners": rows, "report": shown})
        return
    console = output.console()
    if seen is not None and seen.winners:
        console.print(winners_table(seen))
    console.print(present.text(f"{state}: {reader.id}"), soft_wrap=True)
    if status.message:
        console.print(present.text(status.message), soft_wrap=True)
    elif shown:
        console.print(present.text(f"report: {shown}"), soft_wrap=True)
    if state != "finished":
        console.print(present.text(f"go on with: lreg resume {reader.id}"), soft_wrap=True)


def print_plan(plan: StudyPlan, found: RunReader | None, store: RunStore, *, as_json: bool) -> None:
    """The runs there will be, and what is there of them."""
    folder = found.path if found else store.root / STUDY.home / plan.name  # of a new one nothing is there
    seen = Watcher(plan_of(found.path) if found else plan, folder).look()
    if as_json:
        for cell in seen.cells:
            output.emit(event(cell))
        return
    output.console().print(cells_list(seen))
    where = f"of {found.id}" if found else "of a new study"
    there = sum(cell.state != "missing" for cell in seen.cells)
    runs = f"{len(seen.cells)} run{'s' * (len(seen.cells) != 1)}"
    output.say(f"{runs} {where}, {there} of them there already; {seen.total} runs and transfers in all")
    if plan.search:
        output.say("a search asks for its points as it goes")
