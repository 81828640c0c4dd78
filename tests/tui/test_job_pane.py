"""The pane of transfer jobs: what it says before, while and after plans and results are read, and of damaged ones."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from textual.app import App, ComposeResult
from tui.driving import Quick, make_app, make_job, make_run, run, settle, until

from engine.runs.store import RunStore
from lreg_tui.runs.feed import Feed, RunRow
from lreg_tui.transfers import panes
from lreg_tui.transfers.panes import JobPane
from lreg_tui.widgets.sheet_view import SheetView


class Host(App[None]):
    def compose(self) -> ComposeResult:
        yield JobPane()


def rows_of(root: Any) -> tuple[RunRow, ...]:
    feed = Feed(RunStore(root), lambda *_: None)
    feed.look()
    return feed.rows


def shown(root: Any, doing: Any) -> None:
    async def go() -> None:
        async with Host().run_test(size=(100, 30)) as pilot:
            pane = pilot.app.query_one(JobPane)
            pane.show_rows(rows_of(root))
            await doing(pilot, pane)

    run(go())


def words(pane: JobPane) -> str:
    return pane.query_one(SheetView).text


@pytest.mark.parametrize("slow", ["read_job", "read_results"])
def test_until_all_is_read_it_says_so(tmp_path, monkeypatch, slow):
    job = make_job(tmp_path, [make_run(tmp_path, "alpha")])
    may_read, real, reads = threading.Event(), getattr(panes, slow), []

    def wait(*given: Any) -> Any:
        reads.append(given)
        may_read.wait(240)
        return real(*given)

    monkeypatch.setattr(panes, slow, wait)

    async def doing(pilot, pane):
        await until(pilot, lambda: reads and words(pane) == "reading …")
        cell = str(pane.table.get_row(job.path.name)[-1])
        assert cell == ("reading …" if slow == "read_job" else "alpha on digits/mlp")
        pane.show_rows(rows_of(tmp_path))  # news while it is being read
        await until(pilot, lambda: words(pane) == "reading …")
        may_read.set()
        await settle(pilot)
        await until(pilot, lambda: words(pane) == "No evaluation was completed.")
        assert len(reads) == 1, "a slow disk is asked once"

    shown(tmp_path, doing)


def test_a_damaged_plan_says_what_is_wrong_in_place_of_results(tmp_path):
    job = make_job(tmp_path, [make_run(tmp_path, "alpha")])
    (job.path / "plan.json").write_text('{"runs": 3}')

    async def doing(pilot, pane):
        await settle(pilot)
        await until(pilot, lambda: words(pane).startswith("plan.json: no plan"))
        assert str(pane.table.get_row(job.path.name)[-1]) == "damaged plan"

    shown(tmp_path, doing)


def test_evaluations_are_points_on_the_dashboard(tmp_path):
    """They are on different tasks: a line would join what does not belong together."""
    root = tmp_path / "runs"
    job = make_job(root, [make_run(root, "alpha")])

    async def go() -> None:
        app = make_app(RunStore(root), tmp_path)
        async with app.run_test():
            pilot = Quick(app)
            await until(pilot, lambda: len(app.feed.rows) == 2)
            await settle(pilot)
            table = app.screen.table
            for place, row in enumerate(table.runs.lines):
                table.move_to(place)
                charts = [panel.chart for panel in app.screen.panels.all]
                is_job = row.id == job.path.name
                await until(pilot, lambda: all(chart.points_only is is_job for chart in charts))  # noqa: B023
                assert {chart.x_label for chart in charts} == {"evaluation" if is_job else ""}

    run(go())
