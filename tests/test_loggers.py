"""Run loggers: wandb, MLflow and trackio get what metrics.jsonl gets, and never harm a run.

Where the packages are not installed, stand-ins with the calls that their documentation has write down what they are
given; `test_the_package_itself` takes the real ones, offline, where they are.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import zygote
from fakes import preset

from engine.export import loggers
from engine.export.loggers import Sender, logged
from engine.runs.writer import Run

ROOT = Path(__file__).parents[1]
TELL = """
import json, os, threading
def tell(**what):
    with open(os.environ["STAND_IN"], "a") as file:
        file.write(json.dumps(what) + "\\n")
def fail_at(step):
    if str(step) == os.environ.get("STAND_IN_FAILS_AT"):
        raise ConnectionError("the server\\nis gone")
"""
WANDB = """
class Settings:
    def __init__(self, *, console, silent):
        pass
class Run:
    def __init__(self, id):
        self.id = id
    def log(self, data, step=None, commit=None):
        fail_at(step)
        tell(remote=self.id, step=step, **data)
    def finish(self, exit_code=None):
        tell(remote=self.id, end=["FINISHED", "FAILED"][exit_code])
def init(*, entity=None, project=None, id=None, name=None, config=None, resume=None, settings=None):
    assert resume == "allow" and isinstance(settings, Settings)
    print("wandb: hello")
    tell(remote=id, project=project, name=name, config=config)
    return Run(id)
"""
TRACKIO = """
class Run:
    def __init__(self, name):
        self.name = name
    def log(self, metrics, step=None):
        fail_at(step)
        tell(remote=self.name, step=step, **metrics)
    def finish(self):
        tell(remote=self.name, end="FINISHED")
def init(project, name=None, group=None, space_id=None, config=None, resume="never"):
    assert resume == "allow"
    print("* Trackio project initialized")
    tell(remote=name, project=project, name=config["name"], config=config)
    return Run(name)
"""
MLFLOW = """
import sys, types
from types import SimpleNamespace as Namespace
class Metric:
    def __init__(self, key, value, timestamp, step):
        assert timestamp > 1e12  # milliseconds
        self.key, self.value, self.step = key, value, step
class Param:
    def __init__(self, key, value):
        self.key, self.value = key, value
class MlflowClient:
    runs = {}
    def get_experiment_by_name(self, name):
        return None
    def create_experiment(self, name):
        return name
    def search_runs(self, experiment_ids, filter_string=""):
        tag = filter_string.removeprefix("tags.`lreg.run` = ").strip("'")
        return [Namespace(info=Namespace(run_id=tag))] if tag in self.runs else []
    def create_run(self, experiment_id, start_time=None, tags=None, run_name=None):
        self.runs[tags["lreg.run"]] = run_name
        tell(remote=tags["lreg.run"], project=experiment_id, name=run_name)
        return Namespace(info=Namespace(run_id=tags["lreg.run"]))
    def update_run(self, run_id, status=None, name=None):
        tell(remote=run_id, project="lreg", name=self.runs[run_id])
    def log_batch(self, run_id, metrics=(), params=(), tags=()):
        assert len(params) <= 100 and all(len(param.value) <= 500 for param in params)
        if metrics:
            fail_at(metrics[0].step)
            tell(remote=run_id, step=metrics[0].step, **{metric.key: metric.value for metric in metrics})
    def set_terminated(self, run_id, status=None, end_time=None):
        tell(remote=run_id, end=status)
for name, classes in {"entities": (Metric, Param), "tracking": (MlflowClient,)}.items():
    module = sys.modules["mlflow." + name] = types.ModuleType("mlflow." + name)
    vars(module).update({one.__name__: one for one in classes})
