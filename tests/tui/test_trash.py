"""What is deleted waits in the trash: gone for every command, and back at a word until the console ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from tui.driving import make_job, make_run

from engine.base.errors import LregError
from engine.runs import notes
from engine.runs.store import RunStore
from lreg_tui.runs import actions
from lreg_tui.runs.actions import FOLDER, LOCK, Trash


def delete(trash: Trash, *paths: Path) -> None:
    number = trash.begin()
    for path in paths:
        trash.put(path, number)


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def ids(root: Path) -> list[str]:
    store = RunStore(root)
    return [reader.id for reader in (*store.list(), *store.transfers(), *store.studies())]


def test_deletions_come_back_whole_the_last_one_first(tmp_path):
    runs = [make_run(tmp_path, name) for name in ("alpha", "beta", "gamma")]
    job = make_job(tmp_path, runs)
    (runs[0].path / "mine.txt").write_text("left there by somebody")
    before, every = contents(tmp_path), ids(tmp_path)
    trash = Trash(tmp_path)
    assert trash.is_empty and trash.undo() == []
    delete(trash, runs[0].path, job.path)
    delete(trash, runs[1].path)
    assert ids(tmp_path) == [runs[2].id]
    with pytest.raises(LregError, match="no run"):
        RunStore(tmp_path).resolve(runs[0].id)
    assert trash.undo() == [runs[1].path]
    assert set(trash.undo()) == {runs[0].path, job.path}
    assert ids(tmp_path) == every and trash.is_empty
    trash.empty()
    assert contents(tmp_path) == before and not (tmp_path / FOLDER).exists()


def test_names_and_tags_come_back_in_their_order_with_deletions_and_pins_stay(tmp_path):
    first, second = (make_run(tmp_path, name, tags=["old"]).path for name in ("alpha", "beta"))
    trash, step = Trash(tmp_path), 0
    for words in ("paper", "-old"):
        step = trash.begin()
        for path in (first, second):
            trash.change(path, step, lambda path=path, words=words: actions.tag(path, words))
    trash.change(first, trash.begin(), lambda: actions.rename(first, "gamma"))
    delete(trash, first)
    actions.pin(second, True)
    assert trash.undo() == [first] and notes.read(first) == notes.Notes("gamma", ("paper",))
    assert trash.undo() == [first] and notes.read(first) == notes.Notes("", ("paper",))
    assert trash.undo() == [first, second] and notes.read(second) == notes.Notes("", ("old", "paper"), True)
    assert trash.undo() == [first, second] and notes.read(first).tags == notes.read(second).tags == ("old",)
    assert trash.is_empty


def test_at_the_end_what_was_deleted_is_gone_and_nothing_else(tmp_path):
    gone, kept = make_run(tmp_path, "alpha"), make_run(tmp_path, "beta")
    before = sorted(tmp_path.rglob("*"))
    trash = Trash(tmp_path)
    delete(trash, gone.path)
    trash.empty()
    assert sorted(tmp_path.rglob("*")) == [path for path in before if gone.path not in (path, *path.parents)]
    assert kept.path.is_dir() and trash.undo() == []


def test_a_trash_follows_no_links(tmp_path):
    store, outside = tmp_path / "runs", tmp_path / "outside"
    elsewhere = make_run(tmp_path / "elsewhere", "alpha").path
    made = make_run(store, "beta")
    outside.mkdir()
    (outside / "precious").touch()
    (store / "link").symlink_to(elsewhere)
    trash = Trash(store)
    with pytest.raises(LregError, match="is a link to"):
        delete(trash, store / "link")
    (store / FOLDER).symlink_to(outside)
    with pytest.raises(LregError, match="a link"):
        delete(trash, made.path)
    assert made.path.is_dir()
    (store / FOLDER).unlink()
    (made.path / "transfer").symlink_to(outside)
    delete(trash, made.path)
    trash.empty()
    assert (elsewhere / "run.json").is_file() and (outside / "precious").exists() and not made.path.exists()


def test_a_run_does_not_come_back_over_another_folder(tmp_path):
    made = make_run(tmp_path, "alpha")
    trash = Trash(tmp_path)
    delete(trash, made.path)
    made.path.mkdir()
    (made.path / "mine").write_text("new")
    with pytest.raises(LregError, match="cannot be brought back"):
        trash.undo()
    assert (made.path / "mine").read_text() == "new"
    (made.path / "mine").unlink()
    assert trash.undo() == [made.path] and (made.path / "run.json").is_file()


def test_what_cannot_be_moved_is_told_and_stays(tmp_path):
    made = make_run(tmp_path, "alpha")
    (tmp_path / FOLDER).write_text("no folder")
    trash = Trash(tmp_path)
    with pytest.raises(LregError, match="cannot be deleted"):
        delete(trash, made.path)
    assert (made.path / "run.json").is_file() and trash.is_empty
    with pytest.raises(LregError, match="is gone already"):
        delete(trash, tmp_path / "nothing")


def test_the_trash_of_a_killed_console_is_taken_over_and_that_of_a_live_one_is_not(tmp_path):
    first, second, third = (make_run(tmp_path, name) for name in ("alpha", "beta", "gamma"))
    killed, living, new = Trash(tmp_path), Trash(tmp_path), Trash(tmp_path)
    delete(killed, first.path)
    delete(killed, second.path)
    delete(living, third.path)
    killed._folder.joinpath(LOCK).unlink()  # as the system gives the lock of a dead process back
    assert new.take_over() == 2 and new.take_over() == 0
    assert new.undo() == [second.path] and new.undo() == [first.path] and new.undo() == []
    assert living.undo() == [third.path]


def test_what_was_brought_back_before_a_console_was_killed_is_nothing_to_undo(tmp_path):
    made = make_run(tmp_path, "alpha")
    killed, new = Trash(tmp_path), Trash(tmp_path)
    delete(killed, made.path)
    killed.undo()
    killed._folder.joinpath(LOCK).unlink()
    assert new.take_over() == 0 and new.is_empty
