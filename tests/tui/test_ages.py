"""Ages grow in what is on the screen, also of runs, jobs and checkpoints of which nothing changes."""

from __future__ import annotations

import time

import pytest
from tui.driving import Quick, make_app, make_job, make_run, run, until

from engine.runs.store import RunStore
from lreg_tui.runs import run_screen, run_table
from lreg_tui.runs.run_screen import RunScreen
from lreg_tui.transfers import panes
from lreg_tui.transfers.panes import JobPane
from lreg_tui.transfers.transfer_screen import TransferScreen
from lreg_tui.widgets.sheet_view import SheetView

HOURS = 5 * 3600


def text(app) -> str:
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


@pytest.fixture
def later(monkeypatch):
    """Call it, and it is five hours later."""
    for module in (run_screen, panes, run_table):
        monkeypatch.setattr(module, "AGES_EVERY_S", 0.5)  # less, and keys wait for a screen that is never at rest
    now = time.time
    return lambda: monkeypatch.setattr(time, "time", lambda: now() + HOURS)


def test_of_runs_jobs_and_checkpoints(tmp_path, later):
    made = make_run(tmp_path / "runs", "alpha")
    make_job(tmp_path / "runs", [made])

    async def go() -> None:
        app = make_app(RunStore(tmp_path / "runs"), tmp_path)
        async with app.run_test(size=(120, 40)):
            pilot = Quick(app)
            await until(pilot, lambda: len(app.feed.rows) == 2)
            app.feed.stop()
            dashboard = app.screen
            app.open_run(made.id)
            await until(pilot, lambda: isinstance(app.screen, RunScreen) and app.screen.files)
            screen = app.screen
            await pilot.press("4")
            checkpoints = await until(
                pilot, lambda: next(iter(screen.query("#tab-checkpoints").results(SheetView)), None)
            )
            await until(pilot, lambda: "ago" in checkpoints.text)
            app.open_transfer((made.id,))
            await until(pilot, lambda: isinstance(app.screen, TransferScreen))
            await pilot.press("f6")
            table = app.screen.query_one(JobPane).table
            jobs = lambda: " ".join(str(cell) for row in table.rows for cell in table.get_row(row))  # noqa: E731
            await until(pilot, lambda: table.row_count == 1)
            assert "5h" not in jobs() and "5h" not in checkpoints.text
            later()
            await until(pilot, lambda: "5h ago" in jobs() and "5h ago" in checkpoints.text)
            for _ in range(4):
                await pilot.press("escape")
            await until(pilot, lambda: app.screen is dashboard)
            await pilot.press("right")  # the job is folded below its run
            await until(pilot, lambda: text(app).count(" 5h ") == 2)

    run(go())
