"""The report of a study: that it says what its runs have shown, what it rests on, and what is not there."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from pathlib import Path

import pytest
from reporting import LOG, MLP, RELU, Level, Study, baseline, evaluation, plain, sam, untrained
from studying import RATES

from engine.base.errors import LregError, RunError
from engine.comparison.paired import BRANCHES
from engine.figures import Block
from engine.study.plan.kept import cost_of
from engine.study.plan.plan import Search, StudyAxis, TransferSpec
from engine.study.report import markdown
from engine.study.report.report import write_report

LR = {"report": {"paper": "lr"}}


def levels() -> dict[str, dict[str, Level]]:
    return {"none": {MLP: Level(), RELU: Level()}, "sam": {MLP: Level(0.93, sharpness=0.8), RELU: Level(wobble=0.2)}}


def tried(root, **changes) -> Study:
    """Two arms, one with two points of which the second is the better one; transfers to two tasks."""
    return Study(root, [plain(), sam("sam", RATES)], levels(), loss=by_rate, changes={**LR, **changes})


def by_rate(cell) -> float:
    return 0.2 + 0.01 * cell.seed + (0.1 if cell.point.get("meta.learning_rate") == 1e-3 else 0.0)


def report_of(study: Study, **options) -> str:
    return write_report(study.plan, study.folder, **options).read_text()


def sketch(block: Block, path: Path) -> None:
    """In place of drawing, which takes seconds."""
    path.write_text(block.caption)


def rows_of(study: Study, name: str) -> list[dict[str, str]]:
    with open(study.folder / "report" / name, newline="") as file:
        return list(csv.DictReader(file))


def prose(text: str) -> str:
    """Without line breaks, which depend on the length of lines."""
    return re.sub(r"\s+", " ", text)


def test_a_whole_report(tmp_path):
    study = tried(tmp_path).finish()
    for seed, run in enumerate(study.runs_of("none")):
        for scale, loss in ((0.5, 0.8), (2.0, 0.3)):
            study.put(run, evaluation(MLP, Level(loss=loss), seed, scale=scale))
        study.put(run, untrained(MLP, Level(loss=2.0), seed))
        study.put(run, baseline(MLP, Level(), "sgd"))
    text = report_of(study, draw=sketch)
    assert "**Finished**: 15 runs, 10 transfer jobs." in text
    assert re.search(r"\| C1 +\| \*\*mixed\*\* .* 1 better, 1 not found", text)
    assert re.search(r"\| `sam` +\| sharpness at 0.05 +\| at matched train loss +\| +1 \| +0 \| +1 \| +x0\.8", text)
    assert re.search(r"\| `sam` +\| test accuracy +\| at equal steps +\| +1 \| +0 \| +1 \| .*±0\.\d+ points +\|", text)
    assert "+3.00 (+3.00 to +3.00) higher" in text
    names = {path.name for path in (study.folder / "report").iterdir()}
    figures = {"curves", "sharpness", "accuracy", "frontier"}
    tables = {"runs", "candidates", "results", "paired", "claims"}
    assert names >= {f"{name}.png" for name in figures} | {f"{name}.csv" for name in tables} | {"report.md"}
    assert set(re.findall(r"\]\((\S+?)\)", text)) == names - {"report.md"}


def test_arms_are_read_against_the_reference_arms_frontier(tmp_path):
    """The best scale is 2. At the arm's train loss of 0.4 the regular branch is at its scale 1, the overshoot lower."""
    arms = {"none": {MLP: Level(loss=0.4)}, "sam": {MLP: Level(loss=0.4, sharpness=0.5, wobble=0.01)}}
    study = Study(tmp_path, [plain(), sam("sam")], arms).finish()
    scaled = ((0.5, 0.8, 2.0), (2.0, 0.2, 0.5), (4.0, 0.8, 0.1))
    for seed, run in enumerate(study.runs_of("none")):
        for scale, loss, sharpness in scaled:
            study.put(run, evaluation(MLP, Level(loss=loss, sharpness=sharpness), seed, scale=scale))
        study.put(run, evaluation(MLP, Level(loss=0.3, sharpness=0.1), seed, weight_decay=1e-3))
    text = prose(report_of(study))
    assert "Against the frontier of `none`, whose best scale is x2:" in text
    assert re.search(r"\| `sam` +\| sharpness at \S+ +\| 0\.5\S* \(\S+ to \S+\) lower", text)
    assert "none is the control of sam: the same meta-training without penalty.sam" in text
    rows = {(row["setting"], row["figure"]): row for row in rows_of(study, "paired.csv")}
    ratios = [float(rows[name, "sharpness"]["mean"]) for name in BRANCHES]
    assert ratios == pytest.approx([0.5, 0.5 / math.sqrt(0.05), 5.0], rel=0.05)


