"""Exports read back by the tools that they are for."""

from __future__ import annotations

import csv
import json
import os

import pytest
import safetensors.torch
import torch
from fakes import preset
from torch import nn

from engine.base.errors import LregError, RunError
from engine.export.optimizer import export_optimizer, load_exported
from engine.export.tables import cell, export_csv, export_tensorboard
from engine.export.torch_optim import LoadedOptimizer, load_optimizer
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS
from engine.presets.preset import from_mapping
from engine.runs import checkpoint as checkpoints
from engine.runs.reader import RunReader
from engine.runs.writer import Run

HOSTILE = "=HYPERLINK(1)"


@pytest.fixture
def run(tmp_path):
    """A run of `simple` with a checkpoint, metrics and a transfer evaluation."""
    made = Run.create(tmp_path / "runs", from_mapping({"name": "small", "optimizer": {"kind": "simple", "hidden": 3}}))
    rule = LEARNED_OPTIMIZERS.create("simple", hidden=3)
    phi = rule.init_phi(torch.Generator().manual_seed(5))
    checkpoints.save(made.path / "checkpoint", "best", {f"frozen/{k}": v for k, v in phi.items()}, {})
    with made:
        made.append([{"step": 1, "meta_loss": 0.1 + 0.2}, {"step": 2, "meta_loss": float("nan"), HOSTILE: 1}])
        made.append([{"step": 2, "validation_loss": 0.25}])
        made.write_transfer("a", evaluation())
    return RunReader(made.path)


def evaluation() -> dict:
    mark = {"inner_step": 20, "train_loss": 0.5, "top_eigenvalue": None, "sharpness": {"0.01": 1e-3, "0.1": -2.0}}
    seed = {
        "seed": 0,
        "diverged": False,
        "mean_loss": 0.7,
        "curve": {"inner_step": [0, 20], "train_loss": [2.3, 0.5]},
        "marks": [mark, "broken"],
    }
    task = {"dataset": "mnist", "optimizee": "mlp", "batch_size": 64}
    return {"run": "x", "optimizer": "simple", "label": HOSTILE, "scale": 1.4, "task": task, "seeds": [seed, 3]}


def take_a_step(optimizer_of) -> torch.Tensor:
    parameter = nn.Parameter(torch.linspace(-1, 1, 7))
    optimizer = optimizer_of([parameter])
    for _ in range(3):
        optimizer.zero_grad()
        (parameter**3).sum().backward()
        optimizer.step()
    return parameter.detach()


def test_an_exported_optimizer_steps_as_its_run_does(run, tmp_path):
    facts = export_optimizer(run, tmp_path / "o.safetensors", scale=1.4)
    rule, phi, found = load_exported(tmp_path / "o.safetensors")
    expected = take_a_step(lambda parameters: load_optimizer(run, parameters, scale=1.4))
    assert torch.equal(take_a_step(lambda p: LoadedOptimizer(p, rule, phi, scale=found["scale"])), expected)
    assert found == facts
    assert (found["run"], found["checkpoint"], found["optimizer"]["hidden"]) == (run.id, "best", 3)
    (tmp_path / "again.toml").write_text(found["preset"])
    from engine.presets.preset import load_preset

    assert load_preset(tmp_path / "again.toml").values == run.preset().values


def test_load_optimizer_takes_an_export_with_its_scale(run, tmp_path):
    """The scale in the file counts, times the one that is asked for; "best" takes the file's alone."""
    path = tmp_path / "optimizer.safetensors"
    export_optimizer(run, path, scale=1.5)
    scales = {}
    for asked in (1.0, 2.0, "best"):
        optimizer = load_optimizer(path, nn.Linear(2, 2).parameters(), scale=asked)
        scales[asked] = optimizer.param_groups[0]["scale"]
    assert scales == {1.0: 1.5, 2.0: 3.0, "best": 1.5}


@pytest.mark.parametrize("asked", ["last", "initial", "nonsense"])
def test_an_export_holds_one_checkpoint(run, tmp_path, asked):
    path = tmp_path / "optimizer.safetensors"
    export_optimizer(run, path)
    load_optimizer(path, nn.Linear(2, 2).parameters(), checkpoint="best")
    with pytest.raises(RunError, match=f"checkpoint 'best' alone, found '{asked}'"):
        load_optimizer(path, nn.Linear(2, 2).parameters(), checkpoint=asked)


