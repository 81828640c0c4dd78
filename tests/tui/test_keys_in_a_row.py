"""Keys that come faster than screens do: each acts when the one before it has, and a screen takes away only itself."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from textual.app import App
from textual.events import Paste
from tui import driving
from tui.driving import Quick, key_event

from engine.jobs import spawn
from lreg_tui.app.console import LregApp
from lreg_tui.runs import actions
from lreg_tui.runs.dashboard import DashboardScreen
from lreg_tui.runs.run_screen import RunScreen
from lreg_tui.widgets import keys
from lreg_tui.widgets.dialog import ConfirmScreen, PromptScreen

KEYS = (
    *["escape"] * 14,
    *["enter"] * 5,
    *"anNStceRDUyugrpkmzolLxOVbdwTiGhf0123456789",
    *(
        "slash",
        "question_mark",
        "asterisk",
        "equals_sign",
        "tilde",
        "left_square_bracket",
        "right_square_bracket",
        "comma",
        "plus",
        "minus",
    ),
    *("f1", "f5", "f6", "f8", "tab", "shift+tab", "down", "up", "left", "right", "home", "end", "pagedown", "space"),
    *("ctrl+p", "ctrl+t", "ctrl+r", "ctrl+l", "ctrl+o", "ctrl+s", "delete", "backspace", "ctrl+a", "ctrl+u"),
)
Steps = Callable[[Quick, LregApp], Awaitable[None]]


@pytest.fixture(autouse=True)
def started(monkeypatch, tmp_path) -> list[Any]:
    """What processes would have been started for."""
    runs: list[Any] = []
    monkeypatch.setattr(spawn, "start_detached", lambda reader, **how: runs.append(reader.path))
    monkeypatch.setattr(keys, "PATIENCE_S", driving.LIMIT_S)  # no key acts before its turn on a busy machine
    monkeypatch.chdir(tmp_path)
    return runs


def drive(folder, steps: Steps, size: tuple[int, int] = (80, 24)) -> None:
    async def go() -> None:
        app = driving.make_app(driving.make_store(folder / "runs"), folder)
        async with app.run_test(size=size):
            pilot = Quick(app)
            await driving.until(pilot, lambda: len(app.feed.rows) == 3)
            await steps(pilot, app)

    driving.run(go())


async def burst(pilot: Quick, keys: Sequence[str]) -> None:
    """All at once, as a slow link brings them."""
    for key in keys:
        pilot.app.post_message(key_event(key))
    await rest(pilot.app)


async def rest(app: App[Any]) -> None:
    """Wait until no message is on its way. Pilot waits for widgets that go meanwhile, which never answer."""
    rounds, deadline = 0, time.monotonic() + driving.LIMIT_S
    while rounds < 3:
        assert time.monotonic() < deadline and app._exception is None, app._exception
        await asyncio.sleep(0)
        nodes = [app, *app.screen.walk_children(with_self=True)]
        rounds = 0 if any(node.message_queue_size for node in nodes) else rounds + 1


def stands(app: App[Any]) -> bool:
    """The dashboard lies below all other screens."""
    return isinstance(app.screen_stack[0], DashboardScreen)


OPENED = (
    *("a", "S", "question_mark", "f1", "slash", "m", "t", "c", "r", "T", "D", "e", "enter", "ctrl+p", "a enter"),
    *("e ctrl+r", "t f6", "t enter", "S n", "enter question_mark", "enter slash", "n enter ctrl+o"),
)


def test_every_screen_can_be_left_again_and_again(tmp_path):
    async def steps(pilot, app):
        for number, opened in enumerate(OPENED):
            await burst(pilot, [*opened.split(), *["escape"] * (2, 10)[number % 2]])
            while len(app.screen_stack) > 1:
                before = len(app.screen_stack)
                await burst(pilot, ["escape"])
                assert len(app.screen_stack) == before - 1, opened
            assert stands(app) and isinstance(app.screen, DashboardScreen), opened

    drive(tmp_path, steps)


@pytest.mark.parametrize("seed", range(2))
def test_whatever_keys_come_the_dashboard_is_at_the_bottom(tmp_path, seed):
    chance = random.Random(seed)

    async def steps(pilot, app):
        for _ in range(12):
            keys = chance.choices(KEYS, k=chance.choice((1, 2, 3, 12)))
            for key in keys:
                app.post_message(key_event(key))
                if chance.random() < 0.3:
                    await asyncio.sleep(0)
            await rest(app)
            assert stands(app), keys
        for _ in range(40):  # a screen may have several steps to go back, and ask whether edits may be lost
            await burst(pilot, ["y" if isinstance(app.screen, ConfirmScreen) else "escape"])
        assert stands(app) and len(app.screen_stack) == 1

    drive(tmp_path, steps, chance.choice([(80, 24), (120, 40)]))


def test_what_is_typed_goes_to_the_field_that_the_key_before_it_opens(tmp_path):
    async def steps(pilot, app):
        await burst(pilot, ["slash", *"DyDyD", "enter"])
        assert isinstance(app.screen, DashboardScreen) and app.screen.table.runs.lines == []
        await burst(pilot, ["escape", "T", *"a,b", "enter"])
        await driving.until(pilot, lambda: {"a", "b"} <= {tag for row in app.feed.rows for tag in row.tags})
        app.post_message(key_event("r"))
        app.post_message(Paste("pasted"))
        await rest(app)
        assert isinstance(app.screen, PromptScreen) and app.screen.query_one("Input").value.endswith("pasted")
        assert len(list((tmp_path / "runs").glob("*/run.json"))) == 3

    drive(tmp_path, steps)


def test_keys_do_not_wait_for_a_focus_that_nothing_has(tmp_path):
    async def steps(pilot, app):
        app.set_focus(None)
        await burst(pilot, ["a", "escape", "question_mark", "escape"])
        assert len(app.screen_stack) == 1

    drive(tmp_path, steps)


def test_a_key_pressed_twice_opens_one_screen_and_resumes_once(tmp_path, monkeypatch):
    calls, may_end = [], threading.Event()
    monkeypatch.setattr(actions, "resume", lambda path, data_dir: calls.append(path) or str(may_end.wait(20)))

    async def steps(pilot, app):
        await pilot.press("R", "R", "enter")
        assert isinstance(app.screen, RunScreen)
        await pilot.press("R")
        assert len(calls) == 1 and calls[0].name.split("-")[2] == "gamma"
        may_end.set()
        await driving.settle(pilot)
        await pilot.press("escape")
        await burst(pilot, ["enter", "enter"])
        assert len(app.screen_stack) == 2

    drive(tmp_path, steps)
