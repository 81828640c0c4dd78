"""Work that waits for a disk or a process, off the loop that answers keys; and processes that compute for a widget."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from textual.worker import NoActiveWorker, get_current_worker

from engine.base.errors import LregError

Result = TypeVar("Result")


async def off_the_loop(work: Callable[[], Result], name: str = "work") -> Result:
    """Do it in a thread and return what it gives, or raise what it raises.

    The thread is a daemon: quitting does not wait for it, as it would for one of an executor or of a thread worker. A
    worker whose widget was taken away meanwhile ends here.
    """
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()  # from here on nobody can cancel what the thread is about to finish

    def do() -> None:
        try:
            result = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=do, name=name, daemon=True).start()
    try:
        return await asyncio.wrap_future(future)
    finally:
        stop_if_gone()


def stop_if_gone() -> None:
    """End the worker that asks if its widget is being taken away: the widgets in it may be gone already.

    Textual cancels such workers too, but only after that.
    """
    try:
        node = get_current_worker().node
    except NoActiveWorker:
        return
    if node._pruning or node._closing:
        raise asyncio.CancelledError


def unless_busy(method: Callable[..., Awaitable[None]]) -> Callable[..., Coroutine[Any, Any, None]]:
    """Of a widget's method: not begun again while it is at work."""
    busy: WeakSet[Any] = WeakSet()

    @wraps(method)
    async def once(widget: Any, *arguments: Any) -> None:
        if widget not in busy:
            busy.add(widget)
            try:
                await method(widget, *arguments)
            finally:
                busy.discard(widget)

    return once


POLL_S = 0.5


async def unheard(event: dict[str, Any]) -> None:
    """What a helper says where nobody listens."""


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
        on_event: Callable[[dict[str, Any]], Awaitable[None]] = unheard,
        on_poll: Callable[[float], None] = lambda elapsed_s: None,
    ) -> str:
        """Run `python -m module` until it ends; return what went wrong, "" for nothing.

        `on_event` is given what it says as it comes, `on_poll` now and then the seconds that it took so far.
        """
        from lreg_tui.system import launch  # the engine's jobs: not for the console's start

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


if TYPE_CHECKING:
    from textual.widget import Widget as Base
else:
    Base = object


class Computing(Base):
    """A pane with the action compute, which takes a process; a key gives that up, and what is complete is kept."""

    can_compute = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._helper = Helper()

    def on_unmount(self) -> None:
        self._helper.give_up()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "compute":
            return self.can_compute and not self._helper.is_running
        return self._helper.is_running if action == "give_up" else True

    def action_give_up(self) -> None:
        self._helper.give_up()


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
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines[-1:]
    given_up = code < 0
    return "" if code == 0 or given_up else " / ".join(errors) or f"exit code {code}"


def _event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
