"""Files of a run folder: replaced whole, strict JSON, and read as data from strangers.

Whatever lies there in place of a file (a folder, a pipe, a device, a link in a circle) is an OSError at once: opening
never waits, and reading never takes more than its limit.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import stat
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from engine.errors import TrainingError

LARGEST = 2**20  # bytes of a file that is read whole; what is larger was not written by us
CLOCK_S = 60.0  # how long a comparison of two clocks is good for
DEEPEST = 32  # tables and lists inside each other; recursion must not end a reader


def open_to_read(path: Path) -> IO[bytes]:
    """Open a regular file. Raises OSError for everything else."""
    return open(path, "rb", opener=_regular)


def open_to_append(path: Path) -> IO[bytes]:
    """Open a regular file that grows, or make it. Raises OSError for everything else, and for links: they lead away."""
    return os.fdopen(_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW), "ab")


def _regular(path: str | Path, flags: int) -> int:
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or (not found.st_size and _is_made_up(handle)):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return handle


def _is_made_up(handle: int) -> bool:
    """Whether the kernel writes what is read there: /proc/kmsg passes for a regular file, and keeps its readers."""
    with contextlib.suppress(OSError):  # a system without /proc has no such files
        return os.readlink(f"/proc/self/fd/{handle}").startswith(("/proc/", "/sys/"))
    return False


def read_limited(path: Path, limit: int = LARGEST) -> bytes:
    """The whole of a regular file. Raises OSError for everything else, and for one that is too large."""
    with open_to_read(path) as file:
        data = file.read(limit + 1) or b""  # None: nothing is there yet
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
    return data


def read_json(path: Path, limit: int = LARGEST) -> dict[str, Any]:
    """A JSON object from a file, as `strict` has it; empty when the file is missing, damaged or something else."""
    try:
        value = strict(json.loads(read_limited(path, limit)))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def strict(value: Any, depth: int = 0) -> Any:
    """The value as strict JSON can hold it: what is not finite, or nested too deeply, becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if depth == DEEPEST:
        return None
    if isinstance(value, Mapping):
        return {str(key): strict(item, depth + 1) for key, item in value.items()}
    return [strict(item, depth + 1) for item in value]


def write_atomic(path: Path, data: str | bytes, *, durable: bool = True) -> None:
    """Replace a file whole: readers see the old one or the new one, and a failure leaves the old one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(*folders: Path) -> None:
    """Temporary files of a writer that was killed; to be called where it is certain that nobody is writing."""
    for folder in folders:
        with contextlib.suppress(OSError):
            for path in folder.glob(".*.tmp"):
                with contextlib.suppress(OSError):
                    path.unlink()


def file_system_age(path: Path) -> float:
    """Seconds since a file in a folder was written, by the clock of its file system: hosts' own clocks differ.

    That clock is read from a nameless file that is written beside the folder; where that cannot be, this host's has to
    do. Infinite for a file that is not there.
    """
    try:
        found = path.stat()
    except OSError:
        return math.inf
    return time.time() + _clock_ahead(path.parent.parent, found.st_dev) - found.st_mtime


_clocks: dict[int, tuple[float, float]] = {}  # by device: when it was looked at, and by how much it is ahead of ours


def _clock_ahead(folder: Path, device: int) -> float:
    """Seconds by which the clock of a file system is ahead of this host's. Asked once a minute."""
    looked_at, ahead = _clocks.get(device, (-math.inf, 0.0))
    if time.monotonic() - looked_at > CLOCK_S:
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"?")
                file.flush()
                os.fsync(file.fileno())  # over a network the server says when that was
                ahead = os.fstat(file.fileno()).st_mtime - time.time()
        except OSError:
            ahead = 0.0
        _clocks[device] = time.monotonic(), ahead
    return ahead


def is_locked(path: Path) -> bool:
    """True if a process holds the lock file `path`, or if that cannot be told; False if it is free or not there."""
    try:
        with open_to_read(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given back when the file is closed
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno not in (errno.EINVAL, errno.ELOOP)
    return False


def disk_error(error: OSError, folder: Path, kept: str = "the last checkpoint") -> TrainingError:
    """What is said when a running run cannot write in its folder: one line, and what is kept all the same."""
    return TrainingError(f"{error.filename or folder}: {error.strerror or error}; {kept} is untouched")
