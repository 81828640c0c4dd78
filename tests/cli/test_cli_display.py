"""What people see: complete at every width, in every encoding, and of this very moment."""

from __future__ import annotations

import io
import json
import signal

import pytest
from driving import TINY, completed, eventually, forked_lreg
from rich.console import Console

from engine.base.status import Status
from engine.runs import notes
from engine.runs.store import Run, RunReader, RunStore
from lreg_tui.cli import follow
from lreg_tui.text import present

LONG = ("--set", "meta.epochs=2000", "--set", "evaluation.every=2000", "--set", "meta.checkpoint_every=0.1")
LABELS = ("simple (best) on mnist/mlp-relu", "simple (untrained) on mnist/mlp-relu", "adam", "sgd")


def interval(mean: float, ci95: float | None) -> dict:
    return {"mean": mean, "ci95": ci95, "n": 5}


def rows(labels: tuple[str, ...] = LABELS) -> list[dict]:
    """A result table whose figures need as many characters as any."""
    return [
        {
            "label": label,
            "inner_step": 1000,
            "learning_rate": None if "(" in label else 0.03162 + index,
            "seeds": 5,
            "diverged": 5 if "untrained" in label else 0,
            "train_loss": interval(0.0932 + index, 0.0571),
            "test_loss": interval(1.234e-5 * (index + 1), 1.19e-6),
            "test_accuracy": interval(0.939 - index / 100, 0.026),
            "sharpness": {**interval(0.00191 + index / 1000, 0.00534), "radius": "0.05"},
        }
        for index, label in enumerate(labels)
    ]


def shown_at(width: int, found: list[dict], encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)  # which raises for what it cannot encode
    follow.print_results(found, Console(file=stream, width=width, highlight=False))
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("labels", [LABELS, ("dm (best)", "dm (untrained)", "adam", "sgd")])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_the_result_table_is_complete_at_every_width(width, labels, encoding):
    shown = shown_at(width, rows(labels), encoding)
    assert all(len(line) <= width for line in shown.splitlines()) and "…" not in shown
    sign = " +- " if encoding == "ascii" else " ± "
    words = set(shown.split())  # of labels, which may be folded
    for row in rows(labels):
        assert set(row["label"].split()) <= words
        for metric in ("train_loss", "test_loss", "test_accuracy", "sharpness"):
            assert present.interval(row[metric], metric == "test_accuracy", sign) in shown
        if row["learning_rate"]:
            assert present.setting(row["learning_rate"]) in shown
    assert {"(5", "of", "5", "diverged)", "confidence"} <= words and "at 0.05" in shown


def test_a_task_that_measures_something_else_has_its_own_columns():
    measured = [{key: value for key, value in row.items() if key != "test_accuracy"} for row in rows()]
    shown = shown_at(200, [{**row, "test_perplexity": interval(31.5, 0.9)} for row in measured])
    assert "perplexity" in shown and shown.count("31.5 ± 0.9") == len(LABELS) and "accuracy" not in shown


