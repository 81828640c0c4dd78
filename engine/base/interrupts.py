"""Ctrl-C as long as nobody else handles it: silence and exit code 130, at every moment.

Python's own handler raises KeyboardInterrupt wherever the process happens to be. In an import, a destructor or at exit
that ends as a traceback, or is swallowed.
"""

from __future__ import annotations

# what signal is made of: an import of signal itself takes as long as what is to be guarded
import _signal  # type: ignore[import-not-found]
import atexit
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

CODE = 130  # the exit code of what was interrupted


def hold() -> None:
    """End this process at once where SIGINT comes: for its beginning and its end, when there is nothing to clean up.

    To be called before anything is imported that takes a while. A process that was told to ignore SIGINT, as a script's
    job in the background is, goes on ignoring it; and in a thread nothing happens.
    """
    _handle(_end)
    sys.unraisablehook = _unraisable


def let_raise() -> None:
    """From now on SIGINT raises KeyboardInterrupt, where that can be caught: not in an import, which ends at once."""
    _handle(_raise)


def release() -> None:
    """Leave SIGINT to Python again, as asyncio wants it."""
    _handle(_signal.default_int_handler)


@atexit.register  # early, so that it is called late: threads have ended, and what is left is Python's own end
def _leave_the_end_alone() -> None:
    """Python hands SIGINT back to the system before it takes itself apart: that would be the end of what is done."""
    if _signal.getsignal(_signal.SIGINT) is _end:
        _handle(_signal.SIG_IGN)


def _handle(handler: object) -> None:
    try:
        if _signal.getsignal(_signal.SIGINT) is not _signal.SIG_IGN:
            _signal.signal(_signal.SIGINT, handler)
    except ValueError:  # only the main thread can
        pass


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(CODE)


def _raise(number: int, frame: FrameType | None) -> None:
    if _imports(frame):
        os._exit(CODE)
    hold()  # the next one does not wait for what this one has to clean up
    raise KeyboardInterrupt


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """What was raised where nobody can catch it, as in a destructor."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
    elif _signal.getsignal(_signal.SIGINT) is _end:
        os._exit(CODE)
