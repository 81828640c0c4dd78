"""Where trained backbones lie, and the features of all images by one, computed once.

A backbone's name holds a digest of the images, the split of their classes and how they become inputs: that of other
data is never used. Shape letters: M images, F features.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from safetensors.torch import save as to_bytes
from torch import Tensor

from engine.base.errors import DataError
from engine.base.files import digest_of, read_tensors, write_atomic
from engine.tasks.backbones.networks import BACKBONES, Backbone
from engine.tasks.episodes import ImagesByClass

FOLDER = "backbones"
HEADER_KEY = "lreg"  # of what is no tensor, as JSON
AT_ONCE = 256  # images
PLACES_KEPT = 8  # by the very object that holds the images: a digest of many takes a while
WRITABLE = 0o222  # modes; a folder with none of them is read-only to root as well

ToInput = Callable[[Tensor], Tensor]
"""Images as they are stored, [M, C, H, W], to what a network is shown."""


@dataclass(frozen=True)
class BackboneFile:
    """Where a backbone is kept, or would be: its name, in one of two folders, the data's and the user's cache."""

    name: str
    folders: tuple[Path, ...]

    def find(self, ending: str = ".safetensors") -> Path | None:
        """The file, where there is one."""
        paths = [folder / f"{self.name}{ending}" for folder in self.folders]
        return next((path for path in paths if os.path.isfile(path)), None)  # Path.is_file may raise

    def to_write(self, ending: str = ".safetensors") -> Path:
        """Where to write the file: where it is, else in the first folder that can be written to, which is made.

        Raises DataError where none can.
        """
        existing = self.find(ending)
        folders = [existing.parent, *self.folders] if existing else self.folders
        for folder in folders:
            if _is_writable(folder):
                return folder / f"{self.name}{ending}"
        tried = " and ".join(map(str, self.folders))
        raise DataError(f"backbones cannot be kept: no folder to write to; tried {tried}")


@functools.lru_cache(PLACES_KEPT)
def file_of(architecture: str, dataset: str, normalize: str, data: ImagesByClass, data_folder: Path) -> BackboneFile:
    """Where the backbone of these images is kept."""
    digest = hashlib.sha256()
    splits = {
        split: {str(name): positions.tolist() for name, positions in classes.items()}
        for split, classes in data.splits.items()
    }
    facts = [architecture, normalize, list(data.images.shape), splits]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    digest.update(data.images.cpu().contiguous().numpy().data)
    name = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', dataset)[:40]}-{architecture}-{digest.hexdigest()[:16]}"
    return BackboneFile(name, (data_folder / FOLDER, user_cache_path("lreg") / FOLDER))


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made where it is not there."""
    try:
        if not _may_write(next(path for path in (folder, *folder.parents) if path.exists())):
            return False
        folder.mkdir(parents=True, exist_ok=True)
        return _may_write(folder)
    except OSError:
        return False


def _may_write(folder: Path) -> bool:
    return os.access(folder, os.W_OK) and bool(folder.stat().st_mode & WRITABLE)


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts (JSON) as one safetensors file, whole. Raises DataError where that cannot be."""
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    try:
        write_atomic(path, to_bytes(copies, metadata={HEADER_KEY: json.dumps(facts)}))
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on the CPU, and facts, of a file that `save` wrote. Raises DataError where it is damaged."""
    try:
        tensors, metadata = read_tensors(path)
        return tensors, dict(json.loads(metadata[HEADER_KEY]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: damaged ({reason}); delete it, and `lreg backbone PRESET` writes it anew") from None


def load_backbone(path: Path, architecture: str, input_shape: tuple[int, ...], device: torch.device) -> Backbone:
    """A kept backbone in evaluation mode. Raises DataError where the file holds none of this architecture."""
    tensors, _ = load(path)
    network = BACKBONES[architecture](input_shape)
    try:
        network.load_state_dict(tensors)
    except RuntimeError:
        raise DataError(f"{path}: holds no {architecture} for these images; delete it, and train it anew") from None
    return network.to(device).eval()


def features_of_kept(
    backbone_file: BackboneFile, architecture: str, data: ImagesByClass, to_input: ToInput, dataset: str
) -> ImagesByClass:
    """The features of all images, float32 [M, F] of length 1, in place of the images.

    Computed at first use, and kept beside the backbone. Raises DataError where no backbone is kept.
    """
    path = backbone_file.find()
    if path is None:
        where = " or ".join(map(str, backbone_file.folders))
        raise DataError(
            f"{dataset}: no backbone {architecture} of these images in {where}: `lreg backbone PRESET` trains it"
        )
    backbone_digest = digest_of(path)
    cached = backbone_file.find("-features.safetensors")
    if cached is not None:
        tensors, facts = load(cached)
        features = tensors.get("features")
        if facts.get("backbone") == backbone_digest and features is not None and len(features) == len(data.images):
            return ImagesByClass(features.to(data.images.device), data.splits)
    network = load_backbone(path, architecture, tuple(data.images.shape[1:]), data.images.device)
    features = torch.cat(list(features_of(network, data.images, to_input)))
    save(backbone_file.to_write("-features.safetensors"), {"features": features}, {"backbone": backbone_digest})
    return ImagesByClass(features, data.splits)


@torch.no_grad()
def features_of(network: Backbone, images: Tensor, to_input: ToInput) -> Iterator[Tensor]:
    """The features of images, scaled to length 1: some rows of [M, F] after the others."""
    network.eval()
    for batch in images.split(AT_ONCE):
        yield torch.nn.functional.normalize(network(to_input(batch)), dim=1)
