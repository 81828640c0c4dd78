"""KeysInOrder: an app in which a key acts when all that the key before it has set going is done.

A key is forwarded to what has the focus, and what it does is looked up when it has come back from there. Of keys in one
burst, as over a slow link, the second would go to what had the focus before the first: `/` and a word would be keys of
the table, and a key of high priority would overtake the one before it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

from textual.app import App
from textual.events import Event, Key, Paste
from textual.worker import WorkerState

PATIENCE_S = 2.0  # a key waits no longer for a screen that is never at rest; a busy machine may take half of it


class KeysInOrder(App[None]):
    """What is pasted waits for its turn as well."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._typed: deque[Event] = deque()
        self._patience_ends = 0.0

    async def on_event(self, event: Event) -> None:
        if not isinstance(event, Key | Paste) or event.is_forwarded:
            await super().on_event(event)
            return
        self._typed.append(event)
        if len(self._typed) == 1:  # else the turn of the one before has yet to come
            self._patience_ends = time.monotonic() + PATIENCE_S
            await self._take_turn()

    async def act_on(self, event: Event) -> None:
        """What a key or a paste does when it is its turn."""
        await super().on_event(event)

    async def _take_turn(self) -> None:
        """Let the first act if it can, and look again for what is left."""
        if self._is_at_rest or time.monotonic() > self._patience_ends:
            await self.act_on(self._typed.popleft())
            self._patience_ends = time.monotonic() + PATIENCE_S
        if self._typed:
            self.call_later(self._take_turn)
            await asyncio.sleep(0)  # let the others do what is waited for

    @property
    def _is_at_rest(self) -> bool:
        """True if the screen stands, and no message and no worker is on its way."""
        screen = self.screen
        nodes = (self, *screen.walk_children(with_self=True))
        is_waiting = any(node.message_queue_size or node._pending_message for node in nodes)  # the next is taken out
        is_starting = any(worker.state is WorkerState.PENDING for worker in self.workers)
        return screen.is_mounted and not (is_waiting or is_starting)
