"""runs, show, watch, logs, presets, doctor: what strangers' folders hold is shown, never obeyed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from driving import completed

from engine.presets.preset import from_mapping, load_preset
from engine.runs.store import Run
from lreg_tui.text import present

EVIL = "\x1b]0;owned\x07\x1b[31m[bold]red[/bold]\u202e\r\n"


@pytest.fixture
def runs(home):
    """Three runs: finished, failed with hostile text, and one with nothing but junk."""
    from fakes import preset

    made = []
    for name, state in (("good", "finished"), ("evil", "failed")):
        run = Run.create(home / "runs", preset(name))
        with run:
            run.append([{"step": 3, "meta_loss": 0.25 if state == "finished" else None, "test_accuracy": 0.5}])
            run.progress(3, 4, None)
            run.set_status(state=state, message=EVIL if state == "failed" else "")
        made.append(run)
    facts = json.loads((made[1].path / "run.json").read_text())
    facts |= {"name": EVIL, "host": EVIL, "argv": [EVIL], "versions": {EVIL: EVIL}, "created": EVIL}
    (made[1].path / "run.json").write_text(json.dumps(facts))
    (made[1].path / "preset.toml").write_text("damaged " + EVIL)
    (made[1].path / "log.txt").write_text(f"a line\n{EVIL}torn")
    (made[1].path / "transfer").mkdir()
    row = {"label": EVIL, "seeds": [{"marks": [{"inner_step": 1, "train_loss": 1.0, "sharpness": {"0.1": 1}}]}]}
    (made[1].path / "transfer" / "result-x.json").write_text(json.dumps(row))
    junk = home / "runs" / "20990101-000000-junk\x1b[31m-aaaa"
    junk.mkdir()
    (junk / "run.json").write_bytes(b"\xff\x00")
    return made


def harmless(text: str) -> bool:
    return not any(character in text for character in "\x1b\x07\u202e\r")


def test_runs_are_listed(lreg, runs):
    outcome = lreg("runs")
    assert outcome.code == 0 and runs[0].id in outcome.out and harmless(outcome.out)
    listed = lreg("runs", "--json").lines
    assert {run["id"]: run["state"] for run in listed}[runs[1].id] == "failed" and len(listed) == 3
    good = next(run for run in listed if run["id"] == runs[0].id)
    assert good["figures"]["meta_loss"] == 0.25 and (good["step"], good["total"]) == (3, 4)


def test_figures_that_a_status_lacks_are_listed_from_the_metrics(lreg, runs):
    told = json.loads((runs[0].path / "status.json").read_text())
    (runs[0].path / "status.json").write_text(json.dumps({**told, "latest": {}}))
    good = next(run for run in lreg("runs", "--json").lines if run["id"] == runs[0].id)
    assert (good["figures"]["meta_loss"], good["figures"]["test_accuracy"]) == (0.25, 0.5)


def test_runs_are_filtered_and_sorted(lreg, runs):
    assert [run["id"] for run in lreg("runs", "--json", "--state", "failed").lines] == [runs[1].id]
    for sort in ("name", "state", "progress", "eta", "age", "meta_loss", "validation_loss", "test_accuracy"):
        assert len(lreg("runs", "--json", "--sort", sort).lines) == 3
    assert lreg("runs", "--json", "--sort", "meta_loss").lines[0]["id"] == runs[0].id
    assert lreg("runs", "--json", "--state", "paused").lines == []


def test_runs_are_listed_filtered_and_sorted_by_their_settings(lreg, home):
    for name, rho in (("lo-gam-a", 0.1), ("lo-gam-b", 0.05), ("lo-sam", None)):
        penalty = {"gam": {"weight": 1.0, "rho": rho}} if rho else {"sam": {"weight": 1.0}}
        Run.create(home / "runs", from_mapping({"name": name, "task": {"dataset": "digits"}, "penalty": penalty}))
    listed = lreg(
        "runs", "--json", "--filter", "name~^lo-(sam|gam) gam.rho>0", "--sort", "gam.rho", "--column", "gam.rho"
    )
    assert [(run["name"], run["columns"]) for run in listed.lines] == [
        ("lo-gam-b", {"penalty.gam.rho": 0.05}),
        ("lo-gam-a", {"penalty.gam.rho": 0.1}),
    ]
    assert "penalty.gam.rho" in lreg("runs", "--column", "gam.rho").out
    assert "match lo-x" in lreg("runs", "--filter", "lo-x").err
    for wrong in (("--filter", "gam.rho>x"), ("--column", "gam.rh"), ("--sort", "weight")):  # of gam, or of sam?
        outcome = lreg("runs", *wrong)
        assert outcome.code == 2 and outcome.err.startswith(f"error: {wrong[0]}: ") and outcome.out == ""


def test_no_runs_is_no_error(lreg, home):
    outcome = lreg("runs")
    assert (outcome.code, outcome.out) == (0, "") and "no runs" in outcome.err


@pytest.mark.parametrize("command", [["show"], ["logs"], ["watch"]])
def test_hostile_text_is_only_text(lreg, runs, command):
    outcome = lreg(*command, runs[1].id)
    assert outcome.code == (1 if command == ["watch"] else 0)
    assert harmless(outcome.out + outcome.err) and outcome.out


def test_a_hostile_state_is_only_text(lreg, runs):
    status = json.loads((runs[1].path / "status.json").read_text())
    (runs[1].path / "status.json").write_text(json.dumps({**status, "state": EVIL}))
    for command in ("runs", "show", "watch"):
        outcome = lreg(command, *([] if command == "runs" else [runs[1].id]))
        assert harmless(outcome.out + outcome.err) and outcome.out


def test_a_preset_is_shown_without_anything_a_terminal_obeys(lreg, home):
    (home / "evil.toml").write_text('extends = "tiny.toml"\nmeta.init_from = "\u009b31m\u202e\\u001b[1m"\n')
    shown = lreg("preset", "show", "evil.toml").out
    assert shown and harmless(shown) and "\x9b" not in shown
    (home / "again.toml").write_text(shown)
    assert load_preset("again.toml")["meta"]["init_from"] == "\x9b31m\u202e\x1b[1m"


def test_nothing_to_signal_where_nobody_holds_the_run(lreg, runs, home):
    """A stranger's status may name any process; this one would die of the signal."""
    status = json.loads((runs[0].path / "status.json").read_text())
    status |= {"state": "running", "controllable": True, "heartbeat": time.time()}
    (runs[0].path / "status.json").write_text(json.dumps(status))
    for command in ("stop", "pause", "continue"):
        outcome = lreg(command, runs[0].id)
        assert outcome.code == 2 and "is not held by process" in outcome.err


