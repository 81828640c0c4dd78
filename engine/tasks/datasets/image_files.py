"""Image files in a tree of folders, or in a zip of one; and what was decoded of many, kept in the user's cache."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from platformdirs import user_cache_path
from torch import Tensor

from engine.base.errors import DataError, PresetError, Problem
from engine.base.files import open_to_read, read_limited, write_atomic
from engine.tasks.datasets.base import Dataset
from engine.tasks.datasets.own import LARGEST

ENDINGS = (".png", ".jpg", ".jpeg")
LARGEST_FILE = 2**26  # bytes of an image's file
MOST_PIXELS = 2**26  # of one image, before it is scaled
DEEPEST = 5  # folders inside each other that are looked through
CACHE_VERSION = 1  # another one where images are decoded to other pixels than before
DIGEST_BYTES = 32

Refusal = Callable[[str, str], DataError]
"""The error that says what was found and what is allowed."""


@dataclass(frozen=True)
class ImageTree:
    """Images by their paths in a tree, its folders, and how to read an image and tell whether it has changed."""

    names: list[str]
    folders: list[str]
    read: Callable[[str], bytes]
    stamp: Callable[[str], list[int]]  # numbers of an image's file that change when its bytes do


@contextlib.contextmanager
def image_tree(path: Path, error: Refusal) -> Iterator[ImageTree]:
    """The tree at a path, open for reading. Raises what `error` makes of a path that is no tree, and of damage."""
    try:
        with _folder(path) if path.is_dir() else _zip(path) as tree:
            yield tree
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as problem:
        where = getattr(problem, "filename", None)
        within = "" if where in (None, str(path)) else f"{where}: "
        raise error(within + _reason(problem), "a folder with images, or a zip of one") from None


@contextlib.contextmanager
def tree_in(folder: Path, stem: str, layout: str, dataset: Dataset) -> Iterator[tuple[ImageTree, Refusal]]:
    """The tree of a dataset, `stem`.zip or that folder in the data folder, and what tells of damage to it.

    Raises DataError, which says the layout, where neither is there.
    """
    path = next((folder / name for name in (f"{stem}.zip", stem) if os.path.exists(folder / name)), None)
    if path is None:
        raise dataset.not_there(folder, f"{stem}.zip, or the folder {stem}, with {layout}")
    error = functools.partial(dataset.error, path=path)
    with image_tree(path, error) as tree:
        yield tree, error


def ways_to(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The parts of each image's path, sorted, without folders around everything, as zips have them."""
    parts = {name: PurePosixPath(name).parts for name in sorted(names)}
    while parts and min(map(len, parts.values())) > 2 and len({way[0] for way in parts.values()}) == 1:
        parts = {name: way[1:] for name, way in parts.items()}
    return parts


def decode(tree: ImageTree, names: Sequence[str], channels: int, size: int, error: Refusal) -> Tensor:
    """Images of 1 (grey) or 3 channels, scaled to `size` pixels of height and width (0: as they are).

    uint8 [N, C, H, W]. Raises what `error` makes of an image that is none, or unlike the first.
    """
    if channels == 2:
        raise PresetError([Problem("task.channels", "2", "1 or 3")])
    first = _pixels(names[0], tree, channels, size, error)
    if len(names) * first.nbytes > LARGEST:
        raise error(f"{len(names)} images of {first.nbytes} bytes", f"{LARGEST} bytes in all; lower task.size")
    images = np.empty((len(names), *first.shape), np.uint8)
    for index, name in enumerate(names):
        pixels = _pixels(name, tree, channels, size, error)
        if pixels.shape != first.shape:
            sizes = ["x".join(map(str, image.shape[1:])) for image in (pixels, first)]
            raise error(f"{name} of {sizes[0]} pixels", f"{sizes[1]}, as {names[0]}; or set task.size")
        images[index] = pixels
    return torch.from_numpy(images)


