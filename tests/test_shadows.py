"""Files of the user's whose names are those of lreg's own packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STARTS = {"lreg": "lreg_tui.cli.app", "lreg-tui": "lreg_tui.app"}


def start(folder: Path, command: str, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """A command that looks for modules in the user's folder first; Python may do something `before`."""
    code = f"{before}\nimport sys; from {STARTS[command]} import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    line = [sys.executable, "-c", code, *arguments]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("command", STARTS)
@pytest.mark.parametrize("name", ["engine.py", "engine/__init__.py"])
def test_a_file_that_hides_the_engine_is_named_and_not_executed(command, name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("print('executed')")
    done = start(tmp_path, command, "--help")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path / name} hides ") and done.stderr.count("\n") == 1
    assert "rename it" in done.stderr


def test_files_that_hide_nothing_are_nobodys_business(tmp_path):
    """A folder `engine` that is no package, and modules called as the shipped presets are."""
    (tmp_path / "engine").mkdir()
    (tmp_path / "presets.py").write_text("print('executed')")
    done = start(tmp_path, "lreg", "preset", "show", "quickstart")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith('name = "quickstart"')
    assert "lo-sam" in start(tmp_path, "lreg", "presets").stdout


@pytest.mark.skipif(sys.platform == "win32", reason="there a folder in use cannot be deleted")
@pytest.mark.parametrize("command", STARTS)
def test_a_folder_that_is_gone_is_one_line(command, tmp_path):
    done = start(tmp_path, command, before="import os; os.rmdir(os.getcwd())")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the current folder: ") and done.stderr.count("\n") == 1