def test_every_figure_names_its_runs(tmp_path):
    study = tried(tmp_path).finish()
    text = report_of(study)
    winners = {cell.run_id(study.plan.stamp) for cell in study.plan.grid() if by_rate(cell) < 0.25}
    chosen = {row["run"] for row in rows_of(study, "runs.csv") if row["winner"] == "1"}
    assert chosen == winners and all(run in text for run in winners)
    sharpness = [row for row in rows_of(study, "paired.csv") if row["figure"] == "sharpness" and row["task"] == MLP]
    assert {round(float(row["mean"]), 9) for row in sharpness if row["setting"] == "equal steps"} == {0.8}
    assert all(set(row["runs"].split() + row["reference_runs"].split()) == winners for row in sharpness)
    assert all(set(row["runs"].split()) <= winners for row in rows_of(study, "claims.csv"))


def test_winners_are_those_of_validation(tmp_path):
    """Whatever the transfers say of the other point."""
    study = tried(tmp_path).finish()
    text = report_of(study)
    found = {row["point"]: row for row in rows_of(study, "candidates.csv") if row["arm"] == "sam"}
    assert [row["winner"] for row in found.values()] == ["0", "1"]
    best = found['{"meta.learning_rate": 0.01}']
    assert float(best["mean"]) == pytest.approx(0.22) and best["n"] == "5"
    assert re.search(r"\| `sam` +\| `meta.learning_rate = 0.01` +\| +0.2200 ± 0.0196 \| +5 of 5 \| +winner \|", text)


def test_an_unfinished_study_gets_a_report_of_what_is_there(tmp_path):
    study = tried(tmp_path)
    nothing = report_of(study)
    assert "**Not finished**: 0 of 25 runs and transfer jobs are done (15 missing)" in prose(nothing)
    assert "cannot be compared yet" in nothing
    for cell in study.plan.grid():
        if cell.arm == "none" or by_rate(cell) < 0.25:
            study.run(cell)
    study.transfer()
    text = prose(report_of(study))
    assert "**Not finished**" in text
    assert "Winners that may still change, as runs of these arms have not ended: `sam`." in text
    assert "| provisional winner |" in text
    assert "| `sam` so far |" in text
    assert re.search(r"\| C1 +\| \*\*mixed\*\* so far +\|", text) and re.search(
        r"\| K3 +\| \*\*not tested\*\* +\|", text
    )
    assert "The study has not finished: runs or transfers of `sam` are still open." in text


def test_how_to_run_it_again_is_said_without_where_it_lay(tmp_path):
    study = tried(tmp_path).finish()
    path = study.folder / "run.json"
    argv = [
        "/home/me/.venv/bin/lreg",
        "study",
        "/home/me/tried.toml",
        "--runs-dir",
        "/data/runs",
        "--set",
        "seeds=[0, 1]",
    ]
    path.write_text(json.dumps({**json.loads(path.read_text()), "argv": argv}))
    text = report_of(study)
    assert "`lreg study tried.toml --set 'seeds=[0, 1]'`" in prose(text) and "/home/me" not in text
    assert "Time: 15.0 h of processes (15.0 h meta-training" in prose(text) and "CPU threads of each: 2 or 4" in prose(
        text
    )


def test_before_another_arm_was_evaluated_nothing_is_counted(tmp_path):
    study = tried(tmp_path)
    for cell in study.plan.grid():
        study.run(cell)
    for cell in study.plan.grid():
        if cell.arm == "sam":
            shutil.rmtree(study.store / cell.run_id(study.plan.stamp) / "transfer", ignore_errors=True)
    assert "No other arm has been evaluated where the reference arm `none` was." in prose(report_of(study))