def decode_once(
    tree: ImageTree, names: Sequence[str], channels: int, size: int, error: Refusal, beside: Path | None = None
) -> Tensor:
    """`decode`, for a `size` of 1 or more, from a cache where the same files were decoded before.

    It is a file whose path begins as `beside` where that can be written, else in the user's cache folder, known by the
    images' names, sizes and checksums (in a folder: times), and has a checksum of its own: where it is missing,
    damaged or cannot be written, images are decoded.
    """
    facts = [CACHE_VERSION, channels, size, [[name, *tree.stamp(name)] for name in names]]
    file = f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.images"
    places = [] if beside is None else [beside.with_name(f"{beside.name}-{file}")]
    places.append(cache_folder() / file)
    shape = (len(names), channels, size, size)
    for path in places:
        if (images := _cached(path, shape)) is not None:
            return images
    images = decode(tree, names, channels, size, error)
    pixels = images.numpy().data.cast("B")
    for path in places:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time and nothing else
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, b"".join([hashlib.sha256(pixels).digest(), pixels]), durable=False)
            break
    return images


def cache_folder() -> Path:
    """Where decoded images are kept."""
    return user_cache_path("lreg") / "images"


def _cached(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    """What was decoded before; None where it is not there, or not as it was written."""
    with contextlib.suppress(OSError), open_to_read(path) as file:
        if os.fstat(file.fileno()).st_size == DIGEST_BYTES + math.prod(shape):
            content = np.fromfile(file, np.uint8)
            digest, pixels = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
            if hashlib.sha256(pixels.data).digest() == digest.tobytes():
                return torch.from_numpy(pixels.reshape(shape))
    return None


def _pixels(name: str, tree: ImageTree, channels: int, size: int, error: Refusal) -> np.ndarray:
    """One image, uint8 [C, H, W]."""
    from PIL import Image

    try:
        with Image.open(BytesIO(tree.read(name)), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels")
            if image.mode[0] in "IF":
                raise ValueError("more than 8 bits in a channel")
            flat = image.convert("L" if channels == 1 else "RGB")
    except Exception as problem:  # whatever a damaged image makes Pillow or zlib raise
        raise error(f"{name}: {_reason(problem)}", "whole PNG and JPEG images of 8 bits") from None
    if size:
        flat = flat.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(flat)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _reason(problem: Exception) -> str:
    """In one line, without the address in memory that Pillow tells."""
    text = (isinstance(problem, OSError) and problem.strerror) or str(problem).partition(" <_io.")[0]
    return " ".join(text.split())[:160]


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[ImageTree]:
    names: list[str] = []
    folders: list[str] = []
    _look_below(path, "", names, folders)

    def stamp(name: str) -> list[int]:
        facts = os.stat(path / name)
        return [facts.st_size, facts.st_mtime_ns]

    yield ImageTree(names, folders, lambda name: read_limited(path / name, LARGEST_FILE), stamp)


def _look_below(path: Path, prefix: str, names: list[str], folders: list[str], depth: int = 0) -> None:
    """Note the images and folders in a tree by their paths in it. Links to folders are followed, no circle for ever."""
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir() and not entry.name.startswith(".") and depth < DEEPEST:
                folders.append(prefix + entry.name)
                _look_below(path / entry.name, f"{prefix}{entry.name}/", names, folders, depth + 1)
            elif _is_image(entry.name):
                names.append(prefix + entry.name)


@contextlib.contextmanager
def _zip(path: Path) -> Iterator[ImageTree]:
    """Members are read into memory, and nothing is unpacked: their names lead nowhere."""
    with open_to_read(path) as file, zipfile.ZipFile(file) as archive:

        def read(name: str) -> bytes:
            with archive.open(name) as member:
                content = member.read(LARGEST_FILE + 1)
            if len(content) > LARGEST_FILE:
                raise ValueError(f"more than {LARGEST_FILE} bytes")
            return content

        def stamp(name: str) -> list[int]:
            facts = archive.getinfo(name)
            return [facts.file_size, facts.CRC]

        members = [name for name in dict.fromkeys(archive.namelist()) if not name.startswith("__MACOSX/")]
        folders = [name.rstrip("/") for name in members if name.endswith("/")]
        yield ImageTree([name for name in members if _is_image(name)], folders, read, stamp)


def _is_image(name: str) -> bool:
    return name.lower().endswith(ENDINGS) and not name.rpartition("/")[2].startswith(".")
