"""Backbones: their training goes on where it stopped, features are computed once, and another's is never used."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

from engine.base.errors import DataError, PresetError, RunError
from engine.jobs import backbone_training as trainings
from engine.jobs.backbone_training import TrainingSettings, backbones_of
from engine.presets.preset import from_mapping
from engine.tasks.backbones import kept
from engine.tasks.backbones.networks import FourConvolutions, WideResNet
from engine.tasks.datasets import base as datasets
from engine.tasks.datasets.digits import DigitsEpisodes
from engine.tasks.episodes import ImagesByClass, prototype_accuracy
from engine.tasks.table import build_task

CPU = torch.device("cpu")
TABLE = {"dataset": "digits-episodes", "backbone": "conv4-64", "optimizee": "cosine", "queries": 5}
SETTINGS = TrainingSettings(epochs=3, batch_size=32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder with few digits: 25 of each."""
    whole = DigitsEpisodes.read_classes

    def few(dataset, folder):
        data = whole(dataset, folder)
        splits = {split: {name: rows[:25] for name, rows in classes.items()} for split, classes in data.splits.items()}
        return ImagesByClass(data.images, splits)

    monkeypatch.setattr(DigitsEpisodes, "read_classes", few)
    monkeypatch.setattr(trainings, "EPISODES", 5)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    forget()
    yield tmp_path / "data"
    forget()


def forget() -> None:
    """As a new process begins."""
    datasets._in_memory.clear()


def data_of(folder, **values) -> trainings.BackboneData:
    return backbones_of(from_mapping({"task": {**TABLE, **values}}), folder, CPU)[0]


def train(data, stop_before: int | None = None, settings=SETTINGS, **how) -> list[dict]:
    """Train, and be asked to stop before a batch."""
    asked = iter(range(10**6))
    return list(trainings.train(data, settings, lambda: next(asked) == stop_before, **how))


def test_training_goes_on_from_any_batch_as_if_it_had_not_stopped(folder):
    data = data_of(folder)
    told = train(data)
    assert [one["epoch"] for one in told] == [1, 2, 3] and told[-1]["train_loss"] < told[0]["train_loss"]
    path = data.file.find()
    whole, facts = kept.load(path)
    assert path.parent == folder / "backbones" and facts["validation_accuracy"] > 0.5
    assert facts["validation_accuracy"] == max(one["validation_accuracy"] for one in told)
    path.unlink()
    before = torch.get_rng_state()
    assert [one["epoch"] for one in train(data, stop_before=6)] == [1]  # of 4 batches each
    assert data.file.find() is None and data.file.find(trainings.CHECKPOINT)
    resumed = train(data)
    assert torch.equal(torch.get_rng_state(), before)
    parts, facts_again = kept.load(data.file.find())
    assert facts_again == facts and [one["epoch"] for one in resumed] == [2, 3]
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
    strip = [{key: value for key, value in one.items() if key != "seconds"} for one in (*told[1:], *resumed)]
    assert strip[:2] == strip[2:]
    assert data.file.find(trainings.CHECKPOINT) is None


def test_a_checkpoint_of_other_settings_is_not_gone_on_from_unless_forced(folder):
    data = data_of(folder)
    train(data, stop_before=2)
    with pytest.raises(RunError, match='was begun with other settings.*"seed": 0.*--force') as caught:
        train(data, settings=replace(SETTINGS, seed=1))
    assert "\n" not in str(caught.value)
    assert len(train(data, settings=replace(SETTINGS, seed=1), force=True)) == 3
    with pytest.raises(RunError, match="another process trains"), kept_lock(data):
        train(data, force=True)


def kept_lock(data):
    return trainings.lock(data.file.to_write(trainings.LOCK))


