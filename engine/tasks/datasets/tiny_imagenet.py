"""Tiny ImageNet: 64x64 photographs of two hundred kinds of things, from the folder or the zip that it comes in."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from platformdirs import user_cache_path
from torch import Tensor

from engine.base.errors import DataError
from engine.tasks.datasets.base import DATASETS, ImageDataset, RawData
from engine.tasks.datasets.image_folder import WHOLE_IMAGES, Labelled, ReadFile, pixels_of, tree, why
from engine.tasks.datasets.own import statistics

FOLDER = "tiny-imagenet-200"
SOURCE = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TENSORS = ("train_x", "train_y", "test_x", "test_y")
LAYOUT = f"{FOLDER}/ as it comes: wnids.txt, train/WNID/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt"


@dataclass(frozen=True, kw_only=True, eq=False)
class DescribedImages(ImageDataset):
    """Images whose classes, size and statistics are those that were read."""

    classes: int = 200
    input_shape: tuple[int, ...] = (3, 64, 64)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def described_by(self, data: RawData) -> DescribedImages:
        images, labels, *_ = data
        mean, std = (tuple(value / self.brightest for value in values) for values in statistics(images))
        shape = tuple(images.shape[1:])
        return dataclasses.replace(self, classes=1 + int(labels.max()), input_shape=shape, mean=mean, std=std)


@DATASETS.register("tiny-imagenet")
class TinyImageNet(DescribedImages):
    """100,000 training images, and the 10,000 of its val part as test images (Le and Yang, 2015; CS231N, Stanford).

    `tiny-imagenet-200` or `tiny-imagenet-200.zip` lies in the data folder. What is read is decoded once, into a file
    beside it, or in the user's cache where nothing can be written there. Classes are numbered in the order of WNIDs.
    """

    def read(self, folder: Path) -> RawData:
        path = next((folder / name for name in (FOLDER, f"{FOLDER}.zip") if os.path.exists(folder / name)), None)
        if path is None:
            raise DataError(
                f"{self.name}: not in {folder}; put {FOLDER}.zip there, as it is at {SOURCE}, or what it unpacks to; "
                "or name the folder that has it in LREG_DATA_DIR"
            )
        try:
            with tree(path) as (names, read_file):
                digest = _digest(path, names)
                places = [
                    place / f"{FOLDER}-{digest}.safetensors" for place in (folder, user_cache_path("lreg") / "data")
                ]
                stored = next(filter(None, map(_stored, places)), None)
                if stored is not None:
                    return stored
                data = _Reader(self.name, path, names, read_file).data()
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise _error(self.name, path, why(error), LAYOUT) from None
        _store(data, places)
        return data


class _Reader:
    """The images of a tree, decoded."""

    def __init__(self, name: str, path: Path, names: list[str], read_file: ReadFile) -> None:
        self.name, self.path, self.names, self.read_file = name, path, sorted(names), read_file
        ways = [PurePosixPath(image).parts for image in self.names]
        self.above = next(("/".join((*way[: way.index("train")], "")) for way in ways if "train" in way), "")

    def data(self) -> RawData:
        train = self._train()
        if not train:
            raise self._error("no image in train/WNID/images", LAYOUT)
        wnids, test = sorted(self._lines("wnids.txt")), self._test()
        for found, where in ((train, "train/WNID/images"), (test, "val/images")):
            if empty := sorted(set(wnids) - {wnid for _, wnid in found}):
                raise self._error(f"no image of class {empty[0]} in {where}", "images of every class of wnids.txt")
            if foreign := sorted({wnid for _, wnid in found} - set(wnids)):
                raise self._error(f"the class {foreign[0]} in {where}", "the classes of wnids.txt")
        if len(wnids) < 2:
            raise self._error(f"{len(wnids)} classes in wnids.txt", "two or more")
        train_labels, test_labels = (torch.tensor([wnids.index(wnid) for _, wnid in part]) for part in (train, test))
        return RawData(self._images(train), train_labels, self._images(test), test_labels)

    def _train(self) -> Labelled:
        """Images of train/WNID/images, with their WNIDs."""
        inside = [image.removeprefix(self.above) for image in self.names]
        ways = [(image, PurePosixPath(image).parts) for image in inside]
        return [(image, way[1]) for image, way in ways if len(way) == 4 and (way[0], way[2]) == ("train", "images")]

    def _test(self) -> Labelled:
        """Images of val/images, with the WNIDs that val_annotations.txt has for them."""
        told = dict(line.split("\t")[:2] for line in self._lines("val/val_annotations.txt") if line.count("\t"))
        start = f"{self.above}val/images/"
        files = [image.removeprefix(start) for image in self.names if image.startswith(start)]
        if missing := [file for file in files if file not in told]:
            raise self._error(
                f"{missing[0]} without a line in val/val_annotations.txt", "NAME<tab>WNID for every image"
            )
        return [(f"val/images/{file}", told[file]) for file in files]

    def _lines(self, file: str) -> list[str]:
        try:
            lines = self.read_file(f"{self.above}{file}").decode().splitlines()
        except (OSError, KeyError, UnicodeError) as error:
            raise self._error(f"{file}: {'missing' if isinstance(error, KeyError) else why(error)}", LAYOUT) from None
        if not lines:
            raise self._error(f"{file}: nothing in it", LAYOUT)
        return [line for line in lines if line.strip()]

    def _images(self, labelled: Labelled) -> Tensor:
        """uint8 [N, 3, H, W]."""
        images: np.ndarray | None = None
        for index, (image, _) in enumerate(labelled):
            try:
                pixels = pixels_of(self.read_file(f"{self.above}{image}"))
            except Exception as error:  # whatever a damaged image makes Pillow or zlib raise
                raise self._error(f"{image}: {why(error)}", WHOLE_IMAGES) from None
            images = np.empty((len(labelled), *pixels.shape), np.uint8) if images is None else images
            if pixels.shape != images.shape[1:]:
                sizes = ["x".join(map(str, shape[1:])) for shape in (pixels.shape, images.shape[1:])]
                raise self._error(f"{image} of {sizes[0]} pixels", f"{sizes[1]}, as the first")
            images[index] = pixels
        assert images is not None
        return torch.from_numpy(images)

    def _error(self, found: str, allowed: str) -> DataError:
        return _error(self.name, self.path, found, allowed)


def _error(name: str, path: Path, found: str, allowed: str) -> DataError:
    return DataError(f"{name}: {path}: found {found}; allowed: {allowed}")


def _digest(path: Path, names: Sequence[str]) -> str:
    """Of the images' names and sizes; of a zip file that of its own size and time."""
    facts = os.stat(path)
    listing = [f"{facts.st_size} {facts.st_mtime_ns}"] if path.is_file() else []
    listing += [f"{name} {os.stat(path / name).st_size if not listing else 0}" for name in sorted(names)]
    return hashlib.sha256("\n".join(listing).encode()).hexdigest()[:16]


def _stored(path: Path) -> RawData | None:
    """What was decoded before; None where there is nothing, or nothing whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        images, labels, test_images, test_labels = (tensors[name] for name in TENSORS)
    except (OSError, KeyError, ValueError, SafetensorError):
        return None
    whole = images.dtype == test_images.dtype == torch.uint8 and labels.dtype == test_labels.dtype == torch.int64
    whole = whole and len(images) == len(labels) and len(test_images) == len(test_labels)
    return RawData(images, labels, test_images, test_labels) if whole else None


def _store(data: RawData, places: Sequence[Path]) -> None:
    """Keep what was decoded in the first place that can be written; where none can, it is decoded again next time."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    for place in places:
        with contextlib.suppress(OSError, SafetensorError):
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place.parent, prefix=f".{place.stem}-", delete=False) as file:
                beside = Path(file.name)
            try:
                save_file(dict(zip(TENSORS, data, strict=True)), beside)
                os.replace(beside, place)
                return
            finally:
                beside.unlink(missing_ok=True)
