"""One screen of the console on a store that is looked at when a test says so. Import it as `tui.showing`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.screen import Screen
from tui.driving import Quick, run, settle
from tui.hosting import Host

from engine.runs.store import RunStore


def show(
    store: RunStore,
    folder: Path,
    make: Callable[[], Screen[None]],
    doing: Callable[[Pilot[Any], Any], Awaitable[None]],
    size: tuple[int, int] = (80, 24),
) -> None:
    """Open a screen and do something with it: `doing(pilot, screen)`. News comes by `app.feed.look()` alone."""

    async def scene() -> None:
        app = Host(store, folder)
        async with app.run_test(size=size) as pilot:
            app.feed.stop()
            if app.feed._thread is not None:
                app.feed._thread.join()
            app.feed.look()
            screen = make()
            await app.push_screen(screen)
            await settle(pilot)
            await doing(Quick(app), screen)

    run(scene())
