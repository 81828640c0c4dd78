"""Few-shot datasets: which class is in which split, what is read of files, and what is said of bad ones."""

from __future__ import annotations

import io
import os
import time
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from engine.base.errors import DataError, LregError
from engine.tasks.datasets import cifar_fs, image_files, omniglot
from engine.tasks.datasets.base import RawData
from engine.tasks.datasets.cifar_fs import classes_by_split
from engine.tasks.episodes import EpisodeTask, ImagesByClass, prototype_accuracy
from engine.tasks.table import build_task

CPU = torch.device("cpu")
SMALL = {"ways": 2, "shots": 1, "queries": 1}


def picture(*values: int, size: int = 4, mode: str = "L") -> bytes:
    """A PNG of equal pixels; the one in the upper left corner may be another."""
    stream = io.BytesIO()
    image = Image.new(mode, (size, size), values[0])
    image.putpixel((0, 0), values[-1])
    image.save(stream, "PNG")
    return stream.getvalue()


def store(path: Path, files: dict[str, bytes], packed: bool) -> None:
    """Files, as a folder or a zip of that name; a name that ends in / is an empty folder."""
    if packed:
        with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
            for name, content in files.items():
                archive.writestr(f"{path.name}/{name}", content)
        return
    for name, content in files.items():
        where = path / name
        (where if name.endswith("/") else where.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            where.write_bytes(content)


def task(dataset: str, folder: Path, **values: object) -> EpisodeTask:
    built = build_task({"dataset": dataset, **SMALL, **values}, device=CPU, data_dir=folder)
    assert isinstance(built, EpisodeTask)
    return built


def refusal(dataset: str, folder: Path, **values: object) -> str:
    with pytest.raises(LregError) as caught:
        task(dataset, folder, **values)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    return str(caught.value)


def images_of(data: ImagesByClass, split: str, name: str) -> torch.Tensor:
    return data.images[data.splits[split][name]]


@pytest.fixture(autouse=True)
def own_cache(request, monkeypatch, tmp_path):
    if "data" not in request.keywords:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def small(monkeypatch):
    """178 characters of two drawings each pass as Omniglot, two images of each class as the part of CIFAR-100."""
    monkeypatch.setattr(omniglot, "CHARACTERS", {"images_background": 175, "images_evaluation": 3})
    monkeypatch.setattr(omniglot, "DRAWINGS", 2)
    monkeypatch.setattr(cifar_fs, "IMAGES", 2)


both = pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])


# -- Omniglot ----------------------------------------------------------------------------------------------------------


def omniglot_files(drawings: int = 2) -> dict[str, bytes]:
    """175 background characters of two alphabets, 3 of the evaluation set; ink is black on white paper."""
    background = [f"images_background/Greek/character{i:03}" for i in range(90)]
    background += [f"images_background/Arcadian/character{i:03}" for i in range(85)]
    evaluation = [f"images_evaluation/Tibetan/character{i:02}" for i in range(3)]
    drawn = picture(255, 0)
    return {f"{name}/{i}.png": drawn for name in background + evaluation for i in range(drawings)}


@both
def test_omniglot_is_split_by_its_own_sets_and_the_last_background_characters(packed, tmp_path, small):
    store(tmp_path / "omniglot-py", omniglot_files(), packed)
    plain = task("omniglot", tmp_path, rotations=False, size=4).data
    assert list(plain.splits["train"]) == [f"Arcadian/character{i:03}" for i in range(3)]
    assert len(plain.splits["validation"]) == 172 and "Greek/character089" in plain.splits["validation"]
    assert list(plain.splits["test"]) == [f"Tibetan/character{i:02}" for i in range(3)]
    drawn = images_of(plain, "test", "Tibetan/character01")
    assert drawn.shape == (2, 1, 4, 4) and drawn[:, 0, 0, 0].tolist() == [255, 255] and int(drawn.sum()) == 2 * 255


def test_characters_turned_are_classes_of_their_own_in_the_same_split(tmp_path, small):
    store(tmp_path / "omniglot-py", omniglot_files(), True)
    data = task("omniglot", tmp_path, size=4).data
    assert [len(data.splits[split]) for split in ("train", "validation", "test")] == [12, 4 * 172, 12]
    name = "Tibetan/character01"
    corners = [(0, 0), (3, 0), (3, 3), (0, 3)]  # where that pixel goes, counter-clockwise
    for turn, (row, column) in enumerate(corners):
        drawn = images_of(data, "test", f"{name} turned by {90 * turn}" if turn else name)
        assert drawn[:, 0, row, column].tolist() == [255, 255] and int(drawn.sum()) == 2 * 255
    positions = [p for classes in data.splits.values() for rows in classes.values() for p in rows.tolist()]
    assert sorted(positions) == list(range(len(data.images)))


