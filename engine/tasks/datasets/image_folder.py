"""A user's own images: a tree of folders, one for each class, or a zip file of one."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable, Hashable, Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from engine.base.errors import PresetError, Problem
from engine.base.files import open_to_read, read_limited
from engine.base.settings import setting
from engine.tasks.datasets.base import DATASETS, AugmentedDataset, RawData
from engine.tasks.datasets.own import LARGEST, OwnDataset

ENDINGS = (".png", ".jpg", ".jpeg")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
LARGEST_FILE = 2**26  # bytes of an image's file
MOST_PIXELS = 2**26  # of one image, before it is scaled
DEEPEST = 5  # folders inside each other that are looked through
ALLOWED = "CLASS/NAME.png or .jpg for every image, or SPLIT/CLASS/NAME.png with SPLIT = train, val, test"
WHOLE_IMAGES = "whole PNG and JPEG images of 8 bits"

Labelled = list[tuple[str, str]]  # an image's path in the tree, and its class's name
ReadFile = Callable[[str], bytes]  # an image's bytes, by its path in the tree


@DATASETS.register("folder")
class ImageFolder(OwnDataset, AugmentedDataset):
    """CLASS/*.png or *.jpg, or SPLIT/CLASS/*; classes are numbered in the order of their names.

    Where there is no folder test, val is the test part. Where there are both, val belongs to the training set, of which
    `validation` is held out in any case.
    """

    path: str = setting(
        "", is_path=True, help="a folder with CLASS/*.png|jpg or SPLIT/CLASS/*.png|jpg, or a zip of one"
    )
    size: int = setting(
        32, minimum=0, maximum=1024, help="pixels of height and width that images are scaled to; 0: as they are"
    )
    channels: int = setting(3, minimum=1, maximum=3, help="1: grey; 3: colours")

    @property
    def source(self) -> tuple[Hashable, ...]:
        return (*super().source, self.size, self.channels)

    def read(self, folder: Path) -> RawData:
        if self.channels == 2:
            raise PresetError([Problem("task.channels", "2", "1 or 3")])
        path = Path(self.named_path())
        try:
            with tree(path) as (names, read_file):
                return self._read(names, read_file)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise self.error(why(error), "a folder with images, or a zip of one") from None

    def _read(self, names: list[str], read_file: ReadFile) -> RawData:
        splits = self._splits(names)
        if "train" not in splits:
            raise self.error(f"images in {', '.join(sorted(splits))} alone" if splits else "no .png or .jpg", ALLOWED)
        test = splits.get("test") or splits.get("val") or []
        train = splits["train"] + (splits.get("val", []) if "test" in splits else [])
        classes = sorted({label for _, label in train})
        if len(classes) < 2:
            raise self.error(f"the class {classes[0]} alone", "two or more classes")
        if foreign := sorted({label for _, label in test} - set(classes)):
            raise self.error(f"the class {foreign[0]} in the test part alone", "test images of the training classes")
        images = self._images([name for name, _ in train + test], read_file)
        labels = torch.tensor([classes.index(label) for _, label in train + test])
        if not test:
            return self.split_off(images, labels)
        return RawData(images[: len(train)], labels[: len(train)], images[len(train) :], labels[len(train) :])

    def _splits(self, names: list[str]) -> dict[str, Labelled]:
        """The images of each split; "train" holds all where the tree has no splits."""
        parts = {name: PurePosixPath(name).parts for name in sorted(names)}
        while parts and min(map(len, parts.values())) > 2 and len({way[0] for way in parts.values()}) == 1:
            parts = {name: way[1:] for name, way in parts.items()}  # a folder around everything, as zips have it
        has_splits = all(len(way) == 3 and way[0].lower() in SPLITS for way in parts.values())
        splits: dict[str, Labelled] = {}
        for name, way in parts.items():
            if len(way) != 2 and not has_splits:
                raise self.error(name, ALLOWED)
            splits.setdefault(SPLITS[way[0].lower()] if has_splits else "train", []).append((name, way[-2]))
        return splits

    def _images(self, names: list[str], read_file: ReadFile) -> Tensor:
        """All images, uint8 [N, C, H, W]."""
        first = self._pixels(names[0], read_file)
        if len(names) * first.nbytes > LARGEST:
            raise self.error(f"{len(names)} images of {first.nbytes} bytes", f"{LARGEST} bytes in all; lower task.size")
        images = np.empty((len(names), *first.shape), np.uint8)
        for index, name in enumerate(names):
            pixels = self._pixels(name, read_file)
            if pixels.shape != first.shape:
                sizes = ["x".join(map(str, image.shape[1:])) for image in (pixels, first)]
                raise self.error(f"{name} of {sizes[0]} pixels", f"{sizes[1]}, as {names[0]}; or set task.size")
            images[index] = pixels
        return torch.from_numpy(images)

    def _pixels(self, name: str, read_file: ReadFile) -> np.ndarray:
        """One image, uint8 [C, H, W]."""
        try:
            return pixels_of(read_file(name), self.channels, self.size)
        except Exception as error:  # whatever a damaged image makes Pillow or zlib raise
            raise self.error(f"{name}: {why(error)}", WHOLE_IMAGES) from None


def pixels_of(content: bytes, channels: int = 3, size: int = 0) -> np.ndarray:
    """A PNG or JPEG as uint8 [C, H, W], scaled to `size` pixels unless that is 0. Raises whatever Pillow does."""
    from PIL import Image

    with Image.open(BytesIO(content), formats=("PNG", "JPEG")) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels")
        if image.mode[0] in "IF":
            raise ValueError("more than 8 bits in a channel")
        flat = image.convert("L" if channels == 1 else "RGB")
    if size:
        flat = flat.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(flat)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def why(error: Exception) -> str:
    """What an error says, on one line."""
    reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())[:160]
    return reason or type(error).__name__


def tree(path: Path) -> contextlib.AbstractContextManager[tuple[list[str], ReadFile]]:
    """The images in a folder, or in a zip file, by their paths in it, and what reads a file there."""
    return _in_folder(path) if path.is_dir() else _in_zip(path)


@contextlib.contextmanager
def _in_folder(path: Path) -> Iterator[tuple[list[str], ReadFile]]:
    yield _below(path, "", 0), lambda name: read_limited(path / name, LARGEST_FILE)


def _below(path: Path, prefix: str, depth: int) -> list[str]:
    """The images in a tree, by their paths in it. Links to folders are followed, and no circle without end."""
    names = []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir() and not entry.name.startswith(".") and depth < DEEPEST:
                names += _below(path / entry.name, f"{prefix}{entry.name}/", depth + 1)
            elif _is_image(entry.name):
                names.append(prefix + entry.name)
    return names


@contextlib.contextmanager
def _in_zip(path: Path) -> Iterator[tuple[list[str], ReadFile]]:
    """Members are read into memory, and nothing is unpacked: their names lead nowhere."""
    with open_to_read(path) as file, zipfile.ZipFile(file) as archive:

        def read(name: str) -> bytes:
            with archive.open(name) as member:
                content = member.read(LARGEST_FILE + 1)
            if len(content) > LARGEST_FILE:
                raise ValueError(f"more than {LARGEST_FILE} bytes")
            return content

        yield [name for name in archive.namelist() if _is_image(name) and not name.startswith("__MACOSX/")], read


def _is_image(name: str) -> bool:
    return name.lower().endswith(ENDINGS) and not name.rpartition("/")[2].startswith(".")