"""
STAND_INS = {"wandb": WANDB, "trackio": TRACKIO, "mlflow": MLFLOW}


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """Stand-ins on the path; call it for what they were told."""
    folder = tmp_path / "site"
    folder.mkdir()
    for name, code in STAND_INS.items():
        (folder / f"{name}.py").write_text(TELL + code)
    forget()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{ROOT}")
    monkeypatch.setenv("STAND_IN", str(tmp_path / "told.jsonl"))
    monkeypatch.setenv(loggers.VARIABLE, "")
    for name in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)

    def told() -> list[dict]:
        return [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]

    yield told
    forget()


def forget() -> None:
    """The modules of that name, real or not, and what has imported them."""
    for module in list(sys.modules):
        if module.split(".")[0] in STAND_INS:
            del sys.modules[module]


def write(run: Run, *steps: int, state: str = "finished") -> None:
    with run, logged(run):
        for step in steps:
            run.append([{"step": step, "meta_loss": 1.0 / step, "skipped": 0}])
        run.set_status(state=state)


@pytest.mark.parametrize("name", loggers.LOGGERS)
def test_a_resumed_run_goes_on_with_the_same_remote_run(name, remote, tmp_path):
    run = Run.create(tmp_path / "runs", preset())
    loggers.use([name])
    write(run, 1, 2, state="stopped")
    write(Run(run.path), 3)
    told = remote()
    assert {item["remote"] for item in told} == {run.id}
    assert [(item["step"], item["meta_loss"], item["skipped"]) for item in told if "step" in item] == [
        (1, 1.0, 0),
        (2, 0.5, 0),
        (3, 1 / 3, 0),
    ]
    begun = [item for item in told if "project" in item]
    assert [(item["project"], item["name"]) for item in begun] == [("lreg", preset().name)] * 2
    assert len([item for item in told if "end" in item]) == 2 and told[-1]["end"] == "FINISHED"


@pytest.mark.parametrize("name", loggers.LOGGERS)
def test_one_that_fails_is_a_line_in_the_log_and_the_run_goes_on(name, remote, tmp_path, monkeypatch):
    monkeypatch.setenv("STAND_IN_FAILS_AT", "2")
    run = Run.create(tmp_path / "runs", preset())
    loggers.use([name, "wandb" if name != "wandb" else "trackio"])
    write(run, 1, 2, 3)
    lines = [line for line in (run.path / "log.txt").read_text().splitlines() if "gets no more" in line]
    assert len(lines) == 2 and all("ConnectionError: the server is gone" in line for line in lines)
    assert [item["step"] for item in remote() if "step" in item] == [1, 1]
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) == 3


def test_one_that_hangs_holds_nothing_up():
    lines: list[str] = []
    go_on = threading.Event()

    class Hanging:
        def log(self, step, metrics):
            go_on.wait(60)

    sender = Sender("wandb", Hanging, lines.append)  # type: ignore[arg-type]
    sender.take([{"step": 1, "meta_loss": 1.0}])
    sender.end("finished", limit_s=0.05)
    go_on.set()
    assert lines[1:] == ["wandb gets no more of this run: it did not take the last records within 0.05 s"]


def lreg(folder: Path, *arguments: str, run: Any = subprocess.run) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lreg_tui.cli.app", *arguments]
    return run(command, cwd=folder, capture_output=True, text=True)


TINY = ["run", "quickstart", "--set", "meta.epochs=2", "--set", "evaluation.final_optimizees=0", "--device", "cpu"]


def test_lreg_run_sends_all_records_and_stdout_stays_json(remote, tmp_path, forked):
    options = (option for name in ("wandb", "mlflow", "trackio") for option in ("--log-to", name))
    done = lreg(tmp_path, *TINY, "--json", *options, run=zygote.run)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    records = [line for line in lines if line["event"] == "record"]
    sent = [item for item in remote() if "step" in item]
    assert records and len(sent) == 3 * len(records)
    values = sorted((item["step"], item["meta_loss"]) for item in sent if "meta_loss" in item)
    assert values == sorted((item["step"], item["meta_loss"]) for item in records if "meta_loss" in item for _ in "123")
    (path,) = (tmp_path / "runs").glob("2*")
    assert json.loads((path / "run.json").read_text())["log_to"] == ["wandb", "mlflow", "trackio"]


def test_a_missing_package_is_one_line_before_there_is_a_run(tmp_path, monkeypatch):
    absent = next((name for name in loggers.LOGGERS if importlib.util.find_spec(name) is None), None)
    if absent is None:
        pytest.skip("all of them are installed")
    for variable, option in (("", ["--log-to", absent]), (absent, [])):
        monkeypatch.setenv(loggers.VARIABLE, variable)
        (tmp_path / absent).mkdir(exist_ok=True)  # as wandb leaves one where it was used
        done = lreg(tmp_path, *TINY, *option)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and f"pip install {absent}" in done.stderr
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", loggers.LOGGERS)
def test_the_package_itself(name, tmp_path, monkeypatch):
    pytest.importorskip(name)
    for variable, value in {"WANDB_MODE": "offline", "WANDB_DIR": "", "TRACKIO_DIR": "t"}.items():
        monkeypatch.setenv(variable, str(tmp_path / value) if variable != "WANDB_MODE" else value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv(loggers.VARIABLE, name)
    run = Run.create(tmp_path / "runs", preset())
    write(run, 1, 2, state="stopped")
    write(Run(run.path), 3)
    assert "gets no more" not in (run.path / "log.txt").read_text()
