"""A user's own images: a tree of folders, one for each class, or a zip file of one."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import torch

from engine.base.settings import setting
from engine.tasks.datasets.base import DATASETS, AugmentedDataset, RawData
from engine.tasks.datasets.image_files import ImageTree, decode, image_tree, ways_to
from engine.tasks.datasets.own import OwnDataset, named

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
ALLOWED = "CLASS/NAME.png or .jpg for every image, or SPLIT/CLASS/NAME.png with SPLIT = train, val, test"

Labelled = list[tuple[str, str]]  # an image's path in the tree, and its class's name


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
        with image_tree(named(self.path), self.error) as tree:
            return self._read(tree)

    def _read(self, tree: ImageTree) -> RawData:
        splits = self._splits(tree.names)
        if "train" not in splits:
            raise self.error(f"images in {', '.join(sorted(splits))} alone" if splits else "no .png or .jpg", ALLOWED)
        test = splits.get("test") or splits.get("val") or []
        train = splits["train"] + (splits.get("val", []) if "test" in splits else [])
        classes = sorted({label for _, label in train})
        if len(classes) < 2:
            raise self.error(f"the class {classes[0]} alone", "two or more classes")
        if foreign := sorted({label for _, label in test} - set(classes)):
            raise self.error(f"the class {foreign[0]} in the test part alone", "test images of the training classes")
        images = decode(tree, [name for name, _ in train + test], self.channels, self.size, self.error)
        labels = torch.tensor([classes.index(label) for _, label in train + test])
        if not test:
            return self.split_off(images, labels)
        return RawData(images[: len(train)], labels[: len(train)], images[len(train) :], labels[len(train) :])

    def _splits(self, names: list[str]) -> dict[str, Labelled]:
        """The images of each split; "train" holds all where the tree has no splits."""
        parts = ways_to(names)
        has_splits = all(len(way) == 3 and way[0].lower() in SPLITS for way in parts.values())
        splits: dict[str, Labelled] = {}
        for name, way in parts.items():
            if len(way) != 2 and not has_splits:
                raise self.error(name, ALLOWED)
            splits.setdefault(SPLITS[way[0].lower()] if has_splits else "train", []).append((name, way[-2]))
        return splits
