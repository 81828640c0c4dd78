"""tiny-imagenet from a miniature in the original's layout, whole and damaged; flips and crops of images."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.base.errors import DataError
from engine.tasks.datasets import image_files, tiny_imagenet
from engine.tasks.datasets.base import DATASETS, ImageDataset, crop_and_flip
from engine.tasks.table import build_task

WNIDS = ("n03", "n01", "n02")
NAME = "tiny-imagenet-200"


def picture(level: int, size: int = 8, kind: str = "PNG") -> bytes:
    """A grey square, except for a white column on its left."""
    pixels = np.full((size, size, 3), level, np.uint8)
    pixels[:, 0] = 255
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def miniature() -> dict[str, bytes]:
    """Of class k the level 50 k, in the order of WNIDs; 6 training and 2 test images of each."""
    files = {"wnids.txt": "\n".join(WNIDS).encode(), "words.txt": b"n01\tthing"}
    lines = []
    for wnid in WNIDS:
        level = 50 * sorted(WNIDS).index(wnid)
        for number in range(6):
            kind = "JPEG" if number == 0 else "PNG"
            files[f"train/{wnid}/images/{wnid}_{number}.JPEG"] = picture(level, kind=kind)
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"0 0 1 1"
        for number in range(2):
            name = f"val_{wnid}_{number}.JPEG"
            files[f"val/images/{name}"] = picture(level)
            lines.append(f"{name}\t{wnid}\t0\t0\t7\t7")
    files["val/val_annotations.txt"] = "\n".join(lines).encode()
    files["test/images/test_0.JPEG"] = picture(9)
    return files


def grow(folder: Path, files: dict[str, bytes], packed: bool) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if packed:
        with zipfile.ZipFile(folder / f"{NAME}.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(f"{NAME}/{name}", content)
        return folder
    for name, content in files.items():
        (folder / NAME / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / NAME / name).write_bytes(content)
    return folder


def task(folder: Path, **values: Any):
    table = {"dataset": "tiny-imagenet", "hidden": [3], "batch_size": 4, "validation": 0.2, **values}
    return build_task(table, data_dir=folder, device=torch.device("cpu"))


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        task(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "user_cache_path", lambda name: tmp_path / "cache")
    monkeypatch.setattr(tiny_imagenet, "SIZE", 8)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_the_layout_of_the_original_becomes_a_task(packed, tmp_path):
    of = task(grow(tmp_path / "data", miniature(), packed), normalize="unit")
    assert (of.dataset.classes, of.dataset.input_shape) == (3, (3, 8, 8))
    assert [of.size(split) for split in ("train", "validation", "test")] == [14, 4, 6]
    for split in ("train", "validation", "test"):
        batch = of.fixed_batch(100, split)
        levels = batch.x[:, :, 4, 4].mean(1) * 255
        torch.testing.assert_close(levels, 50.0 * batch.y.double(), atol=6, rtol=0)  # one of each class is a JPEG
    standard = task(tmp_path / "data").fixed_batch(100).x.mean()
    assert abs(float(standard)) < 0.5


def test_images_are_decoded_once(tmp_path, monkeypatch):
    folder = grow(tmp_path / "data", miniature(), False)
    first = task(folder).fixed_batch(100).x
    (cache,) = folder.glob(f"{NAME}-*.images")
    dataset = DATASETS.create("tiny-imagenet")
    with monkeypatch.context() as patched:
        patched.setattr(image_files, "decode", None)  # nothing is decoded again
        assert len(dataset.read(folder)[0]) == 18
    cache.write_bytes(cache.read_bytes()[:-5])  # damaged: as if there were none
    torch.testing.assert_close(dataset.read(folder)[0].shape, torch.Size([18, 3, 8, 8]))
    (folder / NAME / "train/n01/images/n01_9.JPEG").write_bytes(picture(50))
    assert len(dataset.read(folder)[0]) == 19
    assert len(list(folder.glob("*.images"))) == 2 and first.shape == (14, 3, 8, 8)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_data_folder_that_is_read_only_is_no_obstacle(tmp_path):
    folder = grow(tmp_path / "data", miniature(), True)
    folder.chmod(0o555)
    task(folder)
    assert len(list((tmp_path / "cache").rglob("*.images"))) == 1


def test_where_nothing_can_be_kept_everything_is_read_again(tmp_path, monkeypatch):
    folder = grow(tmp_path / "data", miniature(), True)
    (tmp_path / "cache").write_text("no folder")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(image_files, "write_atomic", refuse)
    assert task(folder).size("test") == 6
    assert sorted(path.name for path in folder.iterdir()) == [f"{NAME}.zip"]


def without(*names: str) -> dict[str, bytes]:
    return {name: content for name, content in miniature().items() if not name.startswith(names)}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(
    ("files", "words"),
    [
        (without("wnids.txt"), "wnids.txt: "),
        (without("val/val_annotations.txt"), "val/val_annotations.txt: "),
        (without("train/n02/images"), "no image of class n02 in train/WNID/images"),
        (without("val/images/val_n02"), "no image of class n02 in val/images"),
        (without("train", "val/images", "test"), "no image in train/WNID/images"),
        (miniature() | {"wnids.txt": b"n01\nn02\n"}, "the class n03 in train"),
        (miniature() | {"wnids.txt": b""}, "wnids.txt: nothing in it"),
        (miniature() | {"val/val_annotations.txt": b"val_n01_0.JPEG\tn01\n"}, "without a line in val/val_annotations"),
        (miniature() | {"train/n01/images/n01_3.JPEG": b"no image"}, "train/n01/images/n01_3.JPEG: "),
        (miniature() | {"train/n01/images/n01_3.JPEG": b""}, "train/n01/images/n01_3.JPEG: "),
        (miniature() | {"val/images/val_n01_0.JPEG": picture(1)[:-40]}, "val/images/val_n01_0.JPEG: "),
    ],
)
def test_data_that_are_damaged_are_one_line(files, words, packed, tmp_path):
    assert words in refusal(grow(tmp_path / "data", files, packed))
    assert not list((tmp_path / "data").glob("*.images"))


def test_a_zip_that_is_cut_off_or_empty_is_one_line(tmp_path):
    folder = grow(tmp_path / "data", miniature(), True)
    archive = folder / f"{NAME}.zip"
    content = archive.read_bytes()
    for damaged in (content[:-100], content[: len(content) // 2], b""):
        archive.write_bytes(damaged)
        assert "found File is not a zip file" in refusal(folder)


def test_what_is_missing_is_named_with_where_to_put_it(tmp_path):
    text = refusal(tmp_path)
    assert f"put there: {NAME}.zip" in text and "LREG_DATA_DIR" in text
    shutil.rmtree(tmp_path / NAME, ignore_errors=True)


IMAGES = ["digits", "mnist", "fmnist", "cifar10", "cifar100", "folder", "tiny-imagenet"]


def test_flip_and_crop_are_settings_of_every_image_dataset():
    assert [name for name in DATASETS.names() if issubclass(DATASETS[name], ImageDataset)] == sorted(IMAGES)
    for name in IMAGES:
        assert DATASETS.create(name).augmentation_size == 0


def test_flip_and_crop_go_alone():
    images = torch.arange(2 * 3 * 6 * 6, dtype=torch.uint8).view(2, 3, 6, 6)
    numbers = torch.tensor([[0.0, 0.99, 0.2], [0.5, 0.5, 0.7]])
    flipped = DATASETS.create("digits", flip=True).augmented(images, numbers)
    assert torch.equal(flipped, torch.stack([images[0], images[1].flip(-1)]))
    cropped = DATASETS.create("digits", crop=1).augmented(images, numbers)
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    assert torch.equal(cropped, torch.stack([padded[0, :, 0:6, 2:8], padded[1, :, 1:7, 1:7]]))


def test_augment_is_both_as_it_was():
    images, numbers = torch.randint(256, (9, 3, 32, 32), dtype=torch.uint8), torch.rand(9, 3)
    for settings in ({"augment": True}, {"flip": True, "crop": 4}):
        varied = DATASETS.create("cifar10", **settings).augmented(images, numbers)
        assert torch.equal(varied, crop_and_flip(images, numbers))
    fewer = DATASETS.create("cifar10", augment=True, crop=2).augmented(images, numbers)
    assert torch.equal(fewer, crop_and_flip(images, numbers, 2))
