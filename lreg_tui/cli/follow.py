"""A run while it happens: one display for `lreg run`, `lreg resume` and `lreg watch`, read from the run folder.

On a terminal it is redrawn in place; elsewhere a line is printed now and then; with `--json` every record is a line.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from engine.base.errors import LregError
from engine.base.status import LIVE, Status
from engine.evaluation.transfer_plan import Plan
from engine.runs.kinds import TRANSFER
from engine.runs.store import RunReader
from lreg_tui.cli import output
from lreg_tui.text import present

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live

INTERVAL_S = 0.25
LINE_EVERY_S = 10.0
SAME_LINE_EVERY_S = 60.0
MAIN_FIGURES = ("meta_loss", "validation_loss", "test_accuracy", "sharpness")
NARROW = 72  # columns below which a terminal gets one figure a row
COUNTS = ("skipped", "diverged", "inner_steps_per_s")


class Follower:
    """Shows a run until it has ended: here (`follow`), or in a thread beside the work (`start`, `finish`)."""

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
        before which records are old news; `notice`: a line to show below the figures; `is_ours`:
        this process is about to take the run, and what the run says of itself before that is out of date."""
        self.reader = reader
        self.as_json = as_json
        self.notice = notice
        self._since = since
        self._filter = since > 0
        self._is_taken = not is_ours
        self._restarts = reader.restarts
        self._finish = threading.Event()
        self._thread: threading.Thread | None = None
        self._console: Console = output.console(stderr=as_json or quiet)
        self._live: Live | None = None
        self._radius_known: tuple[float | None] | None = None
        self._last_line = (0.0, "", "")  # when a line was printed, the state then, the line

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, args=(lambda: self._finish.is_set(),), daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Show what is left, and end the display."""
        self._finish.set()
        if self._thread is not None:
            self._thread.join()

    def follow(self) -> Status:
        """Show the run until its process has ended, return how it stands then."""
        self._loop(lambda: self.reader.state not in LIVE)
        return self.reader.status()

    def _loop(self, is_over: Callable[[], bool]) -> None:
        show = (
            self._show_records if self.as_json else self._show_frame if self._console.is_terminal else self._show_line
        )
        with suppress(OSError):  # whoever was watching has gone; the run goes on
            try:
                while True:
                    over = is_over()  # before the last look, so that it sees everything
                    if self.as_json or (self._has_been_taken() and self.reader.is_there):
                        show()
                    if over:
                        break
                    self._finish.wait(INTERVAL_S)
            finally:
                if self._live is not None:
                    self._live.stop()

    @property
    def _radius(self) -> float | None:
        if self._radius_known is None:
            self._radius_known = (radius_of(self.reader),)
        return self._radius_known[0]

    def _has_been_taken(self) -> bool:
        if not self._is_taken:
            status = self.reader.recorded_status()
            self._is_taken = status.pid == os.getpid() and status.state != "queued"
        return self._is_taken

    def _show_records(self) -> None:
        seen, is_first = self._since, True
        for record in self.reader.records():
            if is_first and self.reader.restarts != self._restarts:  # a resume rewrote the file: only what is newer
                self._restarts = self.reader.restarts
                self._filter = True
            is_first = False
            when = record.get("t")
            if not isinstance(when, (int, float)):
                when = seen
            if not self._filter or when > seen:
                output.emit({**record, "event": "record"})
            self._since = max(self._since, when)
        self._filter = self._filter and is_first

    def _show_frame(self) -> None:
        from rich.live import Live

        frame = _frame(self.reader, self.reader.status(), self.notice(), self._radius, self._console.width)
        if self._live is None:
            self._live = Live(frame, console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(frame, refresh=True)

    def _show_line(self) -> None:
        status = self.reader.status()
        printed, state, before = self._last_line
        if status.state == state and time.monotonic() - printed < LINE_EVERY_S:
            return
        figures = self.reader.figures()
        parts = [present.clean(status.state, 40)]
        if status.total:
            parts.append(f"{_steps(self.reader, status)} ({present.progress(status.step, status.total)})")
        parts += [_eta(status)] if _eta(status) else []
        parts += [
            f"{present.label(key, self._radius)} {present.metric(key, figures[key])}"
            for key in MAIN_FIGURES
            if key in figures
        ]
        parts += [present.clean(status.message)] if status.message and status.state in LIVE else []
        line = "  ".join(parts)
        if line != before or time.monotonic() - printed >= SAME_LINE_EVERY_S:
            self._console.print(line, markup=False, soft_wrap=True)
            self._last_line = (time.monotonic(), status.state, line)


def radius_of(reader: RunReader) -> float | None:
    """The radius at which a run measures its sharpness while it trains; None where its preset cannot be read."""
    try:
        if reader.kind is TRANSFER:
            return Plan.from_json(reader.plan()).protocol.middle_radius
        return reader.preset()["evaluation"]["radius"]
    except LregError:
        return None


def _steps(reader: RunReader, status: Status) -> str:
    if not status.total:
        return "starting" if status.state in LIVE else ""
    return f"{reader.kind.unit} {status.step}/{status.total}"


def _eta(status: Status) -> str:
    """How long it will take; of a run that has ended, or whose process is gone, nothing."""
    return f"ETA {present.duration(status.eta_s)}" if status.eta_s is not None and status.state in LIVE else ""


def _frame(reader: RunReader, status: Status, notice: str, radius: float | None, width: int) -> Group:
    """What a terminal shows of a run: state, progress, figures, and a line of news while it lives."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    head = Text.assemble(present.text(reader.id, "bold"), "  ", present.state_text(status.state), overflow="fold")
    is_narrow = width < NARROW
    bar = ProgressBar(total=max(status.total, 1), completed=status.step, width=min(32, width))
    words = [word for word in (_steps(reader, status), _eta(status)) if word]
    progress = output.grid(1 if is_narrow else 3)
    if is_narrow:
        progress.add_row(bar)
        progress.add_row("  ".join(words))
    else:
        progress.add_row(bar, *words)
    shown = [
        (present.label(key, radius), present.metric(key, value))
        for key, value in ordered(reader.figures(), everything=False).items()
    ]
    pairs = 1 if is_narrow else 2
    figures = output.grid(2 * pairs)
    for row in range(0, len(shown), pairs):
        cells = [cell for name, value in shown[row : row + pairs] for cell in (present.text(name, "dim"), Text(value))]
        figures.add_row(*cells)
    news = (notice or status.message) if status.state in LIVE else ""
    return Group(head, progress, figures, *([present.text(news, "yellow" if notice else "dim")] if news else []))


def ordered(figures: dict[str, float], everything: bool = True) -> dict[str, float]:
    """First the figures that people steer by: the main ones, the penalties with their shares, the counts."""
    penalties = sorted(key for key in figures if key.endswith(("_penalty", "_penalty_share")))
    first = {key: figures[key] for key in (*MAIN_FIGURES, *penalties, *COUNTS) if key in figures}
    return {**first, **figures} if everything else first


def end_event(status: Status, reader: RunReader) -> dict[str, Any]:
    message = {"message": status.message} if status.message else {}
    return {"event": "end", "state": status.state, "id": reader.id, "step": status.step, **message}


def print_quietly(action: Callable[[], None]) -> None:
    """Print a last word; if nobody listens any more, that is no error of the run."""
    with suppress(OSError):
        action()