@pytest.mark.parametrize("scale", [True, "bset", 0, None])
def test_a_scale_that_is_none_is_refused_also_for_an_export(run, tmp_path, scale):
    path = tmp_path / "optimizer.safetensors"
    export_optimizer(run, path, scale=1.5)
    for source in (run, path):
        with pytest.raises(ValueError, match="scale must be a number > 0"):
            load_optimizer(source, nn.Linear(2, 2).parameters(), scale=scale)


def test_an_export_is_the_same_file_every_time(run, tmp_path):
    export_optimizer(run, tmp_path / "a")
    export_optimizer(run, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    header = (tmp_path / "a").read_bytes()
    names = list(json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"])
    assert names == sorted(names)  # safetensors alone would give another order in every process


def damaged_files(folder, run):
    """Name, content and a word of the complaint."""
    export_optimizer(run, folder / "good")
    good = (folder / "good").read_bytes()
    with safetensors.safe_open(folder / "good", framework="pt") as file:
        texts = file.metadata()
    _, phi, _ = load_exported(folder / "good")
    save = safetensors.torch.save
    one = {**phi, "head.weight": phi["head.weight"][:1]}
    infinite = {**phi, "head.weight": phi["head.weight"] / 0}
    other = json.dumps({"kind": "nobody"})
    return {
        "cut": (good[:-5], "damaged"),
        "empty": (b"", "damaged"),
        "pickle": (b"\x80\x04\x95" + b"\x00" * 50, "damaged"),
        "huge header": ((2**62).to_bytes(8, "little") + b"{}", "damaged"),
        "foreign": (save(phi), "no learned optimizer"),
        "checkpoint": ((run.path / "checkpoint" / "best.safetensors").read_bytes(), "no learned optimizer"),
        "newer": (save(phi, {**texts, "version": "99"}), "version '99'"),
        "lacking": (save(phi, {k: v for k, v in texts.items() if k != "scale"}), "no scale"),
        "scale": (save(phi, {**texts, "scale": "nan"}), "scale"),
        "table": (save(phi, {**texts, "optimizer": "[" * 5000}), "cannot be read"),
        "list": (save(phi, {**texts, "optimizer": "[1]"}), "cannot be read"),
        "unknown kind": (save(phi, {**texts, "optimizer": other}), "nobody"),
        "shapes": (save(one, texts), "do not fit"),
        "infinite": (save(infinite, texts), "head.weight"),
        "types": (save({name: tensor.half() for name, tensor in phi.items()}, texts), "float32"),
    }


def test_a_damaged_or_foreign_file_is_one_clear_line(run, tmp_path):
    for name, (content, word) in damaged_files(tmp_path, run).items():
        path = tmp_path / f"{name}\x1b[31m"
        path.write_bytes(content)
        with pytest.raises(RunError, match=word) as caught:
            load_exported(path)
        assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value), name


def test_what_is_no_file_is_one_clear_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # must not wait for somebody who writes
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "pipe"):
        with pytest.raises(RunError, match="cannot be read"):
            load_exported(path)


def test_metrics_and_transfers_come_back_from_csv(run, tmp_path):
    assert export_csv(run, tmp_path / "out") == {"metrics.csv": 3, "machine.csv": 0, "transfers.csv": 8}
    with open(tmp_path / "out" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "2"]
    assert [row["meta_loss"] for row in rows] == ["0.30000000000000004", "", ""]  # every digit; null and absent: empty
    assert rows[2]["validation_loss"] == "0.25" and float(rows[0]["t"]) > 1e9
    assert rows[1][f"'{HOSTILE}"] == "1"  # a column whose name a spreadsheet would run
    with open(tmp_path / "out" / "transfers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["task"], row["label"], row["scale"]) for row in rows} == {
        ("mnist/mlp batch_size=64", f"'{HOSTILE}", "1.4")
    }
    values = {(row["inner_step"], row["figure"], row["radius"]): row["value"] for row in rows}
    assert values == {
        ("", "diverged", ""): "0",
        ("", "mean_loss", ""): "0.7",
        ("0", "train_loss_curve", ""): "2.3",
        ("20", "train_loss_curve", ""): "0.5",
        ("20", "train_loss", ""): "0.5",
        ("20", "top_eigenvalue", ""): "",
        ("20", "sharpness", "0.01"): "0.001",
        ("20", "sharpness", "0.1"): "-2.0",  # a number, not a formula
    }


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text):
    assert cell(text).startswith("'") and cell(text).isprintable()