def test_a_candidate_with_a_failed_run_cannot_win(tmp_path):
    study = tried(tmp_path)
    for cell in study.plan.grid():
        failed = cell.arm == "sam" and by_rate(cell) == 0.2
        study.run(cell, *(("failed", "meta-loss is not finite") if failed else ()))
    study.transfer()
    text = prose(report_of(study))
    assert "**Finished, with failures**" in text and "1 failed for good" in text
    assert re.search(r"Failed: `\S+`: meta-loss is not finite\.", text)
    assert {row["point"] for row in rows_of(study, "runs.csv") if row["winner"] == "1"} == {
        "{}",
        '{"meta.learning_rate": 0.001}',
    }


def test_what_weakens_is_said(tmp_path):
    study = tried(tmp_path, seeds=(0, 1), transfer=TransferSpec(to=(MLP, RELU, "mnist/cnn")))
    study.levels["sam"][MLP].diverged = True
    text = prose(report_of(study.finish()))
    for words in (
        "fewer than 5 meta-seeds: sam;",
        "Unequal tuning: the reference arm was the best of 1, others of more: `sam` 2.",
        "Winners at an end of what was tried: a better value may lie beyond. `sam` `meta.learning_rate = 0.01`.",
        "Not evaluated: `mnist/cnn`.",
        "clearly more optimizees diverged than with none: sam on digits/mlp;",
        "no scale frontier on",
        "No re-weighting control",
        "here it is `simple`",
    ):
        assert words in text, words


def test_an_effect_that_is_not_shown_is_not_found(tmp_path):
    text = report_of(tried(tmp_path).finish())
    after = text[text.index(f"### {RELU} after") :]
    (line,) = (line for line in after.splitlines() if "sharpness at 0.05, ratio" in line)
    assert re.search(r"\| \d\.\d+ \(0\.\d+ to 1\.\d+\) not found, power from x0\.9\d+ +\|", line)


def test_a_task_without_accuracy_is_judged_by_its_test_loss(tmp_path):
    """Whatever a task measures: which way is better comes from the metric."""
    study = tried(tmp_path)
    for levels in study.levels.values():
        for level in levels.values():
            level.others = {"test_accuracy": None}
    study.levels["sam"][MLP].loss = 0.4
    text = prose(report_of(study.finish()))
    assert "| `sam` | test loss | at equal steps |" in text and "accuracy, %" not in text
    assert re.search(r"\| C1 \| \*\*mixed\*\* \| .* \| 1 better, 1 not found \|", text)
    assert {row["figure"] for row in rows_of(study, "claims.csv") if row["claim"] == "C1"} == {"test_loss"}


def test_the_marks_that_were_asked_for_are_shown(tmp_path):
    request = TransferSpec(to=(MLP, RELU), settings={"marks": [50]})
    text = report_of(tried(tmp_path, transfer=request).finish())
    assert f"### {MLP} after 100 inner steps" in text and f"### {MLP} after 50 inner steps" in text
    assert f"### {MLP} after 50 inner steps" not in report_of(tried(tmp_path / "last").finish())


def test_cost_is_time_at_work_times_threads(tmp_path):
    (tmp_path / "log.txt").write_text(LOG)
    cost = cost_of(tmp_path)
    assert (cost.seconds, cost.core_seconds, cost.devices) == (3600, 2400 * 4 + 1200 * 2, {"cpu"})
    (tmp_path / "log.txt").write_text(
        "9999-99-99T99:99:99Z process 1: x\n\x00nonsense\n" + LOG.replace("cpu", "cuda:0")
    )
    assert cost_of(tmp_path).gpu_seconds == 3600
    assert cost_of(tmp_path / "nowhere").seconds == 0


def test_a_report_replaces_the_one_before(tmp_path):
    study = tried(tmp_path).finish()
    assert "](curves.png)" in report_of(study, draw=sketch)
    folder = study.folder / "report"
    (folder / "rule.png").write_bytes(b"of another time")
    (folder / "notes.txt").write_text("mine")
    text = report_of(study)
    assert not list(folder.glob("*.png")) and ".png" not in text
    assert (folder / "notes.txt").read_text() == "mine"
    assert not list(folder.glob(".*"))