@both
@pytest.mark.parametrize(
    ("change", "values", "words"),
    [
        ({"images_evaluation": None}, {}, "0 characters in images_evaluation; allowed: 3; images_background/ALPHABET"),
        ({"images_background/Greek/character01": None}, {}, "165 characters in images_background; allowed: 175"),
        ({"images_evaluation/x.png": b""}, {}, "found omniglot-py/images_evaluation/x.png"),
        ({"images_evaluation/Tibetan/character01/0.png": b"none"}, {}, "Tibetan/character01/0.png: cannot identify"),
        ({"images_evaluation/Tibetan/character01/0.png": b""}, {}, "Tibetan/character01/0.png: "),
        (
            {"images_evaluation/Tibetan/character01/0.png": None},
            {},
            "1 drawings in images_evaluation/Tibetan/character01; allowed: 2 of each",
        ),
        ({}, {"ways": 4, "rotations": False}, "task.ways: found 4; allowed: at most 3, the train classes of omniglot"),
        ({}, {"queries": 2}, "task.queries: found 1 shots and 2 queries; allowed: at most 2 together"),
    ],
)
def test_an_omniglot_that_does_not_fit_is_one_line(change, values, words, packed, tmp_path, small):
    files = {
        name: content for name, content in omniglot_files().items() if not any(map(name.startswith, removed(change)))
    }
    files |= {name: content for name, content in change.items() if content is not None}
    store(tmp_path / "omniglot-py", files, packed)
    text = refusal("omniglot", tmp_path, size=4, **values)
    assert words.replace("omniglot-py/", "omniglot-py/" if packed else "") in text


def removed(change: dict[str, bytes | None]) -> list[str]:
    return [name for name, content in change.items() if content is None]


