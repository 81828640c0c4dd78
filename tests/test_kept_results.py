"""The finished studies in docs/results: small, as they were kept, and their reports are what lreg makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.study.plan.kept import check_kept, is_kept, study_in
from engine.study.plan.state import plan_of
from engine.study.report.report import write_report
from lreg_tui.studies.study_worker import draw

RESULTS = Path(__file__).parents[1] / "docs" / "results"
KEPT = sorted(path for path in RESULTS.glob("*") if is_kept(path))
MOST = 20_000_000  # bytes of all together


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.name)
def test_the_report_is_made_again_from_what_is_kept(kept, tmp_path):
    """Where wording has changed since: lreg study docs/results/NAME --report."""
    check_kept(kept)
    copy = shutil.copytree(kept, tmp_path / kept.name)
    shutil.rmtree(copy / "report")
    study = study_in(copy).path
    made = write_report(plan_of(study), study, draw).parent
    texts = [path.name for path in (kept / "report").iterdir() if path.suffix != ".png"]  # figures vary with matplotlib
    assert {path.name for path in made.iterdir()} == {path.name for path in (kept / "report").iterdir()}
    assert [name for name in texts if (made / name).read_bytes() != (kept / "report" / name).read_bytes()] == []


def test_together_they_are_small():
    assert sum(path.stat().st_size for path in RESULTS.rglob("*") if path.is_file()) < MOST
