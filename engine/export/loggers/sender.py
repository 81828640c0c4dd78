"""A logger at work beside a run, which it cannot harm: nothing waits for it; what it raises is a line in the log."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, cast

from engine.base.errors import LregError, printable, shortened
from engine.base.status import LIVE, as_figure
from engine.export import loggers
from engine.export.loggers.base import RunLogger
from engine.runs.columns import STAMPS
from engine.runs.kinds import RUN
from engine.runs.store import Run, RunReader

MOST_WAITING = 10_000  # records that a slow tracker may be behind
END_LIMIT_S = 30.0  # for what is still to be sent when a run ends


@contextlib.contextmanager
def logged(run: Run) -> Iterator[None]:
    """Send the records of a held run to the loggers in use, while the block lasts."""

    def begin(name: str) -> RunLogger:
        preset = RunReader(run.path).preset()
        return loggers.logger_class(name)(run.id, preset.name, preset.flat())

    try:
        names = loggers.in_use() if run.kind is RUN and run.is_held else []
    except LregError as error:  # in a worker that was started with another environment than its folder was made in
        names = []
        run.log(str(error))
    senders = [Sender(name, partial(begin, name), run.log) for name in names]
    run.listeners += [sender.take for sender in senders]
    try:
        yield
    finally:
        run.listeners.clear()
        state = run.status.state
        for sender in senders:
            sender.end("stopped" if state in LIVE else state)


class Sender:
    """A thread that takes records from a queue and gives them to a logger, until the logger fails."""

    def __init__(self, name: str, begin: Callable[[], RunLogger], tell: Callable[[str], None]) -> None:
        """`begin`: makes the logger, here and now; `tell`: what becomes of the line about a failure."""
        self.name = name
        self._tell = tell
        self._records: queue.Queue[Mapping[str, Any] | None] = queue.Queue(MOST_WAITING)
        self._logger: RunLogger | None = None
        self._thread = threading.Thread(target=self._send, name=f"logger {name}", daemon=True)
        with self._off_on_error(), _prints_to_stderr():
            self._logger = begin()
            tell(f"the run is logged to {name}, too")
            self._thread.start()

    def take(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Records of metrics.jsonl, to be sent soon."""
        with contextlib.suppress(queue.Full):
            for record in records if self._logger is not None else ():
                self._records.put_nowait(record)
            return
        self._turn_off(f"it is {MOST_WAITING} records behind")

    def end(self, state: str, limit_s: float = END_LIMIT_S) -> None:
        """Send what is left, for as long as that may take."""
        if self._logger is None:
            return
        with contextlib.suppress(queue.Full):
            self._records.put_nowait(None)
        self._thread.join(limit_s)
        if self._thread.is_alive():
            self._turn_off(f"it did not take the last records within {limit_s:g} s")
        if (logger := self._logger) is not None:
            with self._off_on_error(), _prints_to_stderr():
                logger.finish(state)

    def _send(self) -> None:
        with self._off_on_error():
            while (record := self._records.get()) is not None and (logger := self._logger) is not None:
                values = {name: as_figure(value) for name, value in record.items() if name not in STAMPS}
                numbers = {name: value for name, value in values.items() if value is not None}
                logger.log(int(record["step"]), numbers)

    @contextlib.contextmanager
    def _off_on_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is: it is not our code, and the run goes on
            self._turn_off(" ".join(f"{type(error).__name__}: {error}".split()))

    def _turn_off(self, reason: str) -> None:
        self._logger = None
        self._tell(f"{self.name} gets no more of this run: {shortened(printable(reason), 300)}")


class _Stdout:
    """Standard output of all threads but one, whose words go to standard error: no terminal that could be asked."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._thread = threading.get_ident()

    def write(self, text: str) -> int:
        return int((sys.stderr if self._is_meant() else self._stream).write(text))

    def isatty(self) -> bool:
        return not self._is_meant() and bool(self._stream.isatty())

    def _is_meant(self) -> bool:
        return threading.get_ident() == self._thread

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _prints_to_stderr() -> contextlib.AbstractContextManager[Any]:
    """What a tracker prints must not come between JSON lines of other threads."""
    return contextlib.redirect_stdout(cast(Any, _Stdout(sys.stdout)))
