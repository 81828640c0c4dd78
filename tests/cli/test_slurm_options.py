"""`lreg study --executor slurm`: what is asked for wrongly is said before anything is made."""

from __future__ import annotations

import pytest

STUDY = """
name = "one"
seeds = [0]
preset = "tiny.toml"
"""


@pytest.fixture
def one(home):
    (home / "one.toml").write_text(STUDY)
    return home


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--executor", "slurm", "--slurm-time", "an hour"), '--slurm-time: found "an hour"; allowed: a time limit'),
        (("--slurm-partition", "gpu"), "--slurm-partition: of no use without --executor slurm"),
        (("--executor", "slurm"), "on this machine"),
    ],
)
def test_options_of_slurm(lreg, one, monkeypatch, options, said):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(one))
    done = lreg("study", "one.toml", *options)
    assert done.code == 2 and said in done.err
    assert len(done.err.splitlines()) == 1
    assert not (one / "runs").exists()
