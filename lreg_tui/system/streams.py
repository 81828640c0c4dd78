"""Standard output and error that may be full, closed, or read by nobody any more: here, for every way of printing."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from engine.base.errors import printable


class OutputLost(OSError):
    """Standard output takes nothing more. The reason has been told, where it is an error."""


class _Stream(io.FileIO):
    """A standard stream. What cannot be written raises once; from then on all that is written vanishes."""

    def __init__(self, handle: int, *, may_fail: bool) -> None:
        """`may_fail`: without a failure, which is what standard error has: nobody could be told of it."""
        super().__init__(handle, "w", closefd=False)
        self.may_fail = may_fail
        self.failure: OSError | None = None

    def write(self, data: object) -> int:
        size = memoryview(data).nbytes  # type: ignore[arg-type]
        if self.failure is not None:
            return size
        try:
            while (written := super().write(data)) is None:  # type: ignore[arg-type]  # not blocking, and full
                select.select([], [self.fileno()], [])
            return written
        except OSError as error:
            self.failure = error
        if self.may_fail:
            return size
        if self.failure.errno != errno.EPIPE:  # a reader that has seen enough is no error
            reason = printable(self.failure.strerror or str(self.failure))
            print(f"error: standard output: {reason}", file=sys.stderr, flush=True)
        raise OutputLost(f"standard output: {self.failure.strerror}")


def guarded(command: Callable[[], int]) -> int:
    """Run a command and return its exit code; 1 where its output is lost, 0 where nobody wants more of it."""
    stream = _take()
    try:
        code = command()
    except OutputLost:
        code = 0
    except SystemExit as end:  # of a help text, or of shell completion
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    with suppress(OutputLost):
        if sys.stdout is not None:
            sys.stdout.flush()
    is_lost = stream is not None and stream.failure is not None and stream.failure.errno != errno.EPIPE
    return code or int(is_lost)


def _take() -> _Stream | None:
    """Put streams of this kind in place of the interpreter's; None where somebody else has done so, as a test does."""
    for handle in (0, 1, 2):  # a closed one would be the next file that is opened
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if handle == 2 else os.O_RDONLY)  # writing to 1 fails, as it should
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Stream(2, may_fail=True), sys.stderr)
    if sys.stdout is not sys.__stdout__:
        return None
    stream = _Stream(1, may_fail=False)
    sys.stdout = _text(stream, sys.stdout)
    return stream


def _text(stream: _Stream, old: TextIO | None) -> TextIO:
    """A text stream as the interpreter makes them; `old` is the one that it has made, None for a closed one."""
    if not isinstance(old, io.TextIOWrapper):
        return io.TextIOWrapper(io.BufferedWriter(stream), encoding="utf-8", line_buffering=True)
    buffer = stream if old.write_through else io.BufferedWriter(stream)
    return io.TextIOWrapper(
        buffer,
        encoding=old.encoding,
        errors=old.errors,
        line_buffering=old.line_buffering,
        write_through=old.write_through,
    )
