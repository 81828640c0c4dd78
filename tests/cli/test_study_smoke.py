"""`lreg study smoke`, the shipped study with fewer steps, from nothing to its report.

All else is real: its processes, its runs, its transfers, its report.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from engine.runs.results import mean
from engine.runs.store import RunStore

ARMS, TASKS = ("none", "smooth", "gsam"), ("digits/mlp", "digits/mlp-relu")
STEPS = "40"
FEWER = {
    **{"set.meta.epochs": 2, "set.meta.inner_steps": 20, "set.meta.truncation": 10, "set.evaluation.every": 1},
    **{"set.evaluation.examples": 60, "set.evaluation.ascent_steps": 2, "set.evaluation.restarts": 1},
    **{"transfer.steps": STEPS, "transfer.marks": [20], "transfer.seeds": 1, "set.evaluation.final_optimizees": 0},
    "seeds": 1,
}
SMOKE = ("study", "smoke", *(word for key, value in FEWER.items() for word in ("--set", f"{key}={value}")), "--json")


def test_the_smoke_study_from_nothing_to_its_report(forked, lreg, home):
    done = lreg(*SMOKE, "--devices", "cpu", "--jobs", "2")
    assert done.code == 0, done.err
    first, *_, end = done.lines
    assert end["state"] == "finished" and end["id"] == first["id"]

    store, report = RunStore(home / "runs"), Path(end["report"])
    runs, jobs = store.list(), store.transfers()
    assert len(runs) == 4 and len(jobs) == 3 + 2
    assert {piece.state for piece in (*runs, *jobs, *store.studies())} == {"finished"}

    text = report.read_text()
    assert "**Finished**: 4 runs, 5 transfer jobs." in text
    assert [line for line in text.splitlines() if line.startswith("| K")], "the controls have their verdicts"
    named = set(re.findall(r"\]\(([\w.-]+)\)", text))
    assert named == {path.name for path in report.parent.iterdir()} - {report.name} and len(named) == 10
    assert all((report.parent / name).stat().st_size > 200 for name in named)

    winners_are_those_of_least_validation_loss(report.parent, end["winners"], store)
    figures_are_those_of_the_transfers(report.parent, end["winners"], store)

    compared = lreg("compare", "smoke", "--json").lines[0]
    assert [arm["runs"] for arm in compared["arms"]] == [row["runs"] for row in end["winners"]]
    assert lreg(*SMOKE).lines == [first, end]


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / name, newline="") as file:
        return list(csv.DictReader(file))


def winners_are_those_of_least_validation_loss(folder: Path, winners: list[dict], store: RunStore) -> None:
    """By what the runs themselves have recorded."""
    assert [row["arm"] for row in winners] == list(ARMS)
    for row in table(folder, "runs.csv"):
        run = store.resolve(row["run"])
        run.poll()
        assert float(row["value"]) == min(run.series("validation_loss")[1])
    rows = table(folder, "candidates.csv")
    for told in winners:
        best = min((row for row in rows if row["arm"] == told["arm"]), key=lambda row: float(row["mean"]))
        assert best["winner"] == "1" and best["runs"].split() == told["runs"]
        assert json.loads(best["point"]) == told["point"]


def figures_are_those_of_the_transfers(folder: Path, winners: list[dict], store: RunStore) -> None:
    """The accuracy of every winner on every task, from the files of its runs."""
    rows = table(folder, "results.csv")
    for arm, runs in ((row["arm"], row["runs"]) for row in winners):
        for task in TASKS:
            wanted = {"task": task, "inner_step": STEPS, "optimizer": arm, "figure": "test_accuracy"}
            (row,) = [row for row in rows if wanted.items() <= row.items()]
            seeds = [accuracy(store, run, f"best-{task.replace('/', '-')}-{STEPS}-") for run in runs]
            assert float(row["mean"]) == pytest.approx(mean(seeds).mean)


def accuracy(store: RunStore, run: str, name: str) -> float | None:
    """The mean over the optimizees of the transfer file that begins so."""
    (found,) = [evaluation for key, evaluation in store.resolve(run).transfers().items() if key.startswith(name)]
    return mean([seed["marks"][-1]["test_accuracy"] for seed in found["seeds"]]).mean
