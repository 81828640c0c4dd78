"""Omniglot: characters of fifty alphabets, twenty drawings of each, for few-shot learning."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path, PurePosixPath

import torch

from engine.base.settings import setting
from engine.tasks.datasets.base import DATASETS
from engine.tasks.datasets.few_shot import FewShotDataset, positions_of
from engine.tasks.datasets.image_files import decode_once, tree_in
from engine.tasks.episodes import ImagesByClass

CHARACTERS = {"images_background": 964, "images_evaluation": 659}
VALIDATION = 172  # of the background characters
DRAWINGS = 20  # of each
TURNS = 4
LAYOUT = "images_background/ALPHABET/CHARACTER/*.png and images_evaluation/ALPHABET/CHARACTER/*.png"


@DATASETS.register("omniglot")
class Omniglot(FewShotDataset):
    """1,623 characters, 20 drawings of each (Lake, Salakhutdinov and Tenenbaum, Science 2015); ink is white on black.

    Training: the 964 background characters but for the last 172, by alphabet and number, which are for validation.
    Testing: the 659 of the evaluation set, of other alphabets. Many papers take 1,200 characters for training and 423
    for testing instead, whatever their alphabets (Vinyals et al., arXiv:1606.04080). Read from omniglot-py.zip in the
    data folder, or from the folder omniglot-py, as torchvision has it.
    """

    size: int = setting(28, minimum=4, maximum=105, help="pixels of height and width that images are scaled to")
    rotations: bool = setting(
        True, help="characters turned by 90, 180 and 270 degrees are classes of their own, in every split"
    )

    @property
    def source(self) -> tuple[Hashable, ...]:
        return (self.size, self.rotations)

    def read_classes(self, folder: Path) -> ImagesByClass:
        with tree_in(folder, "omniglot-py", LAYOUT, self) as (tree, error):
            ways = {name: PurePosixPath(name).parts[-4:] for name in sorted(tree.names)}
            for name, way in ways.items():
                if len(way) < 4 or way[0] not in CHARACTERS:
                    raise error(name, LAYOUT)
            labels = positions_of([way[:3] for way in ways.values()])
            for part, count in CHARACTERS.items():
                characters = sum(label[0] == part for label in labels)
                if characters != count:
                    raise error(f"{characters} characters in {part}", f"{count}; {LAYOUT}")
            for label, positions in labels.items():
                if len(positions) != DRAWINGS:
                    raise error(f"{len(positions)} drawings in {'/'.join(label)}", f"{DRAWINGS} of each character")
            images = 255 - decode_once(tree, list(ways), 1, self.size, error)  # paper is white there
        background, evaluation = (
            {"/".join(label[1:]): positions for label, positions in labels.items() if label[0] == part}
            for part in CHARACTERS
        )
        names = list(background)
        splits = {
            "train": {name: background[name] for name in names[:-VALIDATION]},
            "validation": {name: background[name] for name in names[-VALIDATION:]},
            "test": evaluation,
        }
        return turned(ImagesByClass(images, splits)) if self.rotations else ImagesByClass(images, splits)


def turned(data: ImagesByClass) -> ImagesByClass:
    """Every class four times, turned by 0, 90, 180 and 270 degrees."""
    images = torch.cat([data.images.rot90(turn, (2, 3)) for turn in range(TURNS)])
    splits = {
        split: {
            f"{name} turned by {90 * turn}" if turn else name: positions + turn * len(data.images)
            for name, positions in classes.items()
            for turn in range(TURNS)
        }
        for split, classes in data.splits.items()
    }
    return ImagesByClass(images, splits)
