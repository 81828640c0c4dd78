"""Where an export goes: never over what is there already, unless that is asked for, and whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from engine.base.errors import LregError, printable
from engine.base.files import write_atomic


class TargetError(LregError):
    """A file or folder that cannot be written, or must not be."""


def write_file(path: Path, data: bytes, *, force: bool = False) -> None:
    """Write a new file, or replace one with `force`. Raises TargetError."""
    check_target(path, force=force)
    with _named(path):
        write_atomic(path, data)


def check_target(path: Path, *, force: bool = False, pattern: str = "") -> None:
    """Raise TargetError where nothing may be written at `path`.

    `pattern`: a folder is to be written, with files of this pattern. With `force` a file may be replaced by a file, and
    a folder by a folder if there is nothing else in it: nobody loses a folder of theirs by a slip of the hand.
    """
    path_text = printable(str(path))
    if not os.path.isdir(path.parent):
        raise TargetError(f"{path_text}: there is no folder {printable(str(path.parent))}")
    if not os.path.lexists(path):
        return
    if not pattern and os.path.isdir(path):
        raise TargetError(f"{path_text}: a folder, should be a file")
    if pattern and not (os.path.isdir(path) and not path.is_symlink()):
        raise TargetError(f"{path_text}: no folder, so it is not replaced by one")
    with _named(path):
        foreign = [entry.name for entry in os.scandir(path) if not fnmatch(entry.name, pattern)] if pattern else []
    if foreign:
        raise TargetError(f"{path_text}: holds {printable(foreign[0])}, which is no export, so it is not replaced")
    if not force:
        raise TargetError(f"{path_text}: is there already; --force replaces it")


@contextlib.contextmanager
def new_folder(path: Path, pattern: str, *, force: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes `path` at the end of the block, or vanishes where the block raises.

    Raises TargetError as `check_target`.
    """
    check_target(path, force=force, pattern=pattern)
    with _named(path):
        temporary = path.parent / f".{path.name[:100]}.{secrets.token_hex(4)}.tmp"
        temporary.mkdir()
        try:
            yield temporary
            check_target(path, force=force, pattern=pattern)  # filling it takes a while
            if path.is_dir():
                shutil.rmtree(path)
            os.rename(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """What the system refuses, as one line that names the target."""
    try:
        yield
    except OSError as error:
        raise TargetError(f"{printable(str(path))}: cannot be written: {error.strerror or error}") from None
