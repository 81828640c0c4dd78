"""RunNotice: what is said of a run, and what happens when the run goes while its log is read."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult
from tui.driving import change_json, make_run, run, settle

from engine.runs.store import RunStore
from lreg_tui.runs.feed import Feed, RunRow
from lreg_tui.runs.run_notice import RunNotice


class Host(App[None]):
    def compose(self) -> ComposeResult:
        yield RunNotice()


@pytest.fixture
def rows(tmp_path) -> dict[str, RunRow]:
    make_run(tmp_path, "one", state="crashed", log="loading\nout of memory\n")
    make_run(tmp_path, "two", state="crashed", log="killed\n")
    feed = Feed(RunStore(tmp_path), lambda *_: None)
    feed.look()
    return {row.name: row for row in feed.rows}


def said(*names: str | None, rows: dict[str, RunRow]) -> str:
    """What is in view when runs have been shown one after the other, faster than a log is read."""

    async def go() -> str:
        async with Host().run_test() as pilot:
            notice = pilot.app.query_one(RunNotice)
            for name in names:
                notice.show_run(rows[name] if name else None)
            await settle(pilot)
            return str(notice.render()) if notice.display else ""

    return run(go())


def test_a_run_that_goes_away_at_once_leaves_nothing(rows):
    assert said("one", None, rows=rows) == ""


def test_the_last_of_several_runs_is_told_of(rows):
    text = said("one", None, "two", rows=rows)
    assert "two crashed" in text and "killed" in text and "out of memory" not in text


def test_a_run_that_is_stopping_says_what_it_waits_for(tmp_path):
    made = make_run(tmp_path, "three", state="running")
    made.set_status(stopping=True, message="meta-epoch 2")
    feed = Feed(RunStore(tmp_path), lambda *_: None)
    feed.look()
    (row,) = feed.rows
    assert row.state == "stopping" and row.is_live
    words = "stopping: the truncation at hand is finished and a checkpoint written: meta-epoch 2"
    assert said("three", rows={"three": row}) == words


def test_what_can_be_done_is_in_view_on_a_narrow_screen(tmp_path):
    make_run(tmp_path, "a-name-that-is-long-" * 3, state="crashed", step=300_000, total=1_000_000, records=())
    make_run(tmp_path, "short", state="failed", records=())
    change_json(next(tmp_path.glob("*short*")) / "status.json", message="no memory " * 30)
    feed = Feed(RunStore(tmp_path), lambda *_: None)
    feed.look()
    rows = {row.name: row for row in feed.rows}
    for name in rows:
        first = said(name, rows=rows).splitlines()[0]
        assert "R resumes it" in first[:77], first