def test_missing_or_torn_files_are_one_line_that_says_what_to_put_where(tmp_path, small):
    for dataset, stem in (("omniglot", "omniglot-py"), ("cifar100-60", "cifar100-60")):
        text = refusal(dataset, tmp_path)
        for part in (f"{dataset}: not in {tmp_path}; put there: {stem}.zip", f"the folder {stem}", "LREG_DATA_DIR"):
            assert part in text
    store(tmp_path / "omniglot-py", omniglot_files(), True)
    whole = (tmp_path / "omniglot-py.zip").read_bytes()
    (tmp_path / "omniglot-py.zip").write_bytes(whole[: len(whole) // 2])
    assert refusal("omniglot", tmp_path).startswith(
        f"omniglot: {tmp_path / 'omniglot-py.zip'}: found File is not a zip"
    )
    torn = bytearray(whole)
    torn[200:20_000] = bytes(19_800)  # the list of members is whole, some of them are not
    (tmp_path / "omniglot-py.zip").write_bytes(torn)
    assert "images_background/" in refusal("omniglot", tmp_path)
    (tmp_path / "cifar100-60.zip").mkdir()
    assert "no images of the class apple" in refusal("cifar100-60", tmp_path)


# -- what was decoded before -------------------------------------------------------------------------------------------


def decoded(folder: Path) -> torch.Tensor:
    def error(found: str, allowed: str) -> DataError:
        return DataError(f"{found}; {allowed}")

    with image_files.image_tree(folder, error) as tree:
        return image_files.decode_once(tree, sorted(tree.names), 1, 4, error)


@pytest.fixture
def decodings(monkeypatch) -> list[str]:
    """The images that were decoded."""
    names: list[str] = []
    pixels = image_files._pixels

    def noted(name, *rest):
        names.append(name)
        return pixels(name, *rest)

    monkeypatch.setattr(image_files, "_pixels", noted)
    return names


@both
def test_images_are_decoded_once(packed, tmp_path, decodings):
    store(tmp_path / "own", {f"{i}.png": picture(i) for i in range(5)}, packed)
    path = tmp_path / ("own.zip" if packed else "own")
    first = decoded(path)
    assert first[:, 0, 2, 2].tolist() == list(range(5)) and decodings
    decodings.clear()
    assert torch.equal(decoded(path), first) and not decodings
    (cached,) = image_files.cache_folder().iterdir()
    whole = cached.read_bytes()
    for damage in (b"", whole[:-1], whole[:40] + b"\1" + whole[41:], whole + b"\0"):
        cached.write_bytes(damage)
        assert torch.equal(decoded(path), first) and decodings
        assert cached.read_bytes() == whole
        decodings.clear()


def test_other_images_are_not_taken_from_the_cache(tmp_path, decodings):
    for value in (1, 2):
        store(tmp_path / "own", {"0.png": picture(value), "1.png": picture(3)}, True)
        assert decoded(tmp_path / "own.zip")[:, 0, 2, 2].tolist() == [value, 3]
    store(tmp_path / "tree", {"0.png": picture(4)}, False)
    assert int(decoded(tmp_path / "tree")[0, 0, 2, 2]) == 4
    time.sleep(0.02)  # a file's time tells
    store(tmp_path / "tree", {"0.png": picture(5)}, False)
    assert int(decoded(tmp_path / "tree")[0, 0, 2, 2]) == 5


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch):
    store(tmp_path / "own", {"0.png": picture(7)}, False)
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a-file"))
    assert int(decoded(tmp_path / "own")[0, 0, 2, 2]) == 7


# -- CIFAR -------------------------------------------------------------------------------------------------------------

NAMES = sorted(name for names in classes_by_split().values() for name in names)


def test_the_classes_of_cifar_fs_are_each_of_cifar_100s_once():
    assert [len(names) for names in classes_by_split().values()] == [64, 16, 20]
    assert len(set(NAMES)) == 100 and (NAMES[0], NAMES[53], NAMES[99]) == ("apple", "orange", "worm")
    assert list(classes_by_split()) == ["train", "validation", "test"]


def test_cifar_fs_takes_training_and_test_images_of_a_class_together(tmp_path, monkeypatch):
    """Of every class one training and one test image; the class's number is a pixel's value."""
    labels = torch.arange(100)
    images = labels.to(torch.uint8).view(100, 1, 1, 1).expand(100, 3, 32, 32)
    monkeypatch.setattr(cifar_fs, "read_cifar", lambda *_: RawData(images, labels, images + 100, labels))
    data = task("cifar-fs", tmp_path).data
    assert {split: list(classes) for split, classes in data.splits.items()} == classes_by_split()
    for split in ("train", "validation", "test"):
        for name in data.splits[split]:
            number = NAMES.index(name)
            assert images_of(data, split, name)[:, 0, 0, 0].tolist() == [number, number + 100]


@both
def test_the_part_of_cifar_100_has_the_same_split(packed, tmp_path, small):
    files = {f"{name}/{i}.png": picture(10 * i, size=32, mode="RGB") for name in NAMES for i in range(2)}
    store(tmp_path / "cifar100-60", files, packed)
    built = task("cifar100-60", tmp_path)
    assert {split: list(classes) for split, classes in built.data.splits.items()} == classes_by_split()
    assert built.name == "cifar100-60/mlp" and built.data.images.shape == (200, 3, 32, 32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"worm": None}, "found no images of the class worm; allowed: CLASS/*.png for the 100 classes"),
        ({"lynx/1.png": picture(1)}, "found images of the class lynx"),
        ({"apple/more/1.png": picture(1)}, "found cifar100-60/apple/more/1.png"),
        ({"apple/1.png": b"no image"}, "apple/1.png: cannot identify"),
        ({"apple/1.png": None}, "found 1 images of the class apple; allowed: 2 of each class"),
    ],
)
def test_a_part_of_cifar_100_that_does_not_fit_is_one_line(change, words, tmp_path, small):
    files = {f"{name}/{i}.png": picture(1, size=32) for name in NAMES for i in range(2)}
    files = {name: content for name, content in files.items() if not any(map(name.startswith, removed(change)))}
    store(tmp_path / "cifar100-60", files | {n: c for n, c in change.items() if c is not None}, True)
    assert words in refusal("cifar100-60", tmp_path)


# -- a user's own ------------------------------------------------------------------------------------------------------


def own_files(train: str = "train", val: str = "val", test: str = "test") -> dict[str, bytes]:
    """Two classes in each split, three images of each, all of another grey."""
    names = [(split, name) for split, both in ((train, "ab"), (val, "cd"), (test, "ef")) for name in both]
    return {f"{s}/{n}/{i}.png": picture(10 * k + i) for k, (s, n) in enumerate(names) for i in range(3)}