def test_a_figure_that_cannot_be_drawn_does_not_take_the_report_along(tmp_path):
    def refuse(block: Block, path: Path) -> None:
        if block.figure == "sharpness":
            raise LregError("no room")
        sketch(block, path)

    text = prose(report_of(tried(tmp_path).finish(), draw=refuse))
    assert "figure `sharpness.png` could not be drawn: no room" in text
    assert "](curves.png)" in text and "](sharpness.png)" not in text


def test_text_from_strangers_stays_text(tmp_path):
    hostile = "a|b <b>*x* [y](http://z) `c` \x1b[31m\u202e"
    arms = [plain(), sam("sam")]
    study = Study(tmp_path, arms, levels(), changes={"description": hostile})
    for cell in study.plan.grid():
        study.run(cell, *(("failed", hostile) if cell.arm == "sam" else ()))
    study.put(study.runs_of("none")[0], {**evaluation(f"{hostile}/mlp", Level()), "created": "2026-11-21T10:00:00Z"})
    text = report_of(study)
    assert "\x1b" not in text and "\u202e" not in text
    assert r"a\|b \<b\>\*x\* \[y\](http://z) \`c\`" in prose(text)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert not [line for line in tables if "<b>" in re.sub(r"`[^`]*`|\\.", "", line)]


def test_damaged_folders_are_no_obstacle(tmp_path):
    study = tried(tmp_path).finish()
    none, sam_ = study.runs_of("none"), study.runs_of("sam")
    (none[0] / "transfer" / "0.json").write_text('{"task": 3')
    (none[1] / "preset.toml").write_text("= nonsense")
    (none[2] / "run.json").write_text('{"versions": [], "host": 3}')
    (sam_[0] / "status.json").write_text("[]")
    text = prose(report_of(study))
    assert "could not be read: 1 transfer file" in text and "# Study tried" in text


def test_a_search_says_how_far_it_came(tmp_path):
    axis = StudyAxis("penalty.sam.rho", low=0.01, high=1.0)
    study = Study(tmp_path, [plain(), sam("sam", axis)], changes={"search": Search(trials=3), "seeds": (0, 1)})
    (study.folder / "trials.json").write_text('{"sam": [{"penalty.sam.rho": 0.02}, {"penalty.sam.rho": 0.5}]}')
    points = {"none": [{}], "sam": [{"penalty.sam.rho": 0.02}, {"penalty.sam.rho": 0.5}]}
    for arm in study.plan.arms:
        for cell in study.plan.cells_of(arm, points[arm.name]):
            study.run(cell)
    text = prose(report_of(study))
    assert "The search of `sam` has tried 2 of up to 3 points." in text
    assert "`penalty.sam.rho`: 0.01 to 1.0" in text and "| `search.trials` | `3` |" in text


def test_where_nothing_can_be_written_one_line_says_so(tmp_path):
    study = tried(tmp_path)
    (study.folder / "report").write_text("in the way")
    with pytest.raises(RunError, match=r"report.*not written"):
        report_of(study)


def test_wrapped_prose_begins_no_list():
    words = " ".join(["word"] * 18)
    for sign in ("-", "+", "1.", "#", ">", "2)"):
        lines = markdown.paragraph(f"{words} aaaa {sign} b").splitlines()
        assert not [line for line in lines[1:] if line.startswith(sign)]
    assert "`meta.epochs = 3`" in markdown.paragraph(f"{words} aaa `meta.epochs = 3` word")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.2341, "0.234"), (12.345, "12.3"), (1.2e-5, "1.20e-05"), (0.0, "0.00"), (None, "–"), (float("nan"), "–")],
)
def test_numbers_have_equal_precision(value, shown):
    assert markdown.number(value) == shown


def test_an_interval_has_one_precision():
    assert markdown.interval(0.0312, -0.0042, 0.11) == "0.031 (-0.004 to 0.110)"
    assert markdown.percent(0.0031, -0.00001, 0.01, sign=True) == "+0.31 (0.00 to +1.00)"
