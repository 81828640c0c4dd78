"""What cannot be saved is told in one line with the user's file and the reason, and no temporary file is left."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from engine.base.errors import LregError
from engine.base.files import write_atomic
from engine.export.target import TargetError, check_target
from lreg_tui.compare.comparison_sheets import wrong_name
from lreg_tui.figures import page
from lreg_tui.presets import preset_edit


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", ["plain.md", "with\nnewline.md", "n" * 250 + ".md", "ä" * 120 + ".md", "-rf.md"])
def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path, monkeypatch, name):
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError) as caught:
        write_atomic(tmp_path / name, "text")
    assert (caught.value.filename, caught.value.errno) == (str(tmp_path / name), errno.ENOSPC)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["n" * 252, "ä" * 126])
def test_the_longest_names_that_there_are_can_be_written(tmp_path, name):
    write_atomic(tmp_path / name, "text")
    assert (tmp_path / name).read_text() == "text"


@pytest.mark.parametrize("name", ["missing/a.toml", "n" * 300 + ".toml", "a\nb.toml", "file/a.toml", "folder"])
def test_a_preset_that_cannot_be_saved_is_told_in_one_line(tmp_path, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    path = tmp_path / name
    with pytest.raises(LregError) as caught:
        preset_edit.save("seed = 1\n", path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and ".tmp" not in message and repr(path.name)[1:-1] in message


@pytest.mark.parametrize(("name", "reason"), [
    ("missing/a.md", "no such folder"), ("a.doc", "allowed"), ("a\nb.md", "control characters"),
    ("folder.md", "a folder"), ("\x1b[2J.md", "control characters"), ("", "allowed"),
    ("~nobody-of-that-name/a.md", "no such folder"),
])  # fmt: skip
def test_a_name_that_cannot_be_saved_under_is_refused_while_it_is_typed(tmp_path, monkeypatch, name, reason):
    monkeypatch.chdir(tmp_path)
    Path("folder.md").mkdir()
    assert reason in wrong_name(name) and not wrong_name("a.md")
    wrong_name("n" * 5000 + ".md")  # which the system refuses when it is written


@pytest.mark.parametrize("name", ["n" * 5000 + ".png", "missing/a.png", "a\nb/c.png"])
def test_names_that_are_no_names_are_no_crash_of_plot_and_export(tmp_path, name):
    path = tmp_path / name
    for check in (page.check_path, check_target):
        try:
            check(path)
        except (LregError, TargetError) as error:
            assert len(str(error).splitlines()) == 1
