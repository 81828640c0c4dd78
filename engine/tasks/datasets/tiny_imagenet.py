"""Tiny ImageNet: 64x64 photographs of two hundred kinds of things, from the folder or the zip that it comes in."""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from engine.tasks.datasets.base import DATASETS, ImageDataset, RawData
from engine.tasks.datasets.image_files import ImageTree, Refusal, decode_once, tree_in
from engine.tasks.datasets.image_folder import Labelled
from engine.tasks.datasets.own import statistics

FOLDER = "tiny-imagenet-200"
SIZE = 64  # pixels of height and width
LAYOUT = (
    "wnids.txt, train/WNID/images/*.JPEG, val/images/*.JPEG and val/val_annotations.txt, as "
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip has them"
)


@DATASETS.register("tiny-imagenet")
class TinyImageNet(ImageDataset):
    """100,000 training images, and the 10,000 of its val part as test images (Le and Yang, 2015; CS231N, Stanford).

    `tiny-imagenet-200` or `tiny-imagenet-200.zip` lies in the data folder. What is read is decoded once, into a file
    beside it, or in the user's cache where nothing can be written there. Classes are numbered in the order of WNIDs.
    Classes, size and statistics are those that were read.
    """

    classes: int = 200
    input_shape: tuple[int, ...] = (3, 64, 64)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def described_by(self, data: RawData) -> TinyImageNet:
        images, labels, *_ = data
        mean, std = (tuple(value / self.brightest for value in values) for values in statistics(images))
        shape = tuple(images.shape[1:])
        described: dict[str, Any] = {"classes": 1 + int(labels.max()), "input_shape": shape, "mean": mean, "std": std}
        return dataclasses.replace(self, **described)

    def read(self, folder: Path) -> RawData:
        with tree_in(folder, FOLDER, LAYOUT, self) as (tree, error):
            return _ImageTreeReader(tree, error, folder).data()


class _ImageTreeReader:
    """The images of a tree, decoded."""

    def __init__(self, tree: ImageTree, error: Refusal, folder: Path) -> None:
        self.tree, self.error, self.folder = tree, error, folder
        self.names = sorted(tree.names)
        ways = [PurePosixPath(image).parts for image in self.names]
        self.above = next(("/".join((*way[: way.index("train")], "")) for way in ways if "train" in way), "")

    def data(self) -> RawData:
        train = self._train()
        if not train:
            raise self.error("no image in train/WNID/images", LAYOUT)
        wnids, test = sorted(self._lines("wnids.txt")), self._test()
        for examples, where in ((train, "train/WNID/images"), (test, "val/images")):
            if empty := sorted(set(wnids) - {wnid for _, wnid in examples}):
                raise self.error(f"no image of class {empty[0]} in {where}", "images of every class of wnids.txt")
            if foreign := sorted({wnid for _, wnid in examples} - set(wnids)):
                raise self.error(f"the class {foreign[0]} in {where}", "the classes of wnids.txt")
        if len(wnids) < 2:
            raise self.error(f"{len(wnids)} classes in wnids.txt", "two or more")
        train_labels, test_labels = (torch.tensor([wnids.index(wnid) for _, wnid in part]) for part in (train, test))
        names = [f"{self.above}{image}" for image, _ in (*train, *test)]
        images = decode_once(self.tree, names, 3, SIZE, self.error, beside=self.folder / FOLDER)
        return RawData(images[: len(train)], train_labels, images[len(train) :], test_labels)

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
            raise self.error(f"{missing[0]} without a line in val/val_annotations.txt", "NAME<tab>WNID for every image")
        return [(f"val/images/{file}", told[file]) for file in files]

    def _lines(self, file: str) -> list[str]:
        try:
            lines = self.tree.read(f"{self.above}{file}").decode().splitlines()
        except (OSError, KeyError, UnicodeError) as problem:
            reason = "not UTF-8" if isinstance(problem, UnicodeError) else "missing"
            raise self.error(f"{file}: {reason}", LAYOUT) from None
        if not lines:
            raise self.error(f"{file}: nothing in it", LAYOUT)
        return [line for line in lines if line.strip()]
