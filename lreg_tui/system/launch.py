"""Processes: those that this one waits for; detached workers and signals are in engine.jobs.spawn.

Nothing else here has subprocess.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from engine.base.errors import RunError
from engine.jobs import spawn
from lreg_tui.system.terminal import HELPERS


def start_helper(module: str, arguments: Sequence[str], log_path: Path) -> subprocess.Popen[bytes]:
    """Start `python -m module` for this process, which waits for it or ends it; what it says goes into a file.

    Without its terminal this process ends, and the helper with it.
    Raises RunError where it cannot be started.
    """
    command = [*spawn.python_module(module), *arguments]
    try:
        with log_path.open("wb") as log:
            helper = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, close_fds=True, env=spawn.environment()
            )
    except OSError as error:
        raise RunError(f"{error.filename or log_path}: cannot start a helper: {error.strerror}") from None
    HELPERS.add(helper)
    return helper