def test_logs_take_any_number_of_lines_and_no_pipe(lreg, runs):
    assert lreg("logs", runs[0].id, "-n", "9" * 30).code == 2
    (runs[0].path / "log.txt").unlink(missing_ok=True)
    os.mkfifo(runs[0].path / "log.txt")
    assert lreg("logs", runs[0].id).out == ""
    status = json.loads((runs[0].path / "status.json").read_text())
    (runs[0].path / "status.json").write_text(json.dumps({**status, "state": "stopped"}))
    outcome = lreg("resume", runs[0].id, "--detach")
    assert outcome.code == 2 and "cannot start a worker" in outcome.err


def test_show_tells_everything(lreg, runs):
    (shown,) = lreg("show", runs[0].id, "--json").lines
    assert shown["status"]["state"] == "finished" and shown["run"]["name"] == "good"
    assert shown["figures"] == {"meta_loss": 0.25, "test_accuracy": 0.5}
    assert lreg("show", runs[1].id, "--json").lines[0]["preset_problem"]


def test_markup_is_printed_as_it_stands(lreg, runs):
    assert "[bold]red[/bold]" in lreg("show", runs[1].id).out


def test_logs_print_the_last_lines(lreg, runs):
    (runs[0].path / "log.txt").write_text("".join(f"line {number}\n" for number in range(100)) + "torn")
    assert lreg("logs", runs[0].id, "-n", "2").out == "line 98\nline 99\n"
    assert lreg("logs", runs[0].id, "-n", "0").out == ""
    assert lreg("logs", runs[0].id, "-f", "-n", "1").out == "line 99\n"


def test_a_thousand_runs_are_listed_within_seconds(lreg, runs, home):
    for number in range(1000):
        folder = home / "runs" / f"20200101-000000-copy-{number:04d}"
        folder.mkdir()
        for name in ("run.json", "status.json"):
            (folder / name).write_bytes((runs[0].path / name).read_bytes())
    began = time.process_time()
    assert len(lreg("runs", "--json").lines) == 1003
    assert time.process_time() - began < 5


