"""Members from outside the package: in a file that is named, or in a package that is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zygote

from engine.base import plugins
from engine.base.errors import LregError
from engine.presets import catalog as catalogs
from engine.runs.store import RunReader

ROOT = Path(__file__).parent.parent
MEMBERS = '''
import torch
from engine.base.settings import setting
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS
from engine.optimizers.learned.simple import Simple
from engine.penalties.base import PENALTIES, GeometricPenalty
from engine.tasks.datasets.base import DATASETS, Dataset, RawData
from engine.tasks.optimizees.base import OPTIMIZEES
from engine.tasks.optimizees.mlp import MLP
from engine.meta_training.estimators.tbptt import TBPTT
from engine.meta_training.estimators import ESTIMATORS
from engine.terms import TERMS, Term


@TERMS.register("mean-parameter")
class MeanParameter(Term):
    """The mean of the parameters."""

    def measure(self, task, theta):
        return theta.mean(-1)


@ESTIMATORS.register("tbptt-again")
class Again(TBPTT):
    """An estimator by another name."""


@PENALTIES.register("squared-loss")
class SquaredLoss(GeometricPenalty):
    """The square of the loss."""

    power: float = setting(2.0, minimum=1.0, help="of the loss")

    def at(self, loss, theta, value, gradient):
        return value**2, 2 * value * gradient


@DATASETS.register("blobs")
class Blobs(Dataset):
    """Two clouds of points."""

    classes = 2
    input_shape = (1, 2, 2)
    mean = (0.5,)
    std = (0.25,)

    def read(self, folder):
        y = torch.arange(200) % 2
        x = (torch.randint(0, 100, (200, 1, 2, 2)) + 100 * y[:, None, None, None]).to(torch.uint8)
        return RawData(x[:150], y[:150], x[150:], y[150:])


@OPTIMIZEES.register("mlp-again")
class TanhMLP(MLP):
    """A perceptron by another name."""


@LEARNED_OPTIMIZERS.register("simple-again")
class SimpleAgain(Simple):
    """A learned optimizer by another name."""
'''
PRESET = """
extends = "quickstart"
[task]
dataset = "blobs"
optimizee = "mlp-again"
[optimizer]
kind = "simple-again"
[penalty.squared-loss]
[meta]
epochs = 1
inner_steps = 20
[evaluation]
examples = 20
optimizees = 1
final_optimizees = 1
restarts = 1
ascent_steps = 1
"""


def lreg(folder: Path, *arguments: str, run: Any = subprocess.run, **environment: str) -> Any:
    """The command line in a process of its own, with a cache and a working folder of its own."""
    paths = os.pathsep.join(filter(None, [environment.pop("PYTHONPATH", ""), str(ROOT)]))
    own = {"PYTHONPATH": paths, "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    own["LREG_KERNELS"] = "plain"  # compiled ones would have to be made for that cache
    code = "import sys; sys.argv[0] = 'lreg'; from lreg_tui.cli.app import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *arguments]
    environment = {**os.environ, **own, **environment}
    return run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def quick(forked):
    """The same, forked from a process that has imported torch."""
    return partial(lreg, run=zygote.run)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "mine.py").write_text(MEMBERS)
    (folder / "mine.toml").write_text(PRESET)
    return folder


def install(site: Path) -> str:
    """A distribution as pip lays it out, with one package and an entry point. Returns the PYTHONPATH that has it."""
    (site / "my_members").mkdir(parents=True)
    (site / "my_members" / "__init__.py").write_text(MEMBERS)
    (site / "my_members-1.0.dist-info").mkdir()
    (site / "my_members-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: my-members\nVersion: 1.0\n"
    )
    (site / "my_members-1.0.dist-info" / "entry_points.txt").write_text("[lreg.plugins]\nmine = my_members\n")
    return str(site)


def test_a_run_with_members_of_a_file_and_its_resumption(quick, folder):
    """All four kinds at once; the run notes the file; without it resume says what is missing, with it nothing is."""
    done = quick(folder, "run", "mine.toml", "--plugin", "mine.py", "--runs-dir", "runs", "--detach")
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "runs").glob("2*-mine-*")
    assert quick(folder, "watch", "last", "--runs-dir", "runs").returncode == 0
    reader = RunReader(path)
    assert reader.status().state == "finished", reader.status()
    (noted,) = reader.facts["plugins"]
    assert noted["name"] == str(folder / "mine.py") and len(noted["sha256"]) == 64
    look_at_with_and_without(partial(quick, folder), "mine.py")
    facts = json.loads((path / "status.json").read_text())
    (path / "status.json").write_text(json.dumps({**facts, "state": "stopped"}))

    without = quick(folder, "resume", "last", "--runs-dir", "runs")
    assert without.returncode == 2 and "Traceback" not in without.stderr
    assert f"it used the plug-in {folder / 'mine.py'}, which is not in use now" in without.stderr
    again = quick(folder, "resume", "last", "--runs-dir", "runs", LREG_PLUGINS="mine.py")
    assert again.returncode == 0 and "plug-in" not in again.stderr, again.stderr
    check = quick(folder, "preset", "check", "mine.toml")  # what a plug-in brings is not kept for who has none
    assert check.returncode == 2 and 'task.dataset: found "blobs"' in check.stderr


def look_at_with_and_without(run: Any, plugin: str) -> None:
    """Commands that look at a run know its members where the plug-in is named, and else say which are unknown."""

    def told(*arguments: str, named: bool = True) -> Any:
        return run(*arguments, *(["--plugin", plugin] if named else []), "--runs-dir", "runs", "--json")

    export = ("export", "last", "--to", "safetensors")
    refused = told(*export, named=False)
    assert refused.returncode == 2 and 'optimizer.kind: found "simple-again"' in refused.stderr
    assert "used the plug-in" in refused.stderr
    exported = told(*export)
    assert exported.returncode == 0 and "plug-in" not in exported.stderr
    assert "squared-loss" in json.loads(told("show", "last", named=False).stdout)["preset_problem"]
    facts = json.loads(told("show", "last").stdout)
    assert facts["preset_problem"] is None and facts["preset"]["task.dataset"] == "blobs"
    for named, word in ((False, "blobs"), (True, "")):
        (arm,) = json.loads(told("compare", "last", named=named).stdout)["arms"]
        assert word in (arm["problem"] or "") and bool(arm["problem"]) is not named
    assert any(item["what"] == "of plug-ins" for item in map(json.loads, told("doctor").stdout.splitlines()))


def test_what_a_member_raises_while_it_trains_is_one_line_and_its_traceback_is_in_the_log(quick, folder):
    failing = MEMBERS + "\n    def observe(self, theta, grad, state):\n        raise KeyError('a\\nb')\n"
    (folder / "failing.py").write_text(failing)
    done = quick(folder, "run", "mine.toml", "--plugin", "failing.py", "--runs-dir", "failed")
    (path,) = (folder / "failed").iterdir()
    told = f"error: KeyError: 'a\\nb' (its traceback is in the log: lreg logs {path.name})\n"
    assert (done.returncode, done.stderr) == (1, told)
    assert RunReader(path).status().state == "failed" and "failing.py" in (path / "log.txt").read_text()


def test_members_of_an_installed_package_are_everywhere(quick, folder, tmp_path):
    site = install(tmp_path)
    check = quick(folder, "preset", "check", "mine.toml", PYTHONPATH=site)
    assert (check.returncode, check.stdout) == (0, "mine.toml: ok\n"), check.stderr
    listed = [json.loads(line) for line in quick(folder, "presets", "--json", PYTHONPATH=site).stdout.splitlines()]
    assert {"plugin_member": "squared-loss", "family": "penalties"} in listed
    assert len([item for item in listed if "plugin_member" in item]) == 6
    doctor = [json.loads(line) for line in quick(folder, "doctor", "--json", PYTHONPATH=site).stdout.splitlines()]
    (brought,) = [item["found"] for item in doctor if item["what"] == "of plug-ins"]
    assert "estimators: tbptt-again" in brought and "terms: mean-parameter" in brought
    (plugin,) = [item for item in doctor if item["what"] == "plug-in"]
    assert "my_members (installed: mine)" in plugin["found"] and not plugin["problem"]
    completion = {"_LREG_COMPLETE": "complete_bash", "COMP_WORDS": "lreg transfer x --to blobs/", "COMP_CWORD": "4"}
    complete = quick(folder, PYTHONPATH=site, **completion)
    assert "blobs/mlp-again" in complete.stdout


OF_NO_CLASS = "from engine.penalties.base import PENALTIES\n@PENALTIES.register('mine')\nclass Mine: pass"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("nowhere.py", None, "no such file"),
        ("no_such_module", None, "No module named 'no_such_module'"),
        ("not a module", None, "a Python file, or a module's name"),
        ("broken.py", "1 +", "SyntaxError"),
        ("raises.py", "raise OSError('a\\nb')", "OSError: a b"),
        ("program.py", "raise SystemExit(0)", "SystemExit: 0"),
        ("no_penalty.py", OF_NO_CLASS, "'mine' is registered as penalty, and is no class of Penalty"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_one_line(name, content, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LREG_PLUGINS", "")
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(LregError) as caught:
        plugins.use([name])
        plugins.load()
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("command", [("preset", "check"), ("run",)])
def test_a_plugin_that_takes_the_name_of_a_member_is_refused_by_every_command(quick, folder, command):
    (folder / "twice.py").write_text(MEMBERS.replace("squared-loss", "sam"))
    done = quick(folder, *command, "quickstart", "--plugin", "twice.py")
    assert done.returncode == 2 and "two penalty classes are registered as 'sam'" in done.stderr
    assert done.stderr.startswith("error: plug-in ") and done.stderr.count("\n") == 1


def test_the_console_asks_the_same_catalog(folder, monkeypatch, forked):
    """It has no torch, so a child lists the members; a file that is edited is asked again."""
    monkeypatch.setenv("LREG_PLUGINS", str(folder / "mine.py"))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    power = catalogs.load().penalties["squared-loss"][-1]
    assert (power.name, power.describe()) == ("power", "a number >= 1")
    assert catalogs.added()["datasets"] == ["blobs"]
    (folder / "mine.py").write_text(MEMBERS.replace("blobs", "clouds"))
    assert "clouds" in catalogs.load().datasets
    (folder / "mine.py").write_text(MEMBERS)
