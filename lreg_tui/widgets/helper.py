"""Helper: a process that computes for a widget, and says how it is getting on in lines of JSON."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from engine.base.errors import LregError
from lreg_tui.system import launch
from lreg_tui.widgets.threads import off_the_loop, stop_if_gone

POLL_S = 0.5


class Helper:
    """One process at a time."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._child is not None

    def give_up(self) -> None:
        """End it; what is complete is kept."""
        if self._child is not None:
            self._child.terminate()

    async def run(
        self,
        module: str,
        arguments: Sequence[str],
        on_event: Callable[[dict[str, Any]], Awaitable[None]],
        on_poll: Callable[[float], None],
    ) -> str:
        """Run `python -m module` until it ends; return what went wrong, "" for nothing.

        `on_event` is given what it says as it comes, `on_poll` now and then the seconds that it took so far.
        """
        with tempfile.TemporaryDirectory() as folder:
            log_path = Path(folder) / "said"
            try:
                child = self._child = launch.start_helper(module, arguments, log_path)
            except LregError as error:
                return str(error)
            try:
                return await _follow(child, log_path, on_event, on_poll)
            finally:
                self._child = None
                child.terminate()
                await off_the_loop(child.wait)


async def _follow(
    child: subprocess.Popen[bytes],
    log_path: Path,
    on_event: Callable[[dict[str, Any]], Awaitable[None]],
    on_poll: Callable[[float], None],
) -> str:
    began, done = time.monotonic(), 0
    while True:
        code = child.poll()  # before the look at what it said, so that it is all there
        lines = (await off_the_loop(log_path.read_text)).splitlines()
        for line in lines[done : None if code is not None else -1]:
            done += 1
            await on_event(_event(line))
        if code is not None:
            break
        on_poll(time.monotonic() - began)
        await asyncio.sleep(POLL_S)
        stop_if_gone()
    errors = [line for line in lines if line.startswith("error: ")] or lines[-1:]
    given_up = code < 0
    return "" if code == 0 or given_up else errors[0] if errors else f"exit code {code}"


def _event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
