"""Words of the dashboard: how to start in an empty folder, and how many marks there are."""

from __future__ import annotations

import pytest
from tui.terminal import Terminal

from lreg_tui.runs.dashboard_text import instead, marks
from lreg_tui.runs.run_list import NO_CURVE


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LREG_RUNS_DIR", raising=False)


def advice(root) -> str:
    return instead(str(root), True, "").plain


def test_the_command_for_an_empty_folder_starts_a_run_in_it(tmp_path, monkeypatch):
    assert advice(tmp_path / "runs").endswith("lreg run quickstart --detach")
    elsewhere = tmp_path / "my runs"
    assert advice(elsewhere).endswith(f"lreg run quickstart --detach --runs-dir '{elsewhere}'")
    monkeypatch.setenv("LREG_RUNS_DIR", str(elsewhere))
    assert "--runs-dir" not in advice(elsewhere) and "--runs-dir" in advice(tmp_path / "runs")


def test_a_folder_that_is_not_there_will_be_created(tmp_path):
    assert f"{tmp_path / 'runs'}, which will be created" in advice(tmp_path / "runs")
    assert "will be created" not in advice(tmp_path)


def test_marks_that_cannot_be_compared_are_counted_apart():
    assert marks([0, 1]) == "2 marked" and marks([0, NO_CURVE, 1]) == "2 marked + 1 transfer"
    assert marks(range(8)) == "8 marked, 6 drawn"
    assert marks([NO_CURVE, NO_CURVE]) == "2 transfers marked"


def test_a_file_in_place_of_the_folder_ends_it_at_once(tmp_path):
    (tmp_path / "file").touch()
    with Terminal(tmp_path / "file", tmp_path, columns=300) as terminal:
        terminal.shows(f"error: {tmp_path / 'file'}: not a folder: runs cannot live there")
        terminal.until(terminal.has_ended)
        assert b"\x1b" not in terminal.sent
