"""What is the same everywhere in the console."""

from __future__ import annotations

from tui import driving

from engine.runs import RunStore
from lreg_tui.console import SMALLEST, LregApp
from lreg_tui.screens.dashboard import DashboardScreen
from lreg_tui.screens.too_small import TooSmallScreen


def test_a_terminal_that_is_too_small_says_so_until_it_is_not(tmp_path):
    async def scene() -> None:
        app = LregApp(RunStore(tmp_path / "runs"), session_path=tmp_path / "console.json")
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert isinstance(app.screen, DashboardScreen)
            for size, is_small in (((59, 24), True), ((40, 10), True), (SMALLEST, False), ((80, 19), True)):
                await pilot.resize_terminal(*size)
                await pilot.pause()
                assert isinstance(app.screen, TooSmallScreen) is is_small, size
            assert "60 x 20" in app.screen.wanted and len(app.screen_stack) == 3

    driving.run(scene())
