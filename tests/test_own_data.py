"""A user's own data with no code: arrays in a file, and images in folders or in a zip of them."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from engine.base.errors import DataError, PresetError
from engine.presets.preset import load_preset
from engine.tasks.base import Task
from engine.tasks.optimizees.base import OPTIMIZEES
from engine.tasks.table import build_task

N = 60
LABELS = np.arange(N) % 3
FEATURES = np.random.default_rng(0).normal(5, 2, (N, 4)).astype(np.float32)
PIXELS = np.random.default_rng(1).integers(0, 256, (N, 1, 6, 6), dtype=np.uint8)


def save(path: Path, **arrays: np.ndarray) -> Path:
    if path.suffix == ".npz":
        np.savez_compressed(path, **arrays)
    else:
        save_file(arrays, path)
    return path


def task(dataset: str, path: Path | str, **values: object) -> Task:
    return build_task({"dataset": dataset, "path": str(path), **values}, device=torch.device("cpu"))


def refusal(dataset: str, path: Path | str, **values: object) -> str:
    with pytest.raises((DataError, PresetError)) as caught:
        task(dataset, path, **values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def examples(of: Task) -> list[list[float]]:
    """Every example of every split as (label, pixels ...), in order: what was read, whole and with its own label."""
    parts = [of.fixed_batch(10_000, split) for split in ("train", "validation", "test")]
    return sorted([float(y), *x.flatten().tolist()] for part in parts for x, y in zip(part.x, part.y, strict=True))


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("x", [FEATURES, FEATURES.astype(np.float64), PIXELS], ids=["float32", "float64", "uint8"])
def test_arrays_become_a_task(x, ending, tmp_path):
    own = task("tensors", save(tmp_path / f"own.{ending}", x=x, y=LABELS), normalize="unit")
    low, high = (0, 255) if x.dtype == np.uint8 else (x.min(), x.max())
    assert (own.dataset.classes, own.dataset.input_shape) == (3, (1, 6, 6) if x.ndim == 4 else (4, 1, 1))
    assert [own.size(split) for split in ("train", "validation", "test")] == [43, 5, 12]
    in_file = sorted(examples_in(x), key=lambda row: row[0])
    assert sorted(row[0] for row in examples(own)) == sorted(row[0] for row in in_file)
    if low == 0:  # bytes: every example is there once, with its own label
        expected = sorted([row[0], *(np.array(row[1:]) / 255)] for row in in_file)
        np.testing.assert_allclose(examples(own), expected, rtol=1e-6)
    inputs = own.fixed_batch(1000).x
    assert inputs.min() >= 0 and inputs.max() <= 1 and high > low


def examples_in(x: np.ndarray) -> list[list[float]]:
    return [[float(label), *row.reshape(-1).tolist()] for label, row in zip(LABELS, x, strict=True)]


def test_each_feature_is_standardised_and_one_that_never_varies_does_no_harm(tmp_path):
    x = np.concatenate([FEATURES * [1, 100, 0.01, 1], np.ones((N, 1))], axis=1)
    own = task("tensors", save(tmp_path / "own.npz", x=x, y=LABELS))
    inputs = torch.cat([own.fixed_batch(1000, split).x for split in ("train", "validation")])[:, :, 0, 0]
    assert inputs.mean(0).abs().max() < 1e-5
    torch.testing.assert_close(inputs.std(0, correction=0)[:4], torch.ones(4, dtype=torch.float64), atol=1e-4, rtol=0)
    assert (inputs[:, 4] == 0).all()


def test_a_test_part_of_the_files_own_is_the_test_part(tmp_path):
    path = save(tmp_path / "own.npz", x=PIXELS, y=LABELS, x_test=PIXELS[:7], y_test=LABELS[:7])
    own = task("tensors", path, normalize="unit")
    batch = own.fixed_batch(100, "test")
    assert batch.y.tolist() == LABELS[:7].tolist()
    np.testing.assert_allclose(batch.x, PIXELS[:7] / 255)
    assert own.size("train") + own.size("validation") == N


def test_a_file_that_was_replaced_is_read_again(tmp_path):
    path = save(tmp_path / "own.npz", x=PIXELS, y=LABELS)
    assert task("tensors", path).dataset.input_shape == (1, 6, 6)
    save(path, x=FEATURES, y=LABELS)
    assert task("tensors", path).dataset.input_shape == (4, 1, 1)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": FEATURES}, "found x; allowed: x [N, C, H, W]"),
        ({"x_train": FEATURES, "y_train": LABELS}, "x_train, y_train"),
        ({"x": FEATURES, "y": LABELS, "x_test": FEATURES}, "x_test and y_test"),
        ({"x": FEATURES, "y": LABELS[:-1]}, "60 examples in x and 59 in y"),
        ({"x": FEATURES[:, None], "y": LABELS}, "x [60, 1, 4] float32"),
        ({"x": FEATURES[:, :, None].astype(np.int32), "y": LABELS}, "x [60, 4, 1] int32"),
        ({"x": FEATURES.astype(np.int32) - 9, "y": LABELS}, "in x; allowed: integers from 0"),
        ({"x": FEATURES, "y": FEATURES[:, :, None]}, "y [60, 4, 1] float32"),
        ({"x": FEATURES, "y": LABELS * np.nan}, "numbers that are not finite in y"),
        ({"x": FEATURES[:0], "y": LABELS[:0]}, "not empty"),
        ({"x": FEATURES, "y": LABELS[:, None]}, "y [60, 1] int64"),
        ({"x": FEATURES, "y": LABELS - 1}, "-1 in y"),
        ({"x": FEATURES, "y": LABELS + 1}, "no example of class 0 in y"),
        ({"x": FEATURES, "y": LABELS * 10**12}, "integers from 0 without a gap"),
        ({"x": FEATURES, "y": LABELS * 0}, "one class in y"),
        ({"x": FEATURES * np.nan, "y": LABELS}, "not finite in x"),
        ({"x": FEATURES, "y": LABELS, "x_test": PIXELS, "y_test": LABELS}, "x_test [60, 1, 6, 6] uint8"),
        ({"x": FEATURES, "y": LABELS, "x_test": FEATURES, "y_test": LABELS + 1}, "3 in y_test"),
    ],
)
@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_arrays_that_do_not_fit_are_one_line(arrays, words, ending, tmp_path):
    path = save(tmp_path / f"own.{ending}", **arrays)
    text = refusal("tensors", path)
    assert text.startswith(f"tensors: {path}: found ") and words in text


class Boom:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def test_files_that_are_no_arrays_are_one_line_and_execute_nothing(tmp_path):
    np.savez(tmp_path / "pickle.npz", x=np.array([Boom()] * N, object), y=LABELS)
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Boom()))
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    whole = save(tmp_path / "whole.npz", x=PIXELS, y=LABELS).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "own.csv").write_text("1,2")
    (tmp_path / "a-folder.npz").mkdir()
    for path in [*tmp_path.iterdir(), tmp_path / "nowhere.npz", Path("/dev/zero"), tmp_path / "null\0.npz"]:
        if path.name != "whole.npz":
            assert refusal("tensors", path).startswith("tensors: ")
    assert "No such file" in refusal("tensors", tmp_path / "nowhere.npz")
    assert ".safetensors or .npz" in refusal("tensors", tmp_path / "own.csv")


def test_a_part_that_leaves_no_test_examples_is_refused(tmp_path):
    path = save(tmp_path / "own.npz", x=FEATURES, y=LABELS)
    assert "task.test: found no test examples" in refusal("tensors", path, test=0.001)


def test_an_optimizee_that_cannot_take_the_examples_is_refused(tmp_path):
    path = save(tmp_path / "own.npz", x=FEATURES, y=LABELS)
    for optimizee in ("cnn", "lenet", "conv3"):
        assert f'task.optimizee: found "{optimizee}"; allowed: an optimizee for inputs of 4x1x1' in refusal(
            "tensors", path, optimizee=optimizee
        )


def picture(value: int, size: tuple[int, int] = (8, 8), kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(stream, kind)
    return stream.getvalue()


def two_classes(before: str = "", count: int = 10) -> dict[str, bytes]:
    """Dark cats and bright dogs."""
    animals = {"cat": 10, "dog": 200}
    return {f"{before}{name}/{i}.png": picture(base + i) for name, base in animals.items() for i in range(count)}


def grow(root: Path, files: dict[str, bytes], packed: bool) -> Path:
    """The files as a tree, or as a zip of one."""
    if packed:
        with zipfile.ZipFile(root / "own.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return root / "own.zip"
    for name, content in files.items():
        (root / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "own" / name).write_bytes(content)
    (root / "own").mkdir(exist_ok=True)
    return root / "own"


both = pytest.mark.parametrize("packed", [False, True], ids=["tree", "zip"])


@both
@pytest.mark.parametrize("before", ["", "pets/", "pets/train/"])
def test_a_tree_of_classes_becomes_a_task(before, packed, tmp_path):
    files = two_classes(before) | {f"{before}cat/notes.txt": b"no image", "README.md": b"", f"{before}dog/._1.png": b""}
    own = task("folder", grow(tmp_path, files, packed), size=4, channels=1, normalize="unit")
    assert (own.dataset.classes, own.dataset.input_shape) == (2, (1, 4, 4))
    expected = sorted([label, *[(base + i) / 255] * 16] for label, base in ((0, 10), (1, 200)) for i in range(10))
    np.testing.assert_allclose(examples(own), expected, rtol=1e-6)


@both
def test_splits_are_kept(packed, tmp_path):
    test = {"test/cat/a.jpg": picture(250, kind="JPEG"), "test/dog/b.JPEG": picture(0, kind="JPEG")}
    own = task("folder", grow(tmp_path, two_classes("Train/") | two_classes("val/") | test, packed), normalize="unit")
    assert own.dataset.input_shape == (3, 32, 32)
    assert own.size("train") + own.size("validation") == 40
    batch = own.fixed_batch(10, "test")
    assert batch.y.tolist() == [0, 1]
    torch.testing.assert_close(batch.x.mean((1, 2, 3)).float(), torch.tensor([250 / 255, 0.0]), atol=0.02, rtol=0)


def test_without_a_test_folder_val_is_the_test_part(tmp_path):
    own = task("folder", grow(tmp_path, two_classes("train/") | two_classes("val/", 3), False))
    assert own.size("test") == 6 and own.size("train") + own.size("validation") == 20


def test_images_keep_their_size_and_may_be_cropped(tmp_path):
    own = task("folder", grow(tmp_path, two_classes(), False), size=0, augment=True, batch_size=4)
    assert own.dataset.input_shape == (3, 8, 8)
    assert own.batches([0, 1]).draw(2)[1].x.shape == (2, 4, 3, 8, 8)


@both
@pytest.mark.parametrize(
    ("files", "values", "words"),
    [
        ({}, {}, "no .png or .jpg"),
        ({"notes.txt": b"x"}, {}, "no .png or .jpg"),
        ({"1.png": picture(1), "2.png": picture(2)}, {}, "found 1.png; allowed: CLASS/NAME.png"),
        ({"cat/1.png": picture(1)}, {}, "the class cat alone"),
        (two_classes() | {"dog/more/1.png": picture(1)}, {}, "dog/more/1.png; allowed: CLASS/NAME.png"),
        (two_classes("val/") | two_classes("test/"), {}, "images in test, val alone"),
        (two_classes("train/") | {"test/cow/1.png": picture(1)}, {}, "the class cow in the test part alone"),
        (two_classes() | {"dog/x.png": b"no image"}, {}, "dog/x.png: "),
        (two_classes() | {"dog/x.png": b""}, {}, "dog/x.png: "),
        (two_classes() | {"dog/x.png": picture(1)[:-30]}, {}, "dog/x.png: "),
        (two_classes() | {"dog/x.png": picture(1, kind="GIF")}, {}, "whole PNG and JPEG images"),
        (two_classes() | {"dog/x.png": picture(1, (9, 8))}, {"size": 0}, "dog/x.png of 8x9 pixels; allowed: 8x8"),
        (two_classes() | {"dog/x.png": picture(1, (9000, 8000))}, {}, "9000x8000 pixels"),
        (two_classes(), {"channels": 2}, "task.channels: found 2; allowed: 1 or 3"),
    ],
)
def test_trees_that_do_not_fit_are_one_line(files, values, words, packed, tmp_path):
    path = grow(tmp_path, files, packed)
    text = refusal("folder", path, **values)
    assert words in text and (str(path) in text or text.startswith("task."))


def test_what_is_no_tree_is_one_line(tmp_path):
    (tmp_path / "text.zip").write_text("no zip")
    later = bytearray(grow(tmp_path, two_classes(), packed=True).read_bytes())
    later[later.rindex(b"PK\1\2") + 6] = 255  # the version of the format that the last member needs
    (tmp_path / "later.zip").write_bytes(later)
    assert "No such file" in refusal("folder", tmp_path / "nowhere")
    for path in (tmp_path / "text.zip", tmp_path / "later.zip", Path("/dev/null"), tmp_path / "null\0"):
        assert refusal("folder", path).startswith("folder: ")
    (tmp_path / "round").mkdir()
    (tmp_path / "round" / "here.png").symlink_to("here.png")
    assert "here.png: " in refusal("folder", tmp_path / "round")


def test_a_zip_from_a_stranger_writes_nothing(tmp_path):
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    archive = grow(place, two_classes("../../") | {"/cat/x.png": picture(1)}, packed=True)
    refusal("folder", archive)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


@pytest.mark.parametrize("dataset", ["tensors", "folder"])
def test_a_preset_names_the_path_and_keeps_it_absolute(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    preset = load_preset("quickstart", [f"task.dataset={dataset}", "task.path=own/data.npz"])
    assert preset.tasks[0]["path"] == str(tmp_path / "own" / "data.npz")
    monkeypatch.chdir("/")
    (tmp_path / "again.toml").write_text(preset.dumps())
    assert load_preset(tmp_path / "again.toml").values == preset.values
    with pytest.raises(PresetError, match='task.path: found ""; allowed: a .*'):
        load_preset("quickstart", [f"task.dataset={dataset}"])
    assert "task.path" in refusal(dataset, "")


def test_numbers_are_learned_by_their_squared_error(tmp_path):
    y = np.stack([FEATURES @ [1.0, -1.0, 0.5, 0.0], FEATURES[:, 0] ** 2], axis=1).astype(np.float64)
    own = task("tensors", save(tmp_path / "own.npz", x=FEATURES, y=y), optimizee="mlp")
    theta, batch = own.init_theta(0), own.fixed_batch(20)
    outputs = own.outputs(theta.double(), batch.x)
    assert outputs.shape == (20, 2) and batch.y.dtype == torch.float64
    torch.testing.assert_close(own.loss(theta.double(), batch), ((outputs - batch.y) ** 2).mean())
    test, batch = own.metrics(theta, "test"), own.fixed_batch(100, "test", torch.float32)
    difference = own.outputs(theta, batch.x) - batch.y
    torch.testing.assert_close(test["loss"], (difference**2).mean().detach())
    torch.testing.assert_close(test["absolute_error"], difference.abs().mean().detach())
    assert "task.classes" in refusal("tensors", tmp_path / "own.npz", classes=(0, 1))


def test_tokens_reach_the_optimizee_as_they_are(tmp_path, monkeypatch):
    tokens = save(tmp_path / "own.npz", x=np.random.default_rng(2).integers(0, 50, (N, 7)), y=LABELS)
    assert "tensors has tokens, with a target for each example" in refusal("tensors", tokens)
    assert task("tensors", tokens, optimizee="bow", width=4).parameters == 50 * 4 + 4 * 3 + 3
    words = lambda self, input_shape, outputs: torch.nn.EmbeddingBag(50, outputs)  # noqa: E731
    monkeypatch.setattr(OPTIMIZEES["mlp"], "build", words)
    monkeypatch.setattr(OPTIMIZEES["mlp"], "form", "")
    own = task("tensors", tokens)
    assert own.dataset.input_shape == (7,)
    assert own.batches([0]).draw(1)[0].x.dtype == torch.int64