def test_the_learning_rate_warms_up_and_falls_once(folder):
    training = trainings.BackboneTraining(data_of(folder), TrainingSettings(epochs=120, batch_size=32))
    rates = []
    for step in range(120 * training.batches):
        training.step = step
        rates.append(training.learning_rate())
    assert training.batches == 4 and rates[:20] == pytest.approx([0.1 * step / 20 for step in range(1, 21)])
    assert set(rates[20:200]) == {0.1} and rates[200:] == pytest.approx([0.01] * 280)


def test_a_task_needs_its_backbone_and_then_has_features_that_are_computed_once(folder, monkeypatch):
    with pytest.raises(DataError, match="no backbone conv4-64 of these images in .*: `lreg backbone PRESET` trains it"):
        build_task(TABLE, data_dir=folder, device=CPU)
    data = data_of(folder)
    train(data)
    calls = []
    compute = kept.features_of
    monkeypatch.setattr(kept, "features_of", lambda *given: calls.append(1) or compute(*given))
    task = build_task(TABLE, data_dir=folder, device=CPU).of([1, 2])
    assert task.facts["backbone"] == "conv4-64" and task.layout.shapes["weight"] == (2, 64)
    network = kept.load_backbone(data.file.find(), "conv4-64", (1, 8, 8), CPU)
    pixels = data.to_input(data.images.images[task.positions("test")[1]])
    expected = network(pixels).detach()
    torch.testing.assert_close(task.query_inputs(torch.float32)[1], expected / expected.norm(dim=1, keepdim=True))
    forget()
    again = build_task(TABLE, data_dir=folder, device=CPU).of([1, 2])
    assert len(calls) == 1 and torch.equal(again.query_inputs(torch.float32), task.query_inputs(torch.float32))
    assert prototype_accuracy(task).shape == (2,)
    first = kept.load(data.file.find("-features.safetensors"))[0]["features"]
    train(data, settings=replace(SETTINGS, seed=3), force=True)
    calls.clear()
    forget()
    build_task(TABLE, data_dir=folder, device=CPU)
    assert len(calls) == 1  # of another backbone
    assert not torch.equal(kept.load(data.file.find("-features.safetensors"))[0]["features"], first)


def test_a_backbone_of_other_data_settings_or_architecture_is_not_used(folder, monkeypatch):
    data = data_of(folder)
    train(data, settings=replace(SETTINGS, epochs=1))
    for values in ({"normalize": "unit"}, {"backbone": "wrn-28-10"}):
        with pytest.raises(DataError, match="no backbone"):
            build_task({**TABLE, **values}, data_dir=folder, device=CPU)
    assert data_of(folder, shots=3).file == data.file
    forget()
    few = DigitsEpisodes.read_classes

    def fewer(dataset, folder):
        images = few(dataset, folder)
        splits = {**images.splits, "train": {**images.splits["train"], "0": images.splits["train"]["0"][:-1]}}
        return ImagesByClass(images.images, splits)

    monkeypatch.setattr(DigitsEpisodes, "read_classes", fewer)
    with pytest.raises(DataError, match="no backbone"):
        build_task(TABLE, data_dir=folder, device=CPU)


def test_damaged_files_are_one_line(folder):
    data = data_of(folder)
    train(data, settings=replace(SETTINGS, epochs=1))
    path = data.file.find()
    good = path.read_bytes()
    for bad in (good[:100], b"nothing", good.replace(b"layers.0.weight", b"layers.9.weight")):
        path.write_bytes(bad)
        with pytest.raises(DataError, match="safetensors: ") as caught:
            build_task(TABLE, data_dir=folder, device=CPU)
        assert "\n" not in str(caught.value)


def test_beside_read_only_data_backbones_are_kept_in_the_users_cache(folder, tmp_path):
    folder.chmod(0o555)  # which would not keep root from writing
    data = data_of(folder)
    assert data.file.to_write().parent == tmp_path / "cache" / "lreg" / "backbones"
    assert not (folder / "backbones").exists()
    folder.chmod(0o755)
    assert data.file.to_write().parent == folder / "backbones"


