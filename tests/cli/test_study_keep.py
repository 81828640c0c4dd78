"""`lreg study STUDY --keep DIR`: a study in little space, from which its report is made again, and a run repeated."""

from __future__ import annotations

import json
import platform
import shutil
import socket
from pathlib import Path

import pytest
from reporting import MLP, Level, Study, plain, sam
from studying import records
from test_study import LOCAL, STUDY

from engine.runs.reader import RunReader
from engine.runs.store import Run, RunStore
from lreg_tui.figures import page

KEPT = STUDY.replace("untrained = false", 'scales = [0.5]\nweight_decays = [1e-3]\nbaselines = ["sgd"]')


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def made(home, monkeypatch):
    """A study whose runs were made by hand, in its run store. Its figures, of which there are many, are captions."""
    monkeypatch.setattr(page, "draw_one", lambda block, path: path.write_text(block.caption))
    levels = {"none": {MLP: Level()}, "sam": {MLP: Level(sharpness=0.8)}}
    made = Study(home, [plain(), sam()], levels).finish()
    Run(made.folder).set_status(state="finished", message=f"report: {made.folder}/report/report.md")
    return made


def test_from_what_is_kept_the_report_is_made_again_and_a_run_repeated(forked, lreg, home):
    (home / "pair.toml").write_text(KEPT)
    outcome = lreg("study", "pair.toml", *LOCAL)
    assert outcome.code == 0, outcome.err
    store = RunStore(home / "runs")
    study = store.resolve("pair")
    first = contents(study.path / "report")
    original = {reader.id: records(reader.path) for reader in store.list()}
    kept = lreg("study", "pair", "--keep", "results/pair", "--json")
    assert kept.code == 0, kept.err
    assert {"report.md", "runs.csv", "meta-loss.png", "curves.png"} <= first.keys()
    assert contents(home / "results/pair/report") == first

    shutil.move(home / "results/pair", home / "elsewhere")
    shutil.rmtree(home / "runs")
    again = lreg("study", "elsewhere", "--report")
    assert again.code == 0 and "equal to the report that was there" in again.err
    assert contents(home / "elsewhere/report") == first

    files = contents(home / "elsewhere")
    without_figures = {name: data for name, data in files.items() if not name.endswith(".png")}
    assert sum(map(len, without_figures.values())) < 150_000
    for word in (str(home), platform.release(), f'"{socket.gethostname()}"', '"pid"'):
        assert not [name for name, data in files.items() if word.encode() in data], word
    assert lreg("compare", "pair", "--runs-dir", "elsewhere").code == 0

    run = next(reader for reader in RunStore(home / "elsewhere").list() if "plain-s0" in reader.id)
    assert lreg("run", str(run.path / "preset.toml"), "--device", "cpu").code == 0
    assert records(RunStore(home / "runs").list()[0].path) == original[run.id]
    before = run.transfers()
    transferred = lreg("transfer", str(run.path), "--to", "digits/mlp-relu", "--steps", "5", "--seeds", "1")
    assert transferred.code == 0, transferred.err
    assert run.transfers().items() > before.items() and before


def test_what_is_kept_is_checked_before_it_is_believed(lreg, home, made):
    assert lreg("study", "tried", "--keep", "kept").code == 0
    kept = home / "kept"
    run = RunStore(kept).list()[0].path
    before = contents(kept / "report")
    for path, damage in (
        (run / "metrics.jsonl", "{}\n"),
        (run / "preset.toml", None),
        (kept / "kept.json", "{"),
        (kept / "kept.json", json.dumps({"files": {"../tiny.toml": "0" * 64}})),
    ):
        good = path.read_bytes()
        path.unlink()
        if damage is not None:
            path.write_text(damage)
        outcome = lreg("study", "kept", "--report")
        assert outcome.code == 2 and len(outcome.err.splitlines()) == 1, outcome.err
        assert contents(kept / "report") == before
        path.write_bytes(good)
    assert lreg("study", "kept", "--report").code == 0


def test_nothing_else_is_overwritten(lreg, home, made):
    (home / "mine").mkdir()
    (home / "mine/notes.txt").write_text("mine")
    outcome = lreg("study", "tried", "--keep", "mine")
    assert outcome.code == 2 and "mine: not empty, and no kept study" in outcome.err
    assert contents(home / "mine") == {"notes.txt": b"mine"}
    assert lreg("study", "tried", "--keep", "kept").code == 0
    before = contents(home / "kept")
    assert lreg("study", "tried", "--keep", "kept").code == 0  # once more, over what was kept before
    assert contents(home / "kept") == before
    (home / "kept/notes.txt").write_text("mine")
    outcome = lreg("study", "tried", "--keep", "kept")
    assert outcome.code == 2 and "notes.txt was added to what is kept there, and would be lost" in outcome.err
    (home / "kept/notes.txt").unlink()
    run = RunReader(RunStore(home / "runs").list()[0].path)
    status = json.loads((run.path / "status.json").read_text())
    (run.path / "status.json").write_text(json.dumps({**status, "state": "queued", "host": "elsewhere"}))
    outcome = lreg("study", "tried", "--keep", "kept")
    assert outcome.code == 2 and f"{run.id} has not come to rest" in outcome.err
    assert contents(home / "kept") == before and not list(home.glob(".kept*"))
