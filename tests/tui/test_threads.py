"""Work off the loop: it comes back to a widget that is there, or not at all."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from textual import work
from textual.app import App, ComposeResult
from textual.screen import Screen
from textual.widgets import Static
from tui.driving import run, settle, until

from lreg_tui.widgets.threads import off_the_loop


class Waiting(Screen[None]):
    """Shows a word when it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.reached = False

    def compose(self) -> ComposeResult:
        yield Static("waiting")

    @work
    async def wait(self) -> None:
        try:
            await off_the_loop(self.go_on.wait)
        finally:
            self.reached = True
        self.query_one(Static).update("done")


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_worker_ends_when_its_screen_is_being_taken_away(is_gone):
    async def scene() -> None:
        app: App[Any] = App()
        async with app.run_test() as pilot:
            screen = Waiting()
            await app.push_screen(screen)
            screen.wait()
            await pilot.pause()
            label = screen.query_one(Static)
            if is_gone:  # as far as Textual is at that moment: children are gone, the worker is not cancelled yet
                await label.remove()
                screen._pruning = True
            screen.go_on.set()
            await until(pilot, lambda: screen.reached)
            await settle(pilot)
            assert str(label.render()) == ("waiting" if is_gone else "done")
            screen._pruning = False

    run(scene())  # an error in the worker would come out here


def test_errors_come_back(tmp_path):
    async def scene() -> None:
        with pytest.raises(FileNotFoundError):
            await off_the_loop((tmp_path / "none").read_text)

    run(scene())
