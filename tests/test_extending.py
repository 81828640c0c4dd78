"""docs/extending.md is followed to the letter: its file becomes a package, is installed, and is meta-trained with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from test_plugins import lreg

from engine.runs.store import RunReader

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"


def parts(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the page's preset, and beside it `site`, into which pip has installed the page's package."""
    folder = tmp_path_factory.mktemp("extending")
    preset, project = parts("toml")
    (folder / "mine.toml").write_text(preset)
    entry_points = project[project.index("[project.entry-points") :]
    wheel = folder / "lreg_mine-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:  # what any build backend makes of that pyproject.toml
        archive.writestr("mine.py", "\n".join(parts("python")))
        info = "lreg_mine-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: lreg-mine\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(
            f"{info}/entry_points.txt",
            entry_points.replace('project.entry-points."lreg.plugins"', "lreg.plugins").replace('"', ""),
        )
        archive.writestr(f"{info}/RECORD", "")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--target",
        str(folder / "site"),
        str(wheel),
    ]
    subprocess.run(pip, check=True, capture_output=True)
    return folder


def test_one_of_each_is_meta_trained_transferred_and_compared(installed):
    """A regression: its metrics are its own, and no accuracy turns up anywhere."""
    path = {"PYTHONPATH": str(installed / "site")}
    small = ["--set", "evaluation.examples=50", "--set", "evaluation.final_optimizees=2", "--set", "evaluation.every=2"]
    done = lreg(installed, "run", "mine.toml", "--runs-dir", "runs", *small, **path)
    assert done.returncode == 0, done.stderr
    (run,) = (installed / "runs").glob("2*-mine-*")
    reader = RunReader(run)
    assert reader.status().state == "finished"
    metrics = reader.figures()
    assert metrics["test_loss"] > 0 and metrics["test_absolute_error"] > 0 and "test_accuracy" not in metrics
    assert "gradient-norm_penalty" in metrics and metrics["objective_largest-parameter"] > 0
    chosen = json.loads(lreg(installed, "show", "last", "--runs-dir", "runs", "--json", **path).stdout)["preset"]
    assert chosen["meta.estimator"] == "sign-es" and chosen["meta.size"] == 0.5
    assert chosen["objective.terms.largest-parameter.weight"] == 0.01
    assert reader.measured["absolute_error"].better == "lower"
    transfer = lreg(
        installed, "transfer", "last", "--runs-dir", "runs", "--seeds", "2", "--steps", "20", "--json", **path
    )
    assert transfer.returncode == 0, transfer.stderr
    mark = json.loads(transfer.stdout.splitlines()[-1])["seeds"][0]["marks"][-1]
    assert mark["test_absolute_error"] > 0 and mark["sharpness"]
    shown = lreg(installed, "show", "last", "--runs-dir", "runs", **path)
    assert "absolute error" in shown.stdout + shown.stderr and "accuracy" not in shown.stdout
    compared = lreg(installed, "compare", "last", "last", "--runs-dir", "runs", "--markdown", **path)
    assert "accuracy" not in compared.stdout
