"""What signals ask of a run. Handlers only set flags; the worker looks at them between two pieces of its work.

SIGINT, SIGTERM, SIGHUP: stop (a second SIGINT aborts at once). SIGUSR1: pause. SIGUSR2: continue.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Stopped(Exception):
    """The run was asked to stop in the middle of a measurement, which is done again when it is resumed."""


class Control:
    """What the signals have asked for."""

    def __init__(self, *, may_abort: bool = True) -> None:
        """`may_abort`: a second SIGINT does; not where torchrun passes on what the terminal has sent already."""
        self.may_abort = may_abort
        self.stop = False
        self.aborted = False
        self.paused = False
        self.listens = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[Control]:
        """Handle the signals inside this block. Only the main thread can; elsewhere nothing happens.

        A signal that the process was started to ignore stays ignored: SIGHUP under nohup, SIGINT in a script's job in
        the background, where Ctrl-C is for what is in front.
        """
        if self.listens or threading.current_thread() is not threading.main_thread():
            yield self
            return
        stopping = [signal.SIGTERM]
        stopping += [number for number in (signal.SIGINT, signal.SIGHUP) if not _is_ignored(number)]
        handlers = {**dict.fromkeys(stopping, self._stop), signal.SIGUSR1: self._pause, signal.SIGUSR2: self._continue}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        self.listens = True
        try:
            yield self
        finally:
            self.listens = False
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def remark(self) -> str:
        """What should be said of the signals where something is unusual about them."""
        if not _is_ignored(signal.SIGINT):
            return ""
        return "SIGINT (Ctrl-C) is ignored, as it was when this process was started; SIGTERM and `lreg stop` stop it"

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.stop and number == signal.SIGINT and self.may_abort and not self.aborted:
            self.aborted = True  # once: the third must not disturb the last words
            raise KeyboardInterrupt
        self.stop = True

    def _pause(self, number: int, frame: FrameType | None) -> None:
        self.paused = True

    def _continue(self, number: int, frame: FrameType | None) -> None:
        self.paused = False


def _is_ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN
