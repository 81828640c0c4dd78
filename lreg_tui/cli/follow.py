"""A run while it happens, and its last words: for `lreg run`, `resume`, `watch` and `transfer`, from the run folder.

On a terminal it is redrawn in place; elsewhere a line is printed now and then; with `--json` every record is a line.
"""

from __future__ import annotations

import math
import os
import shlex
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import worker
from engine.base.control import Control
from engine.base.errors import LregError, RunError, TrainingError
from engine.base.metrics import headline, metric
from engine.base.status import LIVE, Status
from engine.evaluation.transfer_plan import Plan
from engine.runs.kinds import TRANSFER
from engine.runs.results import run_rows
from engine.runs.store import Run, RunReader
from lreg_tui.cli import output
from lreg_tui.text import present

if TYPE_CHECKING:
    from rich.console import Console, Group

INTERVAL_S = 0.25
LATER = ("skipped", "diverged", "inner_steps_per_s")  # metrics that are told after the parts of the objective


@dataclass(frozen=True)
class FollowOptions:
    """In which way something is done that takes a while. Device and data folder default to those of the run."""

    device: str | None
    data_dir: Path | None
    detach: bool
    as_json: bool


class Follower:
    """Shows a run until it has ended: here (`follow`), or in a thread beside the work that it surrounds (`with`)."""

    def __init__(
        self,
        reader: RunReader,
        *,
        as_json: bool = False,
        quiet: bool = False,
        since: float = 0.0,
        notice: Callable[[], str] = lambda: "",
        is_ours: bool = False,
    ) -> None:
        """`quiet`: lines and frames go to stderr, because stdout is for JSON that somebody else prints; `since`: unix s
        before which records are old news; `notice`: a line to show below the metrics; `is_ours`:
        this process is about to take the run, and what the run says of itself before that is out of date."""
        self.reader = reader
        self.as_json = as_json
        self.notice = notice
        self._since = since
        self._is_old_news = since > 0
        self._is_taken = not is_ours
        self._restarts = reader.restarts
        self._finish = threading.Event()
        self._thread = threading.Thread(target=self._loop, args=(self._finish.is_set,), daemon=True)
        self._display = output.Display(output.console(stderr=as_json or quiet))

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Show what is left, and end the display."""
        self._finish.set()
        self._thread.join()

    def follow(self) -> Status:
        """Show the run until its process has ended, return how it stands then."""
        self._loop(lambda: self.reader.state not in LIVE)
        return self.reader.status()

    def _loop(self, is_over: Callable[[], bool]) -> None:
        with suppress(OSError):  # whoever was watching has gone; the run goes on
            try:
                while True:
                    over = is_over()  # before the last look, so that it sees everything
                    if self.as_json:
                        self._emit_records()
                    elif self._has_been_taken() and self.reader.is_there:
                        self._show(self.reader.status())
                    if over:
                        break
                    self._finish.wait(INTERVAL_S)
            finally:
                self._display.close()

    def _has_been_taken(self) -> bool:
        if not self._is_taken:
            status = self.reader.recorded_status()
            self._is_taken = status.pid == os.getpid() and status.state != "queued"
        return self._is_taken

    def _emit_records(self) -> None:
        told_until, is_first = self._since, True
        for record in self.reader.records():
            if is_first and self.reader.restarts != self._restarts:  # a resume rewrote the file: only what is newer
                self._restarts, self._is_old_news = self.reader.restarts, True
            is_first = False
            when = record.get("t")
            when = when if isinstance(when, (int, float)) else told_until
            if not self._is_old_news or when > told_until:
                output.emit({**record, "event": "record"})
            self._since = max(self._since, when)
        self._is_old_news = self._is_old_news and is_first

    def _show(self, status: Status) -> None:
        console, notice = self._display.console, self.notice()
        self._display.show(
            status.state,
            lambda: _frame(self.reader, status, notice, self._radius, console.width),
            lambda: _line(self.reader, status, self._radius),
        )

    @cached_property
    def _radius(self) -> float | None:
        return radius_of(self.reader)


def radius_of(reader: RunReader) -> float | None:
    """The radius at which a run measures its sharpness while it trains; None where its preset cannot be read."""
    try:
        if reader.kind is TRANSFER:
            return Plan.from_json(reader.plan()).protocol.middle_radius
        return reader.preset()["evaluation"]["radius"]
    except LregError:
        return None


def label(name: str, radius: float | None) -> str:
    """What people read for a metric, with the radius of the L2 ball where it is of that."""
    return present.label(name, None if name == "adaptive_sharpness" else radius)


def main_metrics(values: dict[str, Any]) -> list[str]:
    """What a run is steered by, of what it has recorded."""
    first = ("meta_loss", "validation_loss", "test_loss", "adaptive_sharpness")
    names = (*first, headline(values).name, "sharpness", "parameter_norm")
    unmeasured = {name for name, value in values.items() if value is None or not math.isfinite(value)}
    unmeasured = {name for name in unmeasured if metric(name).kind == "landscape"}  # as where optimizees have episodes
    return [name for name in dict.fromkeys(names) if name in values and name not in unmeasured]


def ordered(values: dict[str, float], everything: bool = True) -> dict[str, float]:
    """First the metrics that people steer by: the main ones, the meta-objective with penalties, their shares and
    terms, the counts."""
    parts = sorted(name for name in values if metric(name).is_of_objective)
    first = {name: values[name] for name in (*main_metrics(values), *parts, *LATER) if name in values}
    return {**first, **values} if everything else first


def _steps(reader: RunReader, status: Status) -> str:
    if not status.total:
        return "starting" if status.state in LIVE else ""
    return f"{reader.kind.unit} {status.step}/{status.total}"


def _eta(status: Status) -> str:
    """How long it will take; of a run that has ended, or whose process is gone, nothing."""
    return f"ETA {present.duration(status.eta_s)}" if status.eta_s is not None and status.state in LIVE else ""


def _line(reader: RunReader, status: Status, radius: float | None) -> str:
    values = reader.figures()
    done = f"{_steps(reader, status)} ({present.progress(status.step, status.total)})" if status.total else ""
    told = [f"{label(name, radius)} {present.metric(name, values[name])}" for name in main_metrics(values)]
    message = status.message if status.state in LIVE else ""
    return "  ".join(filter(None, [status.state, done, _eta(status), *told, message]))


def _frame(reader: RunReader, status: Status, notice: str, radius: float | None, width: int) -> Group:
    """What a terminal shows of a run: state, progress, metrics, and a line of news while it lives."""
    from rich.columns import Columns
    from rich.console import Group
    from rich.text import Text

    head = Text.assemble(present.text(reader.id, "bold"), "  ", present.state_text(status.state), overflow="fold")
    told = [
        Text.assemble((label(name, radius), "dim"), "  ", present.metric(name, value))
        for name, value in ordered(reader.figures(), everything=False).items()
    ]
    news = (notice or status.message) if status.state in LIVE else ""
    words = "  ".join(filter(None, (_steps(reader, status), _eta(status))))
    return Group(
        head,
        Columns([output.bar(status.step, status.total, width), words]),
        Columns(told, padding=(0, output.GAP)),
        *([present.text(news, "yellow" if notice else "dim")] if news else []),
    )


def do_here(job: Run, **options: Any) -> str:
    """Do a job in this process: `worker.work`. Raises LregError, also for what a plug-in (or a bug) has raised."""
    try:
        return worker.work(job, **options)
    except LregError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise TrainingError(f"{reason} (its traceback is in the log: lreg logs {job.id})") from error


def when_stopping(control: Control, words: str) -> Callable[[], str]:
    """A notice that is there from the first Ctrl-C on."""
    return lambda: words if control.stop else ""


def note_deaf(control: Control) -> None:
    """Say so where Ctrl-C does not reach this process."""
    if control.remark:
        output.say(control.remark)


def print_quietly(action: Callable[[], None]) -> None:
    """Print a last word; if nobody listens any more, that is no error of the run."""
    with suppress(OSError):
        action()


def summarize(reader: RunReader, as_json: bool, *, reason_follows: bool = False, has_failed: bool = False) -> None:
    """The last words on a run: its result, its id, and what can be done next.

    With `reason_follows` a failure's reason is left to the error line that this process ends with. `has_failed`: it
    ended with an error, whatever the folder says, where that could perhaps not be written any more.
    """
    status = reader.status()
    if not reader.is_there or (has_failed and status.state in LIVE and status.pid == os.getpid()):
        status = replace(status, state="failed", message="")
    if as_json:
        if status.state == "finished":
            output.emit({"event": "result", "rows": run_rows(reader)})
        message = {"message": status.message} if status.message else {}
        output.emit({"event": "end", "state": status.state, "id": reader.id, "step": status.step, **message})
        return
    if not reader.is_there:
        return
    console = output.console()
    if status.state == "finished":
        print_results(run_rows(reader), console)
    silent = (*LIVE, "crashed", *(["failed"] if reason_follows else []))  # a crashed one's last words are out of date
    reason = "" if status.state in silent else status.message
    output.print_lines(console, f"{status.state}: {reader.id}", reason, str(reader.path))
    if status.state == "finished" and reader.kind is TRANSFER and (command := comparison_of(reader)):
        output.print_lines(console, f"its results: {command}")
    if status.state == "crashed" or (status.state == "stopped" and not has_failed):
        output.print_lines(console, f"go on with: lreg resume {reader.id}")


def print_results(rows: list[dict[str, Any]], console: Console, title: str = "") -> None:
    """Learned optimizers, untrained ones and hand-designed ones side by side; nothing before they were measured."""
    from lreg_tui.runs.run_files import result_sheet

    if rows:
        output.print_sheet(result_sheet(rows, title), console)


def comparison_of(job: RunReader) -> str:
    """The command that shows what a transfer job found; empty where its plan cannot be read."""
    try:
        runs = [Path(run) for run in Plan.from_json(job.plan()).runs]
    except RunError:
        return ""
    store = job.path.parent.parent
    names = [run.name if run.parent == store or not run.is_dir() else str(run) for run in runs]
    return f"lreg compare {shlex.join(names)}"