def test_a_closed_pipe_ends_quietly(runs, home):
    command = f"{sys.executable} -m lreg_tui.cli.app runs --json | head -1"
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    for number in range(600):  # more than a pipe holds
        folder = home / "runs" / f"20200101-000000-copy-{number:04d}"
        folder.mkdir()
        (folder / "run.json").write_bytes((runs[0].path / "run.json").read_bytes())
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root})
    assert done.stdout.count("\n") == 1 and done.stderr == ""


def _seconds_of_children() -> float:
    """Of a processor: others may want it too."""
    times = os.times()
    return times.children_user + times.children_system


def test_starting_is_quick(home):
    """The target is 0.3 s on a machine with nothing else to do."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

    def seconds() -> float:
        began = _seconds_of_children()
        command = [sys.executable, "-m", "lreg_tui.cli.app", "--help"]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": root})
        return _seconds_of_children() - began

    assert any(seconds() < 1.0 for _ in range(3))


def test_version_and_console_without_a_terminal(lreg, capfd, monkeypatch):
    from lreg_tui import __version__, app

    assert lreg("--version").out == f"lreg {__version__}\n"
    monkeypatch.setattr("sys.argv", ["lreg-tui"])
    assert app.main() == 2
    assert "needs a terminal" in capfd.readouterr().err


def test_doctor(lreg, home, monkeypatch):
    monkeypatch.setattr("engine.bench.limits.SECONDS", 0.01)
    monkeypatch.setattr("engine.bench.busy.LOOK_S", 0.01)
    findings = {finding["what"]: finding for finding in lreg("doctor", "--json").lines}
    for what in ("python", "torch", "CPU", "memory", "data folder", "datasets", "runs folder", "cache folder"):
        assert what in findings
    assert "digits" in findings["datasets"]["found"] and "omniglot" not in findings["datasets"]["found"]
    (home / "data" / "omniglot-py").mkdir(parents=True)
    findings = {finding["what"]: finding for finding in lreg("doctor", "--data-dir", "data", "--json").lines}
    assert "friedman, omniglot; downloaded when used: mnist" in findings["datasets"]["found"]
    (home / "file").write_text("")
    outcome = lreg("doctor", "--runs-dir", "file", "--data-dir", "nowhere")
    assert outcome.code == 0 and "problem" in outcome.out


def test_completion_offers_runs_and_presets(runs, home):
    """Not the one with an escape code in its name."""
    assert set(completed("lreg show 2")) == {run.id for run in runs}
    assert completed("lreg show la") == ["last"]
    assert "tiny.toml" in completed("lreg run ti")


class TestPresetCommands:
    def test_check(self, lreg, home):
        assert lreg("preset", "check", "tiny.toml").out == "tiny.toml: ok\n"
        (home / "bad.toml").write_text("[meta]\nepoch = 1\n")
        outcome = lreg("preset", "check", "tiny.toml", "bad.toml", "--json")
        assert outcome.code == 2 and [line["ok"] for line in outcome.lines] == [True, False]
        assert outcome.lines[1]["problems"][0]["path"] == "meta.epoch"

    def test_show_prints_a_preset_that_loads_again(self, lreg, home):
        shown = lreg("preset", "show", "tiny.toml", "--set", "seed=9").out
        (home / "again.toml").write_text(shown)
        assert lreg("preset", "show", "again.toml").out == shown and "seed = 9" in shown

    def test_new_extends_and_never_overwrites(self, lreg, home):
        outcome = lreg("preset", "new", "mine", "--from", "tiny.toml")
        assert outcome.code == 0, outcome.err
        text = (home / "mine.toml").read_text()
        assert 'extends = "tiny.toml"' in text and "# epochs = 3" in text
        mine, tiny = lreg("preset", "show", "mine.toml").out, lreg("preset", "show", "tiny.toml").out
        assert mine.replace('name = "mine"', 'name = "tiny"') == tiny
        assert lreg("preset", "new", "mine", "--from", "tiny.toml").code == 2
        assert (home / "mine.toml").read_text() == text
        assert lreg("preset", "new", "mine", "--from", "tiny.toml", "--force").code == 0

    def test_a_new_preset_is_in_todays_form_whatever_its_parent_is_in(self, lreg, home):
        former = (
            '[meta]\nestimator = "es"\n[objective]\nloss = "last"\nbatches = 5\n[objective.sharpness]\nat_loss = 0.5\n'
        )
        (home / "former.toml").write_text(former)
        assert lreg("preset", "new", "mine", "--from", "former.toml").code == 0
        lines = (home / "mine.toml").read_text().splitlines()
        for line in ('# loss = "last_many"', "# batches = 5", "# [objective.terms.sharpness]", "# at = 0.5"):
            assert any(text.startswith(line) for text in lines), line
        assert "at_loss" not in lreg("preset", "show", "former.toml").out

    def test_every_comment_of_a_new_preset_is_valid_when_uncommented(self, lreg, home):
        more = 'extends = "tiny.toml"\n[penalty.sam]\n[penalty.smooth]\n[meta]\nestimator = "es"\npairs = 3\n'
        (home / "more.toml").write_text(f"{more}[objective]\nlog = true\n[objective.terms.sharpness]\nradius = 0.2\n")
        assert lreg("preset", "new", "all", "--from", "more.toml").code == 0
        lines = (home / "all.toml").read_text().splitlines()
        for line in ("# pairs = 3", "# log = true", "# [objective.terms.sharpness]", "# radius = 0.2"):
            assert any(text.startswith(line) for text in lines), line
        assert next(text for text in lines if text.startswith("# estimator")).endswith("tbptt")
        bare = [line.removeprefix("# ") for line in lines if " = " in line or line.startswith("# [")]
        (home / "all.toml").write_text("\n".join(bare))
        outcome = lreg("preset", "check", "all.toml")
        assert outcome.code == 0, outcome.err
        written = load_preset(home / "all.toml").values | {"name": "more"}
        assert written == load_preset(home / "more.toml").values

    @pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "\x1b[31m", ".toml"])
    def test_new_writes_only_here(self, lreg, home, name):
        before = set(home.iterdir())
        assert lreg("preset", "new", name, "--from", "tiny.toml").code == 2
        assert set(home.iterdir()) == before

    def test_new_needs_a_good_parent(self, lreg, home):
        assert lreg("preset", "new", "mine", "--from", "nowhere").code == 2
        assert lreg("preset", "new", "tiny", "--from", "tiny.toml", "--force").code == 2

    def test_list(self, lreg):
        assert lreg("presets").code == 0 and lreg("presets", "--json").code == 0


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *[(0.23412, "0.2341"), (32.0, "32.00"), (321.0, "321.0"), (1.2e-5, "1.200e-05"), (123456.7, "123457")],
        *[
            (10000.0, "10000"),
            (99999.6, "100000"),
            (999999.6, "1.000e+06"),
            (1_000_000, "1.000e+06"),
            (-12345.6, "-12346"),
        ],
        *[(0.0, "0"), (12, "12"), (60000, "60000"), (1234.6, "1235"), (None, "–"), (float("nan"), "nan")],
    ],
)
def test_numbers(value, shown):
    assert present.number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(45, "45s"), (200, "3m 20s"), (18720, "5h 12m"), (190000, "2d 4h"), (None, "–"), (-1, "–")]
)
def test_durations(seconds, shown):
    assert present.duration(seconds) == shown


def test_intervals():
    assert present.interval({"mean": 1.5, "ci95": 0.391}) == "1.50 ± 0.39"
    assert present.interval({"mean": 0.0158, "ci95": None}) == "0.0158"
    assert present.interval({"mean": 0.104, "ci95": 0.086}, as_percent=True) == "10.4 ± 8.6%"
    assert present.interval({"mean": None, "ci95": None}) == "–"


def test_a_kind_of_a_newer_version_is_shown_and_nothing_is_done_with_it(lreg, runs):
    path = runs[0].path
    facts = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**facts, "kind": f"search{EVIL}"}))
    status = json.loads((path / "status.json").read_text())
    (path / "status.json").write_text(json.dumps({**status, "state": "stopped"}))
    listed, shown = lreg("runs", "--json"), lreg("show", path.name)
    assert path.name in [line["id"] for line in listed.lines] and listed.code == 0
    assert shown.code == 0 and "step 3 of 4" in shown.out and "which this version" in shown.out and harmless(shown.out)
    for command in ("resume", "transfer", "export", "compare"):
        refused = lreg(command, path.name, *(["--to", "csv"] if command == "export" else []))
        assert refused.code == 2 and refused.err.count("\n") == 1 and harmless(refused.err[:-1])
        assert 'of kind "search' in refused.err
