"""CIFAR-FS: CIFAR-100 for few-shot learning; and a tenth of its images, to try that with real ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch

from engine.tasks.datasets.base import DATASETS
from engine.tasks.datasets.few_shot import FewShotDataset, positions_of
from engine.tasks.datasets.files import read_cifar
from engine.tasks.datasets.image_files import decode_once, tree_in, ways_to
from engine.tasks.episodes import ImagesByClass

CLASSES = Path(__file__).with_name("cifar_fs_classes.json")
IMAGES = 60  # of each class of cifar100-60
SIZE = 32  # pixels
LAYOUT = "CLASS/*.png for the 100 classes of CIFAR-100"


@DATASETS.register("cifar-fs")
class CIFARFS(FewShotDataset):
    """The 100 classes of CIFAR-100, all 600 images of each: 64 for training, 16 for validation, 20 for testing.

    The split is that of Bertinetto et al. (arXiv:1805.08136). Read, or downloaded, as the dataset cifar100.
    """

    def read_classes(self, folder: Path) -> ImagesByClass:
        x, y, x_test, y_test = read_cifar("cifar-fs", "CIFAR100", folder)
        split_of = classes_by_split()
        names = sorted(name for classes in split_of.values() for name in classes)  # CIFAR-100 numbers them so
        labels = [names[label] for label in torch.cat([y, y_test]).tolist()]
        return split_classes(torch.cat([x, x_test]), labels, split_of)


@DATASETS.register("cifar100-60")
class CIFAR100With60(FewShotDataset):
    """60 images of each class of CIFAR-100, in CIFAR-FS's split of the classes: 64 / 16 / 20.

    Not CIFAR-FS, which has 600 images of each class: results here go by this name. Read from cifar100-60.zip in the
    data folder, or from the folder cifar100-60.
    """

    def read_classes(self, folder: Path) -> ImagesByClass:
        split_of = classes_by_split()
        with tree_in(folder, "cifar100-60", LAYOUT, self) as (tree, error):
            ways = ways_to(tree.names)
            if misplaced := [name for name, way in ways.items() if len(way) != 2]:
                raise error(misplaced[0], LAYOUT)
            labels = [way[0] for way in ways.values()]
            classes = {name for names in split_of.values() for name in names}
            if unlike := sorted(classes.symmetric_difference(labels)):
                raise error(f"{'no images' if unlike[0] in classes else 'images'} of the class {unlike[0]}", LAYOUT)
            for name, count in Counter(labels).items():
                if count != IMAGES:
                    raise error(f"{count} images of the class {name}", f"{IMAGES} of each class")
            images = decode_once(tree, list(ways), 3, SIZE, error)
        return split_classes(images, labels, split_of)


def classes_by_split() -> dict[str, list[str]]:
    """The names of CIFAR-FS's classes for "train", "validation" and "test"."""
    return json.loads(CLASSES.read_text(encoding="utf-8"))


def split_classes(images: torch.Tensor, labels: list[str], split_of: Mapping[str, list[str]]) -> ImagesByClass:
    """Images, [M, C, H, W], of labelled classes, in the splits that are listed. Raises KeyError for a class without."""
    positions = positions_of(labels)
    return ImagesByClass(images, {split: {name: positions[name] for name in split_of[split]} for split in split_of})