def test_numbers_and_plain_text_stay_as_they_are():
    assert [cell(value) for value in (-1.5, -2, None, float("inf"), "a-b", True)] == [
        "-1.5",
        "-2",
        "",
        "",
        "a-b",
        "True",
    ]


def test_event_files_come_back_with_steps_and_times(run, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    written = export_tensorboard(run, tmp_path / "events")
    assert written == {"meta_loss": 2, HOSTILE: 1, "validation_loss": 1}
    found = accumulator.EventAccumulator(str(tmp_path / "events")).Reload()
    assert set(found.Tags()["scalars"]) >= {"meta_loss", "validation_loss"}
    first, second = found.Scalars("meta_loss")
    times = run.columns["meta_loss"].times
    assert (first.step, second.step) == (1, 2) and (first.wall_time, second.wall_time) == (times[0], times[1])
    assert first.value == pytest.approx(0.3) and second.value != second.value
    (text,) = found.Tensors("preset/text_summary")
    assert b"hidden = 3" in text.tensor_proto.string_val[0]


def test_a_step_has_one_value_in_event_files(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = Run.create(tmp_path / "runs", from_mapping({"name": "small"}))
    with run:
        run.append([{"step": 2, "meta_epoch": 1, "meta_loss": 3.0}, {"step": 2, "meta_epoch": 1, "test_loss": 2.0}])
        run.append([{"step": 4, "meta_epoch": 2}, {"step": 2, "meta_epoch": 5}])
    assert export_tensorboard(RunReader(run.path), tmp_path / "events")["meta_epoch"] == 2
    events = accumulator.EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("meta_epoch")] == [(2, 5.0), (4, 2.0)]


def test_without_tensorboard_it_says_how_to_get_it(run, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(LregError, match="pip install tensorboard"):
        export_tensorboard(run, tmp_path / "events")
    assert not (tmp_path / "events").exists()


@pytest.mark.parametrize("export", [export_optimizer, export_csv, export_tensorboard])
def test_nothing_is_overwritten_unless_that_is_asked_for(run, tmp_path, export):
    target = tmp_path / "target"
    export(run, target)
    before = sorted(path.name for path in target.iterdir()) if target.is_dir() else target.read_bytes()
    with pytest.raises(LregError, match="--force"):
        export(run, target)
    with pytest.raises(LregError, match="no folder"):
        export(run, tmp_path / "nowhere" / "target")
    export(run, target, force=True)
    assert before == target.read_bytes() if target.is_file() else len(list(target.iterdir())) == len(before)
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.parametrize("export", [export_optimizer, export_csv, export_tensorboard])
def test_force_never_removes_a_folder_that_holds_anything_else(run, tmp_path, export):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(LregError):
        export(run, tmp_path / "mine", force=True)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"


def test_a_failure_leaves_nothing_behind(run, tmp_path, monkeypatch):
    monkeypatch.setattr(RunReader, "transfers", lambda self: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(LregError, match="No space left"):
        export_csv(run, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_a_run_without_checkpoint_or_records_is_no_trouble(tmp_path):
    run = RunReader(Run.create(tmp_path, preset()).path)
    assert export_csv(run, tmp_path / "out") == {"metrics.csv": 0, "machine.csv": 0, "transfers.csv": 0}
    with pytest.raises(RunError, match="no such checkpoint"):
        export_optimizer(run, tmp_path / "o")
    with pytest.raises(ValueError, match="scale"):
        export_optimizer(run, tmp_path / "o", scale=0.0)