def test_several_marks_are_told_apart_at_every_width():
    found = rows() + [{**row, "inner_step": 20000} for row in rows()]
    for width in (40, 200):
        assert shown_at(width, found).count("20000") == len(LABELS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ascii")
    (folder / "tiny.toml").write_text(TINY)
    return folder


@pytest.fixture(scope="module")
def ascii_lreg(folder, zygote):
    """Call `lreg` where stdout and stderr know ASCII only; return what it said."""

    def call(*arguments: str) -> str:
        done = forked_lreg(zygote, folder, *arguments, PYTHONIOENCODING="ascii")
        assert done.code == 0 and done.out.isascii(), done.err
        return done.out

    return call


@pytest.fixture(scope="module")
def trained(folder, ascii_lreg):
    """The runs folder of a run, and what `lreg run` said of it."""
    return folder / "runs", ascii_lreg("run", "tiny.toml")


def test_ascii_is_no_reason_to_fail(trained, ascii_lreg):
    runs, said = trained
    assert " +- " in said and "finished: " in said
    for command in (("show", "last"), ("watch", "last"), ("runs",), ("runs", "--json"), ("doctor",), ("presets",)):
        assert ascii_lreg(*command)
    reader = RunStore(runs).resolve("last")
    status = json.loads((reader.path / "status.json").read_text())
    (reader.path / "status.json").write_text(json.dumps({**status, "message": "≠ ± \ud800"}))
    assert "? +- ?" in ascii_lreg("show", "last")
    (reader.path / "status.json").write_text(json.dumps(status))


def test_a_run_says_nothing_before_it_is_taken(trained):
    assert "queued" not in trained[1] and "waiting" not in trained[1]
    assert "meta-step 6/6 (100%)" in trained[1] and "sharpness at 0.05" in trained[1]


def test_show_names_things_as_the_papers_do(lreg, trained):
    said = lreg("show", "last", "--runs-dir", str(trained[0])).out
    for words in ("preset (choices, and what is not the default)", "meta-step 6 of 6", "sharpness at 0.05"):
        assert words in said
    lines = [line.split() for line in said.splitlines()]
    assert ["meta-epoch", "3"] in lines and any(line[:1] == ["memory"] and line[2:] == ["MiB"] for line in lines)


def test_show_is_complete_on_a_narrow_terminal(lreg, trained, monkeypatch):
    whole = lreg("show", "last", "--runs-dir", str(trained[0])).out
    monkeypatch.setenv("COLUMNS", "40")
    narrow = lreg("show", "last", "--runs-dir", str(trained[0])).out
    assert "…" not in narrow
    for line in whole.partition("result\n")[0].splitlines():
        key = line.split("  ")[1] if line.startswith("  ") else line.strip()
        assert key in narrow


@pytest.fixture
def made(home):
    """A run with an ETA that can be brought into any state."""
    from fakes import preset

    run = Run.create(home / "runs", preset("made"))
    with run:
        run.append([{"step": 59, "meta_loss": 32.0, "sharpness": 0.5, "inner_steps_per_s": 321.0, "skipped": 3}])
        run.progress(59, 250, 18.0)
        run.set_status(message="evaluating")
    return run


def ends_as(run: Run, **changes) -> RunReader:
    status = json.loads((run.path / "status.json").read_text())
    (run.path / "status.json").write_text(json.dumps({**status, "eta_s": 18.0, **changes}))
    return RunReader(run.path)


@pytest.mark.parametrize(
    ("changes", "state"), [({"process_started": 1.0}, "crashed"), ({"state": "stopped"}, "stopped")]
)
def test_only_a_live_run_has_an_eta(lreg, made, changes, state):
    ends_as(made, **changes)
    for command in ("watch", "show"):
        said = lreg(command, made.id).out
        assert state in said and "ETA" not in said
    assert "meta-step 59/250" in lreg("watch", made.id).out


def frame(reader: RunReader, width: int, status: Status | None = None, notice: str = "") -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(follow._frame(reader, status or reader.status(), notice, 0.05, width))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_live_frame_fits_its_terminal(made, width):
    reader = RunReader(made.path)
    shown = frame(reader, width, Status(state="running", step=59, total=250, eta_s=18.0), notice="stopping")
    for words in (made.id, "running", "meta-step 59/250", "ETA 18s", "meta-loss", "sharpness at 0.05", "stopping"):
        assert words in shown
    assert all(len(line) <= width for line in shown.splitlines())
    assert len([line for line in shown.splitlines() if "meta-loss" in line and "sharpness" in line]) == (width > 40)


def test_the_last_frame_says_nothing_of_what_was_under_way(made):
    shown = frame(ends_as(made, state="stopped"), 80, notice="stopping after this truncation")
    assert "evaluating" not in shown and "stopping" not in shown and "ETA" not in shown


def test_a_resumed_run_begins_with_its_new_state(lreg, lreg_forked, home):
    process = lreg_forked("run", "tiny.toml", *LONG)
    eventually(lambda: RunStore(home / "runs").list() and "last" in RunStore(home / "runs").list()[0].checkpoints())
    process.kill()
    process.communicate()
    assert RunStore(home / "runs").resolve("last").state == "crashed"
    process = lreg_forked("resume", "last")
    line = eventually(lambda: process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=240)
    assert line.startswith("running") and "crashed" not in rest and process.returncode == 130


def test_an_aborted_run_says_what_stays(lreg, made):
    ends_as(made, state="stopped", message="aborted; the last checkpoint stays")
    said = lreg("watch", made.id).out
    assert f"stopped: {made.id}\n" in said and said.count("the last checkpoint stays") == 1


def test_option_errors_have_the_house_form(lreg, home):
    for arguments, words in (
        (("run", "tiny.toml", "--seed", "x"), 'error: --seed: found "x"; allowed: an integer >= 0\n'),
        (("run", "tiny.toml", "--seed", "-1"), "error: --seed: found -1; allowed: an integer >= 0\n"),
        (("logs", "last", "-n", "x"), 'error: --lines: found "x"; allowed: an integer >= 0 and <= 1000000\n'),
        (("runs", "--state", "runing"), "(did you mean running?)\n"),
        (("runs", "--sort", "sharpnes"), "(did you mean sharpness?)\n"),
    ):
        outcome = lreg(*arguments)
        assert (outcome.code, outcome.out) == (2, "") and outcome.err.endswith(words), outcome
    assert "crashed" in lreg("runs", "--help").out


def test_completion_of_states_and_sorts():
    assert completed("lreg runs --state f") == ["finished", "failed"]
    assert completed("lreg runs --sort sh") == ["sharpness"]


def test_folders_that_hold_no_run(lreg, made, home):
    outcome = lreg("runs", "--runs-dir", "nowhere")
    assert outcome.code == 0 and outcome.err.endswith("nowhere: no such folder\n")
    (home / "empty").mkdir()
    for reference, words in (("empty", "no run.json there"), (str(home / "empty"), "no run"), ("runs", "--runs-dir")):
        for command in ("show", "watch", "logs", "resume", "stop"):
            outcome = lreg(command, reference)
            assert outcome.code == 2 and "a folder, but no run" in outcome.err and words in outcome.err


def test_counts_stay_whole_and_figures_keep_their_digits(made):
    reader = ends_as(made, latest={})  # figures come from the metrics, as floats
    figures = {key: present.metric(key, value) for key, value in reader.figures().items()}
    assert figures == {"meta_loss": "32.00", "sharpness": "0.5000", "inner_steps_per_s": "321.0", "skipped": "3"}
    assert present.setting(0.1) == "0.1" and present.setting(1.0) == "1"


def test_a_run_has_the_name_that_it_was_given_later(lreg, made):
    notes.write(made.path, notes.Notes(name="renamed"))
    assert "renamed" in lreg("runs").out and "renamed" in lreg("show", made.id).out
    assert json.loads(lreg("runs", "--json").out)["name"] == "renamed"