@both
@pytest.mark.parametrize("splits", [{}, {"train": "Training", "val": "validation"}])
def test_a_folder_with_three_splits_becomes_a_task(splits, packed, tmp_path):
    store(tmp_path / "mini", own_files(**splits), packed)
    path = tmp_path / ("mini.zip" if packed else "mini")
    built = task("few-shot-folder", tmp_path, path=str(path), size=6, channels=1, queries=2)
    assert {split: list(classes) for split, classes in built.data.splits.items()} == {
        "train": ["a", "b"],
        "validation": ["c", "d"],
        "test": ["e", "f"],
    }
    assert sorted(images_of(built.data, "validation", "d")[:, 0, 0, 0].tolist()) == [30, 31, 32]
    assert built.dataset.input_shape == (1, 6, 6)
    assert task("few-shot-folder", tmp_path, path=str(path)).dataset.input_shape == (3, 84, 84)


@both
@pytest.mark.parametrize(
    ("change", "values", "words"),
    [
        ({"val": None}, {}, "found no images in val; allowed: SPLIT/CLASS/*.png"),
        ({"train/empty/": b""}, {}, "train/empty; allowed: one or more in the folder of a class"),
        ({"test/a/1.png": picture(1)}, {}, "the class a in two splits; allowed: every class in one of train, val"),
        ({"train/a/more/1.png": picture(1)}, {}, "train/a/more/1.png; allowed: SPLIT/CLASS"),
        ({"other/a/1.png": picture(1)}, {}, "other/a/1.png; allowed: SPLIT/CLASS"),
        ({"test/f/1.png": b"no image"}, {}, "test/f/1.png: cannot identify"),
        ({"test/f/1.png": picture(1)[:-20]}, {}, "test/f/1.png: "),
        ({"test/f": None}, {}, "task.ways: found 2; allowed: at most 1, the test classes of few-shot-folder"),
        ({}, {"ways": 3}, "task.ways: found 3; allowed: at most 2, the train classes of few-shot-folder"),
        ({"val/c/1.png": None}, {"queries": 2}, "allowed: at most 2 together, the images of class c"),
        ({}, {"channels": 2}, "task.channels: found 2; allowed: 1 or 3"),
    ],
)
def test_a_folder_that_does_not_fit_is_one_line(change, values, words, packed, tmp_path):
    files = {name: content for name, content in own_files().items() if not any(map(name.startswith, removed(change)))}
    store(tmp_path / "mini", files | {n: c for n, c in change.items() if c is not None}, packed)
    path = tmp_path / ("mini.zip" if packed else "mini")
    text = refusal("few-shot-folder", tmp_path, path=str(path), size=4, **values)
    assert words in text and (str(path) in text or text.startswith("task."))


def test_what_is_no_folder_with_splits_is_one_line(tmp_path):
    assert "No such file" in refusal("few-shot-folder", tmp_path, path=str(tmp_path / "nowhere"))
    assert 'task.path: found ""' in refusal("few-shot-folder", tmp_path)
    (tmp_path / "empty").mkdir()
    assert "no images in train" in refusal("few-shot-folder", tmp_path, path=str(tmp_path / "empty"))


# -- the real ones -----------------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize(
    ("dataset", "stem", "classes", "images", "chance", "nearest"),
    [
        (
            "omniglot",
            "omniglot-py",
            [792, 172, 659],
            20,
            0.2,
            0.42,
        ),  # pixels: 41.7% of Vinyals et al., other test classes
        ("cifar100-60", "cifar100-60", [64, 16, 20], 60, 0.2, 0.28),
    ],
)
def test_real_data_are_whole_and_nearest_class_means_beat_chance(dataset, stem, classes, images, chance, nearest):
    folder = Path(os.environ.get("LREG_DATA_DIR", ""))
    if str(folder) == "." or not any((folder / name).exists() for name in (stem, f"{stem}.zip")):
        pytest.skip(f"no {stem} in LREG_DATA_DIR")
    values = {"rotations": False} if dataset == "omniglot" else {}
    began = time.perf_counter()
    built = build_task({"dataset": dataset, "optimizee": "conv4", **values}, device=CPU, data_dir=folder)
    batch = built.batches([1]).draw(1)[0]
    print(f"{dataset}: {time.perf_counter() - began:.1f} s to the first episode")
    assert isinstance(built, EpisodeTask) and batch.x.shape[:2] == (1, 5)
    splits = built.data.splits
    assert [len(splits[split]) for split in ("train", "validation", "test")] == classes
    assert {len(rows) for names in splits.values() for rows in names.values()} == {images}
    accuracy = prototype_accuracy(built.held_out("test").of(range(400))).mean()
    assert chance + 0.05 < nearest < accuracy < nearest + 0.12
