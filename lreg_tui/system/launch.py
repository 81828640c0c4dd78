"""Processes: those that this one waits for; detached workers and signals are in engine.jobs.spawn.

Nothing else here has subprocess.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from engine.base.errors import LregError, RunError
from engine.jobs import spawn
from engine.runs.reader import RunReader
from engine.study.schedule import inputs
from lreg_tui.system.terminal import HELPERS


def check_resumed(reader: RunReader, data_dir: Path | None) -> None:
    """Raise LregError where a run or transfer is damaged, or its data or device is not there any more."""
    from engine.worker import runner_of

    tasks = runner_of(reader).tasks(reader)
    try:
        inputs.check_run(tasks, reader.device, data_dir)
    except LregError as error:
        remark = reader.other_data(data_dir)
        raise RunError(*str(error).splitlines(), *([remark] if remark else [])) from None


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
