"""A user's own images for few-shot learning, as mini-ImageNet and tieredImageNet are laid out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from pathlib import Path, PurePosixPath

from torch import Tensor

from engine.base.settings import setting
from engine.tasks.datasets.base import DATASETS
from engine.tasks.datasets.few_shot import FewShotDataset, positions_of
from engine.tasks.datasets.image_files import ImageTree, decode_once, image_tree, ways_to
from engine.tasks.datasets.image_folder import SPLITS
from engine.tasks.datasets.own import named, path_and_time
from engine.tasks.episodes import ImagesByClass

PURPOSES = {"train": "train", "val": "validation", "test": "test"}
LAYOUT = "SPLIT/CLASS/*.png or *.jpg with SPLIT = train, val and test"


@DATASETS.register("few-shot-folder")
class FewShotFolder(FewShotDataset):
    """SPLIT/CLASS/*.png or *.jpg; SPLIT is train, val or test, and no class is in two of them."""

    path: str = setting("", is_path=True, help="a folder with train, val and test/CLASS/*.png|jpg, or a zip of one")
    size: int = setting(84, minimum=4, maximum=1024, help="pixels of height and width that images are scaled to")
    channels: int = setting(3, minimum=1, maximum=3, help="1: grey; 3: colours")

    @property
    def source(self) -> tuple[Hashable, ...]:
        return (*path_and_time(self.path), self.size, self.channels)

    def read_classes(self, folder: Path) -> ImagesByClass:
        with image_tree(named(self.path), self.error) as tree:
            ways = ways_to(tree.names)
            for name, way in ways.items():
                if len(way) != 3 or way[0].lower() not in SPLITS:
                    raise self.error(name, LAYOUT)
            labels = [(SPLITS[way[0].lower()], way[1]) for way in ways.values()]
            self._check(tree, set(labels))
            images = decode_once(tree, list(ways), self.channels, self.size, self.error)
        splits: dict[str, dict[str, Tensor]] = {PURPOSES[split]: {} for split in PURPOSES}
        for (split, name), positions in positions_of(labels).items():
            splits[PURPOSES[split]][name] = positions
        return ImagesByClass(images, splits)

    def _check(self, tree: ImageTree, classes: set[tuple[str, str]]) -> None:
        """Raise DataError where a split or a class has no images, or a class is in two splits."""
        if missing := [split for split in PURPOSES if split not in {split for split, _ in classes}]:
            raise self.error(f"no images in {missing[0]}", LAYOUT)
        filled = {PurePosixPath(name).parent.parts for name in tree.names}
        depth = max(map(len, filled))
        for folder in sorted(tree.folders):
            parts = PurePosixPath(folder).parts
            if len(parts) == depth and parts[-2].lower() in SPLITS and parts not in filled:
                raise self.error(f"no images in {folder}", "one or more in the folder of a class")
        names = Counter(name for _, name in classes)
        if shared := sorted(name for name, splits in names.items() if splits > 1):
            raise self.error(f"the class {shared[0]} in two splits", "every class in one of train, val and test")