@pytest.mark.parametrize("task", [{}, {"dataset": "digits-episodes"}])
def test_a_preset_without_a_backbone_is_refused(folder, task):
    with pytest.raises(PresetError, match='task.backbone: found "none"; allowed: conv4-64 or wrn-28-10, with a'):
        backbones_of(from_mapping({"task": task}), folder, CPU)


def test_an_optimizee_that_takes_no_features_is_refused_before_training(folder):
    with pytest.raises(PresetError, match="task.optimizee"):
        train(data_of(folder, optimizee="conv4"))


def test_the_networks_are_those_of_the_papers_and_judge_an_image_alone():
    assert FourConvolutions((3, 32, 32)).features == 256 and FourConvolutions((3, 84, 84)).features == 1600
    with torch.device("meta"):
        whole = WideResNet((3, 32, 32))
    assert whole.features == 640 and sum(p.numel() for p in whole.parameters()) == 36_479_194 - 6_410  # less its head
    assert sum(isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (3, 3) for layer in whole.modules()) == 25
    small = WideResNet((3, 16, 16), depth=10, widening=1).eval()
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(small(x)[:1], small(x[:1]))
    assert small(x).shape == (4, 64)


def test_colour_images_are_cropped_and_flipped_and_grey_ones_are_not(folder, monkeypatch):
    shapes = []
    monkeypatch.setattr(trainings, "crop_and_flip", lambda images, numbers: shapes.append(numbers.shape) or images)
    training = trainings.BackboneTraining(data_of(folder), SETTINGS)
    training._take_step()
    assert not shapes
    grey = training.data
    coloured = replace(grey.images, images=grey.images.images.expand(-1, 3, -1, -1))
    described = replace(grey.dataset, mean=grey.dataset.mean * 3, std=grey.dataset.std * 3)
    trainings.BackboneTraining(replace(grey, images=coloured, dataset=described), SETTINGS)._take_step()
    assert shapes == [(32, 3)]


def test_the_command_trains_once_and_tells_where(folder, lreg_backbone):
    code, out, err = lreg_backbone("--epochs", "2")
    path = data_of(folder).file.find()
    assert code == 0 and os.path.basename(path)[:20] in out and "2" in out and "epoch 2/2" in err
    code, out, err = lreg_backbone("--epochs", "2", "--json")
    assert code == 0 and "is kept already; --force trains it anew" in err and '"validation_accuracy"' in out


def test_the_command_stops_with_a_checkpoint_and_refuses_bad_input(folder, lreg_backbone, monkeypatch):
    from engine.base.control import Control

    asked = iter(range(100))
    flag = property(lambda self: next(asked) >= 5, lambda self, value: None)
    monkeypatch.setattr(Control, "stop", flag, raising=False)
    code, _, err = lreg_backbone("--epochs", "3")
    assert code == 130 and "the same command goes on" in err and data_of(folder).file.find(trainings.CHECKPOINT)
    monkeypatch.undo()
    code, out, err = lreg_backbone("--epochs", "0")
    assert (code, out) == (2, "") and "--epochs" in err and "Traceback" not in err


@pytest.fixture
def lreg_backbone(folder, tmp_path, monkeypatch, capsys):
    """`lreg backbone PRESET ...` in this process: exit code, stdout, stderr."""
    from lreg_tui.cli import commands

    lines = [f"{key} = {value!r}" for key, value in TABLE.items()]
    (tmp_path / "few.toml").write_text("\n".join(["[task]", *lines]).replace("'", '"'))

    def call(*options: str) -> tuple[int, str, str]:
        capsys.readouterr()
        arguments = ["lreg", "backbone", str(tmp_path / "few.toml"), "--data-dir", str(folder), "--device", "cpu"]
        monkeypatch.setattr("sys.argv", [*arguments, *options])
        code = commands.main()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
