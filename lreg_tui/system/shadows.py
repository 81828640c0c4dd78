"""The first moment of `lreg` and `lreg-tui`: signals and streams are taken care of before anything else is read.

A file of the user's may hide lreg's engine, whose name is a common one, and the folder may be gone.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sys

TYPE_CHECKING = False  # nothing is imported before the signals are taken care of
if TYPE_CHECKING:
    from collections.abc import Callable


def start(command: Callable[[], int]) -> int:
    """Run a command. Returns its exit code."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, lambda *_: os._exit(130))  # until engine.base.interrupts is there
    _refuse_a_folder_that_is_gone()
    _refuse_a_hidden_engine()
    from engine.base import interrupts

    interrupts.hold()
    from lreg_tui.system.streams import guarded

    return guarded(command)


def _refuse_a_folder_that_is_gone() -> None:
    """End the process with one line where the folder that it was started in is deleted: no path leads from there."""
    try:
        os.getcwd()
    except OSError as error:
        print(f"error: the current folder: {error.strerror}; start lreg from another one", file=sys.stderr)
        sys.exit(2)


def _refuse_a_hidden_engine() -> None:
    """End the process with one line where `import engine` would take another than the one beside this package."""
    from importlib.util import find_spec

    import lreg_tui

    ours = os.path.join(os.path.dirname(os.path.dirname(lreg_tui.__file__)), "engine", "__init__.py")
    spec = find_spec("engine")
    if spec is None or not spec.origin or os.path.realpath(spec.origin) == os.path.realpath(ours):
        return
    theirs = spec.origin if spec.origin.isprintable() else ascii(spec.origin)
    remedy = "rename it, start lreg from another folder, or take its folder out of PYTHONPATH"
    print(f"error: {theirs} hides lreg's own package `engine`; {remedy}", file=sys.stderr)
    sys.exit(2)
