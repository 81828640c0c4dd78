"""The console may end at any moment, also while a screen is being opened: Textual mounts no more widgets then."""

from __future__ import annotations

import asyncio

import pytest
from textual.events import Compose
from textual.message import Message
from tui import driving
from tui.driving import Quick, key_event, settle, until

OPENED = (
    *("enter", "a", "S", "M", "m", "t", "c", "r", "D", "e", "o", "C", "P"),
    *("question_mark", "slash", "ctrl+p", "apostrophe", "e ctrl+l", "S a"),
)
"""Keys on the dashboard with marked runs: the last of them opens a screen."""


@pytest.mark.parametrize(("widgets", "is_told_to"), [(1, True), (4, True), (1, False)])
def test_the_console_ends_in_silence_while_any_screen_is_being_opened(tmp_path, monkeypatch, widgets, is_told_to):
    """It ends once so many widgets of the screen begin to be made: by itself, or torn down from outside."""
    monkeypatch.chdir(tmp_path)
    store = driving.make_store(tmp_path / "runs")

    async def end_while_opening(keys: str) -> None:
        app = driving.make_app(store, tmp_path)
        is_opening, is_time, composed = False, asyncio.Event(), 0

        def on_message(message: Message) -> None:
            nonlocal composed
            composed += is_opening and isinstance(message, Compose)
            if composed == widgets and not is_time.is_set():
                is_time.set()
                if is_told_to:
                    app.exit()

        async with app.run_test(message_hook=on_message) as pilot:
            await until(pilot, lambda: len(app.feed.rows) == 3)
            await Quick(app).press("asterisk", *keys.split()[:-1])
            await settle(pilot)
            is_opening = True
            app.post_message(key_event(keys.split()[-1]))
            await asyncio.wait_for(is_time.wait(), driving.LIMIT_S)

    for keys in OPENED:
        driving.run(end_while_opening(keys))
