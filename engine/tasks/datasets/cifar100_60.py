"""A tenth of CIFAR-100 with the classes of CIFAR-FS: to try few-shot learning with real images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from engine.tasks.datasets.base import DATASETS
from engine.tasks.datasets.cifar_fs import classes_by_split, split_classes
from engine.tasks.datasets.few_shot import FewShotDataset
from engine.tasks.datasets.image_files import decode_once, image_tree, ways_to
from engine.tasks.episodes import ImagesByClass

IMAGES = 60  # of each class
SIZE = 32  # pixels
LAYOUT = "CLASS/*.png for the 100 classes of CIFAR-100"


@DATASETS.register("cifar100-60")
class CIFAR100With60(FewShotDataset):
    """60 images of each class of CIFAR-100, in CIFAR-FS's split of the classes: 64 / 16 / 20.

    Not CIFAR-FS, which has 600 images of each class: results here go by this name. Read from cifar100-60.zip in the
    data folder, or from the folder cifar100-60.
    """

    def read_classes(self, folder: Path) -> ImagesByClass:
        path, error = self.in_folder(folder, "cifar100-60", LAYOUT)
        split_of = classes_by_split()
        with image_tree(path, error) as tree:
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
