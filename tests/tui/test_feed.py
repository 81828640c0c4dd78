"""The feed: what it tells of followed runs, in pieces, without ever holding up who asks."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tui.driving import change_json, make_run

from engine.runs import reader as readers
from engine.runs.store import Run, RunReader, RunStore
from lreg_tui.runs import feed as feeds
from lreg_tui.runs import filters
from lreg_tui.runs.feed import Feed, Followed, RunRow, _KnownRun, row_of

Told = list[tuple["tuple[RunRow, ...] | None", frozenset[str], list[RunRow]]]


def records(first: int, count: int, **more: float) -> list[dict[str, float]]:
    return [{"step": step, "meta_loss": step / 3, "sharpness": 0.5, **more} for step in range(first, first + count)]


@pytest.fixture
def run(tmp_path) -> Run:
    return make_run(tmp_path / "runs", "long", records=records(0, 400))


def test_jobs_that_were_kept_without_a_plan_are_called_by_what_their_study_wanted():
    kept = RunStore(Path(__file__).parents[2] / "docs" / "results" / "learned-flatness")
    names = {row_of(reader).name for reader in kept.transfers()}
    assert "learned-flatness-flat-s0 -> mnist/mlp +8" in names and all("->" in name for name in names)


def make_feed(run: Run, interval: float = 1.0) -> tuple[Feed, Told]:
    told: Told = []
    feed = Feed(RunStore(run.path.parent), lambda *news: told.append(news), interval)
    return feed, told


def values(feed: Feed | Followed, run: Run, metric: str = "meta_loss") -> list[float]:
    found = feed.series(run.id, metric)
    return [] if found is None else found.values.tolist()


def add(run: Run, first: int, count: int, **more: float) -> None:
    run.append(records(first, count, **more))
    run._close_metrics()


def test_a_series_is_the_same_object_until_there_is_more(run):
    feed, told = make_feed(run)
    assert feed.series(run.id, "meta_loss") is None and feed.metrics(run.id) == []
    feed.follow({run.id: run.path})
    feed.look()
    known = feed.series(run.id, "meta_loss")
    assert known is not None and feed.metrics(run.id) == ["meta_loss", "sharpness"]
    assert told[-1][1] == {run.id} and known.steps.tolist() == list(range(400))
    assert feed.series(run.id, "meta_loss") is known and feed.series(run.id, "unheard") is None
    feed.look()
    assert len(told) == 1  # nothing new, nothing told

    add(run, 400, 5)
    feed.look()
    assert len(told) == 2 and told[-1][1] == {run.id}
    assert len(known.values) == 400 and values(feed, run) == [step / 3 for step in range(405)]


def test_a_long_run_is_read_in_pieces_and_shown_as_far_as_it_is(run, monkeypatch):
    monkeypatch.setattr(readers, "PIECE", 4000)
    feed, told = make_feed(run, interval=0.0)
    feed.follow({run.id: run.path})
    lengths = []
    while feed.look():
        lengths.append(len(values(feed, run)))
        assert told[-1][1] == {run.id}
    assert lengths == sorted(set(lengths)) and len(lengths) > 5 and len(values(feed, run)) == 400


def test_whoever_asks_while_a_run_is_read_gets_what_there_is(run, monkeypatch):
    monkeypatch.setattr(readers, "PIECE", 4000)
    followed, seen = Followed(), []
    followed.follow({run.id: run.path})

    def in_between() -> bool:
        asking = threading.Thread(target=lambda: seen.append(len(values(followed, run))))
        asking.start()
        asking.join(20.0)
        return False

    assert followed.poll(60.0, in_between) == ({run.id}, False)
    assert len(seen) > 5 and seen == sorted(set(seen)) and seen[-1] == 400


def test_another_choice_ends_the_reading_at_once(run, monkeypatch):
    monkeypatch.setattr(readers, "PIECE", 4000)
    feed, _ = make_feed(run, interval=60.0)
    feed.follow({run.id: run.path})  # which asks for a look now
    assert feed.look() and 0 < len(values(feed, run)) < 400
    feed.follow({})
    assert not feed.look() and values(feed, run) == []


def test_runs_that_are_followed_on_keep_what_was_read(run, tmp_path):
    other = make_run(tmp_path / "runs", "other", records=records(0, 3))
    feed, _ = make_feed(run)
    feed.follow({run.id: run.path})
    feed.look()
    known = feed.series(run.id, "meta_loss")
    feed.follow({run.id: run.path, other.id: other.path})
    assert feed.series(run.id, "meta_loss") is known and values(feed, other) == []
    feed.look()
    assert len(values(feed, other)) == 3


def test_after_a_resume_the_curve_is_that_of_the_new_file(run):
    feed, told = make_feed(run)
    feed.follow({run.id: run.path})
    feed.look()
    run.truncate_metrics(run.sync_metrics() // 2)
    kept = len((run.path / "metrics.jsonl").read_bytes().splitlines())
    run.append({"step": step, "meta_loss": -1.0} for step in range(kept, 400))  # as many records as before
    run._close_metrics()
    feed.look()
    assert told[-1][1] == {run.id}
    assert values(feed, run) == [step / 3 for step in range(kept)] + [-1.0] * (400 - kept)


def test_time_counts_from_the_first_record_of_the_run(tmp_path):
    made = make_run(tmp_path / "runs", "timed", records=[{"step": 0, "t": 1000.0, "validation_loss": 1.0}])
    made.append({"step": step, "t": 1000.0 + 60 * step, "meta_loss": 1.0, "update_norm": 2.0} for step in (1, 2))
    made._close_metrics()
    feed, _ = make_feed(made)
    feed.follow({made.id: made.path})
    feed.look()
    first, second = (feed.series(made.id, metric) for metric in ("meta_loss", "update_norm"))
    assert first is not None and second is not None
    assert first.times.tolist() == [60.0, 120.0]
    assert np.shares_memory(first.times, second.times)  # worked out once for all charts
    made.append([{"step": 3, "t": 1180.0, "meta_loss": 1.0, "update_norm": 2.0}])
    made._close_metrics()
    feed.look()
    grown: Any = feed.series(made.id, "meta_loss")
    assert grown.times.tolist() == [60.0, 120.0, 180.0]


def test_a_run_whose_folder_goes_is_no_error(run, tmp_path):
    feed, _ = make_feed(run)
    feed.follow({run.id: run.path, "gone": Path(tmp_path / "nowhere")})
    while feed.look():
        pass
    assert len(values(feed, run)) == 400 and feed.metrics("gone") == []


def test_of_many_runs_the_newest_are_told_first_and_each_is_read_once(tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    made = sorted((make_run(runs, f"run {number}") for number in range(9)), key=lambda run: run.id)
    monkeypatch.setattr(feeds, "SCREENFUL", 3)
    monkeypatch.setattr(feeds, "SLICE_S", 0.0)
    reads: list[Path] = []
    read = readers.read_json
    monkeypatch.setattr(readers, "read_json", lambda path, **how: reads.append(path) or read(path, **how))
    feed, told = make_feed(made[0])
    assert not feed.is_whole
    feed.look()
    shown = [[row.id for row in rows or ()] for rows, _, _ in told]
    every = [run.id for run in made]
    assert shown[0] == every[-3:] and shown[-1] == every and len(shown) > 3 and feed.is_whole
    assert all(more == every[-len(more) :] for more in shown) and shown == sorted(shown, key=len)
    assert sorted(path for path in reads if path.name == "run.json") == [run.path / "run.json" for run in made]


def test_figures_that_the_status_lacks_are_those_of_the_curves(tmp_path):
    lost = make_run(tmp_path / "runs", "lost", state="failed", records=records(0, 4), latest={})
    make_run(tmp_path / "runs", "known", latest={"meta_loss": 9.0}, records=records(0, 4))
    make_run(tmp_path / "runs", "empty", records=[], latest={})
    feed, told = make_feed(lost)
    while feed.look():
        pass
    latest = {row.name: dict(row.latest) for row in feed.rows}
    assert latest == {"lost": {"meta_loss": 1.0, "sharpness": 0.5}, "known": {"meta_loss": 9.0}, "empty": {}}
    assert told[-1][0] == feed.rows
    below = filters.compile("meta_loss<2")
    assert [row.name for row in feed.rows if below(row)] == ["lost"]
    add(lost, 4, 2)
    while feed.look():
        pass
    assert {row.name: row.latest.get("meta_loss") for row in feed.rows}["lost"] == 5 / 3


def test_a_run_that_is_looked_at_while_it_is_made_has_its_name_afterwards(tmp_path):
    run = make_run(tmp_path, "mine")
    facts = (run.path / "run.json").read_text()
    (run.path / "run.json").unlink()
    known = _KnownRun(RunReader(run.path))
    assert known.look().name == run.id
    (run.path / "run.json").write_text(facts)
    row = known.look()
    assert row.name == "mine" and row.created


def test_only_what_is_live_is_told_to_take_a_while(tmp_path):
    for state, eta_s in (("running", 60.0), ("crashed", None)):
        made = make_run(tmp_path, state, state=state)
        change_json(made.path / "status.json", eta_s=60.0)
        assert row_of(RunReader(made.path)).eta_s == eta_s
