"""The terminal that the console runs on."""

from __future__ import annotations

import math
import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    import subprocess
    from types import FrameType

    from textual.app import App
    from textual.driver import Driver

DESCRIPTORS = (0, 1, 2)  # Textual draws on the last
LOOK_MS = 500  # how soon a hang-up is noticed where it wakes nobody who waits
PATIENCE_S = 2.0  # for leaving a terminal as it was, once told to end
HELPERS: WeakSet[subprocess.Popen[bytes]] = WeakSet()  # processes that work for this one only, and end with it


def end_with_it() -> None:
    """From now on this process ends as soon as its terminal is gone, whatever else it is at, with exit code 129.

    The signal for that may be ignored (under nohup) or be for others (a terminal that does not control this process).
    Nobody but a thread of its own can be relied on: what draws waits for what writes, and that for the terminal.
    """
    threading.Thread(target=_wait_and_end, name="hang-up", daemon=True).start()


def _wait_and_end() -> None:
    watch = select.poll()
    for descriptor in DESCRIPTORS:
        watch.register(descriptor, 0)  # a hang-up is told without being asked for
    while not (events := watch.poll(LOOK_MS)):
        if time.monotonic() > _told.limit:
            _end(_told.code)
    if not any(event & select.POLLHUP for _, event in events):
        return  # a system on which poll cannot say
    _end(128 + signal.SIGHUP)


def _end(code: int) -> None:
    try:
        for helper in list(HELPERS):
            helper.kill()
    finally:
        os._exit(code)  # nothing is tidied up, as by the signal: all that could wait for the terminal


class _Told:
    """What this process ends with, and when at the latest; set in a signal's handler, which must take no lock."""

    limit, code = math.inf, 0


_told = _Told()


def end_when_told(app: App[Any]) -> None:
    """Let SIGINT and SIGTERM end the app, from before it runs: with its terminal as it was, unless that takes too long.

    A signal comes in the middle of anything, such as a write that holds a lock; the app's loop does what it asks for.
    """

    def leave(number: int, _: FrameType | None) -> None:
        if (loop := app._loop) is None:  # not drawn yet, or no more
            os._exit(128 + number)
        _told.code, _told.limit = 128 + number, min(_told.limit, time.monotonic() + PATIENCE_S)
        loop.call_soon_threadsafe(app.call_after_refresh, app.exit, None, _told.code)  # once its screen stands

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)


def stop_when_told(app: App[Any]) -> None:
    """Let SIGTSTP stop the app with its terminal as it was. Textual does it in the handler, where it may wait for ever.

    To be called in the app's loop, once it draws.
    """
    import asyncio

    loop, driver = asyncio.get_running_loop(), app._driver
    if driver is not None and driver.can_suspend:
        loop.add_signal_handler(signal.SIGTSTP, _stop, driver)
        loop.add_signal_handler(signal.SIGCONT, _go_on, app, driver)


def _stop(driver: Driver) -> None:
    driver.suspend_application_mode()
    os.kill(os.getpid(), signal.SIGSTOP)


def _go_on(app: App[Any], driver: Driver) -> None:
    """Take the terminal again, whoever has had it meanwhile."""
    writer = getattr(driver, "_writer_thread", None)
    if writer is not None and writer.is_alive():  # stopped by a signal that nobody can catch, or not at all
        driver.suspend_application_mode()
    driver.resume_application_mode()
    app.refresh(layout=True)
