"""Work that waits for a disk or a process, off the loop that answers keys."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from textual.worker import NoActiveWorker, get_current_worker

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
