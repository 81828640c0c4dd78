"""Datasets that lie in files of their own and can be downloaded: what is needed, whether it is whole, how to get it.

Reading and downloading are torchvision's, imported late: it takes a second, and listing the members must not.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import socket
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock

from engine.base.errors import DataError
from engine.base.files import digest_of
from engine.tasks.datasets.base import RawData

DOWNLOAD_TIMEOUT = 20.0  # seconds without an answer
LARGEST = 2**30  # bytes of a file that is read whole
MNIST_SIZES = (
    ("train-images-idx3-ubyte", 47_040_016),
    ("train-labels-idx1-ubyte", 60_008),
    ("t10k-images-idx3-ubyte", 7_840_016),
    ("t10k-labels-idx1-ubyte", 10_008),
)


class DataFile(NamedTuple):
    """A file below the data folder, and how to know that it is whole."""

    path: str
    md5: str
    size: int | None = None


def read_mnist(name: str, kind: str, md5: tuple[str, str, str, str], folder: Path) -> RawData:
    """Read MNIST or a dataset in its format (`kind` is torchvision's class). `md5` is of the four unpacked files."""
    files = [
        DataFile(f"{kind}/raw/{file}", digest, size) for (file, size), digest in zip(MNIST_SIZES, md5, strict=True)
    ]
    train, test = _read(name, kind, files, folder)
    return RawData(train.data[:, None], train.targets, test.data[:, None], test.targets)


def read_cifar(name: str, kind: str, folder: Path) -> RawData:
    """Read CIFAR-10 or CIFAR-100 (`kind` is torchvision's class, which knows the files and their MD5)."""
    source = _torchvision(kind)
    listed = [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]
    train, test = _read(name, kind, [DataFile(f"{source.base_folder}/{file}", md5) for file, md5 in listed], folder)
    images = [torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous() for part in (train, test)]
    return RawData(images[0], torch.tensor(train.targets), images[1], torch.tensor(test.targets))


def packaged(name: str, file: Path, sha256: str) -> bytes:
    """What is in a gzip file of the package. Raises DataError where that is missing or damaged."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{name}: {file} cannot be read ({error.strerror}); install lreg again") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{name}: {file} is damaged; install lreg again")
    return gzip.decompress(content)


def _torchvision(kind: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision warns of its own use of torch
        import torchvision.datasets

    return getattr(torchvision.datasets, kind)


def _read(name: str, kind: str, files: list[DataFile], folder: Path) -> tuple[Any, Any]:
    """Have the files, check them, and open them with torchvision: its training and its test set."""
    source = _torchvision(kind)
    if _missing(files, folder):
        _download(name, files, folder, lambda: source(folder, train=True, download=True))
    for file in files:
        _check(name, file, folder / file.path)
    return source(folder, train=True), source(folder, train=False)


def _missing(files: list[DataFile], folder: Path) -> list[str]:
    return [file.path for file in files if not os.path.isfile(folder / file.path)]  # Path.is_file may raise


def _check(name: str, file: DataFile, path: Path) -> None:
    """A file must be the original, byte for byte: nothing else is worth comparing with, and CIFAR's are pickles."""
    try:
        size = path.stat().st_size
        if file.size is not None and size != file.size:
            actual, expected = f"{size} bytes", f"{file.size} bytes"
        elif size > LARGEST:
            actual, expected = f"{size} bytes", f"at most {LARGEST} bytes"
        else:
            actual, expected = f"MD5 {digest_of(path, 'md5')}", f"MD5 {file.md5}"
    except OSError as error:
        raise DataError(f"{name}: {path} cannot be read: {error.strerror}") from None
    if actual != expected:
        remedy = "delete it to have it downloaded again"
        raise DataError(f"{name}: {path} is damaged: found {actual}, should be {expected}; {remedy}")


def _download(name: str, files: list[DataFile], folder: Path, fetch: Callable[[], object]) -> None:
    """Let torchvision download what is missing; say what to do where it cannot. One process at a time."""
    reason = "it left them out"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock"), _quietly():
            if _missing(files, folder):  # another process may have been first
                fetch()
    except Exception as error:  # offline, a proxy's page, disk full, read-only, ...: all end the same way for the user
        reason = textwrap.shorten(str(error), 160, placeholder=" ...") or type(error).__name__
    if missing := _missing(files, folder):
        raise DataError(
            f"{name}: not in {folder}, and the download failed ({reason}); put there: {', '.join(missing)}; "
            "or name the folder that has them in LREG_DATA_DIR"
        )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep torchvision's output off stdout, which belongs to `--json`, and do not wait for a dead network for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(before)
