"""Bad input is one clear line for each problem, exit code 2, and leaves nothing behind."""

from __future__ import annotations

import pytest


def refused(outcome, *words: str) -> None:
    assert outcome.code == 2, outcome
    assert outcome.out == "" and "Traceback" not in outcome.err
    assert all(line.startswith("error: ") for line in outcome.err.splitlines()), outcome.err
    for word in words:
        assert word in outcome.err, outcome.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[meta]\nepoch = 3", ("meta.epoch", "unknown key", "did you mean epochs?")),
        ('[meta]\nepochs = "ten"', ("meta.epochs", '"ten"', "an integer >= 0")),
        ("[penalty.sam]\nrho = -0.1", ("penalty.sam.rho", "-0.1", ">= 0")),
        ("[penalty.sma]", ("penalty.sma", "sam")),
        ('[task]\ndataset = "minst"', ("task.dataset", "did you mean mnist?")),
        ("[meta\n", ("no valid TOML",)),
        ("task = 3", ("task", "a table")),
        ('extends = "bad.toml"', ("circle",)),
        ('extends = "nowhere.toml"', ("extends", "no such file")),
        ("[meta]\nlearning_rate = nan", ("meta.learning_rate", "nan")),
        ('name = "\\u001b[31m"', ("name", "printable")),
    ],
)
def test_a_bad_preset(lreg, home, text, words):
    (home / "bad.toml").write_text(text + "\n")
    refused(lreg("run", "bad.toml"), "bad.toml", *words)
    refused(lreg("preset", "check", "bad.toml"), *words)
    assert not (home / "runs").exists()


def test_every_problem_at_once_each_on_its_line(lreg, home):
    (home / "bad.toml").write_text("[meta]\nepoch = 3\ntruncation = 0\n[penalty.sam]\nrho = -1\n")
    outcome = lreg("run", "bad.toml")
    refused(outcome)
    assert len(outcome.err.splitlines()) == 3


@pytest.mark.parametrize("argument", ["nowhere.toml", "quikstart", "..", "x" * 5000, "a\x00b", "\x1b[2J"])
def test_a_preset_that_is_not_there(lreg, home, argument):
    outcome = lreg("run", argument)
    refused(outcome)
    assert "\x1b" not in outcome.err


@pytest.mark.parametrize(
    "override", ["meta.epochs", "=3", "meta.epochs=", "meta.epochs=x", "nope=1", "meta.epochs.x=1"]
)
def test_a_bad_override(lreg, home, override):
    refused(lreg("run", "tiny.toml", "--set", override))


@pytest.mark.parametrize("variable", ["LREG_GRAPHS", "LREG_KERNELS", "LREG_KERNELS_ISA"])
def test_a_bad_variable_leaves_no_run(lreg, home, variable, monkeypatch):
    monkeypatch.setenv(variable, "yes")
    refused(lreg("run", "tiny.toml"), variable, "yes", "allowed")
    assert not (home / "runs").exists()


def test_bad_options(lreg, home):
    refused(lreg("run", "tiny.toml", "--device", "cuda:77"), "cuda:77", "there is: cpu")
    refused(lreg("run", "tiny.toml", "--device", "tpu"), "auto, cpu, cuda")
    refused(lreg("run", "tiny.toml", "--device", "cuda:77", "--detach"), "cuda:77")
    refused(lreg("run", "tiny.toml", "--seed", "-1"), "seed")
    assert lreg("run", "tiny.toml", "--seed", "x").code == 2
    assert lreg("run", "tiny.toml", "--no-such-flag").code == 2
    assert lreg("nonsense").code == 2
    assert lreg("runs", "--sort", "colour").code == 2
    assert not (home / "runs").exists()


def test_data_that_is_missing_is_found_before_a_run_is_made(lreg, home, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    for detach in ((), ("--detach",)):
        outcome = lreg("run", "tiny.toml", "--set", "task.dataset=mnist", "--data-dir", "empty", *detach)
        refused(outcome, "mnist", "LREG_DATA_DIR")
    assert not (home / "runs").exists()


def test_few_shot_settings_and_data_that_do_not_fit_are_found_before_a_run_is_made(lreg, home):
    def run(*changes: str):
        return lreg(
            "run", "tiny.toml", *(word for change in changes for word in ("--set", change)), "--data-dir", "empty"
        )

    refused(run("task.dataset=digits-episodes"), "task.batch_size: found 16; allowed: 128")
    refused(run("task.dataset=digits-episodes", "task.batch_size=128", "task.ways=3"), "task.ways", "at most 2")
    refused(run("task.dataset=omniglot", "task.batch_size=128"), "omniglot-py.zip", "LREG_DATA_DIR")
    assert not (home / "runs").exists()


def test_what_cannot_be_done_does_not_go_to_the_background(lreg, home):
    assert lreg("run", "tiny.toml", "--set", "meta.epochs=0", "--set", "evaluation.final_optimizees=0").code == 0
    before = sorted((home / "runs").iterdir())
    refused(lreg("run", "tiny.toml", "--set", "task.classes=[1,77]", "--detach"), "task.classes", "0 to 9")
    other = ("--set", "meta.init_from=last", "--set", "optimizer.kind=dm")
    refused(lreg("run", "tiny.toml", *other, "--detach"), "meta.init_from", "the same [optimizer] table")
    for checkpoint in (before[0] / "checkpoint").iterdir():
        checkpoint.unlink()
    refused(lreg("run", "tiny.toml", "--set", "meta.init_from=last", "--detach"), "no such checkpoint")
    refused(lreg("transfer", "last", "--detach"), "no checkpoint")
    assert sorted((home / "runs").iterdir()) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "last", "--runs-dir", "no\nwhere\x1b[31m"),
        ("run", "tiny.toml", "--runs-dir", "tiny.toml/\n\x1b[31m"),
        ("show", "a\nb\x1b[31m"),
        ("preset", "check", "a\nb\x1b[31m.toml"),
        ("study", "a\nb\x1b[31m.toml"),
        ("runs", "--sort", "a\nb\x1b[31m"),
        ("export", "last", "--to", "csv", "-o", "a\nb\x1b[31m/c"),
    ],
)
def test_one_line_whatever_is_in_it(lreg, home, arguments):
    outcome = lreg(*arguments)
    refused(outcome)
    assert len(outcome.err.splitlines()) == 1 and "\x1b" not in outcome.err


def test_what_is_no_option_does_no_harm_either(lreg, home):
    outcome = lreg("runs", "--x\n\x1b[31m", "y\n\x1b[31m")
    assert outcome.code == 2 and "\x1b" not in outcome.err and len(outcome.err.splitlines()) == 4


def test_a_runs_folder_that_cannot_be_written(lreg, home):
    (home / "file").write_text("")
    refused(lreg("run", "tiny.toml", "--runs-dir", "file/runs"), "file", "cannot create a run folder")


def test_a_run_to_start_from_that_is_not_there(lreg, home):
    refused(lreg("run", "tiny.toml", "--set", "meta.init_from=nobody"), "meta.init_from", "nobody")
    assert not (home / "runs").exists()


@pytest.mark.parametrize("command", ["resume", "stop", "pause", "continue", "show", "watch", "logs"])
def test_a_run_that_is_not_there(lreg, home, command):
    refused(lreg(command, "last"), "no runs in")
    refused(lreg(command, "nobody"), "nobody")
