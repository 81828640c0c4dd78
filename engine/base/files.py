"""Files of a run folder: replaced whole, strict JSON, and read as data from strangers.

Whatever lies there in place of a file (a folder, a pipe, a device, a link in a circle) is an OSError at once: opening
never waits, and reading never takes more than its limit. Below a run's folder no link is followed, neither to read nor
to write: it may come from a stranger, and lead anywhere. The folder itself may be reached by links of the user's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import stat
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from engine.base.errors import RunError, StorageError

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 2**20  # bytes of a file that is read whole; what is larger was not written by us
CLOCK_S = 60.0  # how long a comparison of two clocks is good for
LOCK_POLL_S = 0.05
STEM = 40  # characters of a file's name in that of its temporary one, which must not be too long
DEEPEST = 32  # tables and lists inside each other; recursion must not end a reader


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
IS_LINK = "a link: no symbolic links are followed below a run's folder"


def open_to_read(path: Path, below: Path | None = None) -> IO[bytes]:
    """Open a regular file. Raises OSError for everything else; with `below` for links from that folder on."""
    if below is None:
        return os.fdopen(_regular(path, os.O_RDONLY), "rb")
    refuse_links(path.parent, below)
    return os.fdopen(_regular(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")


def open_to_append(path: Path) -> IO[bytes]:
    """Open a regular file that grows, or make it. Raises OSError for everything else, and for links: they lead away.

    A file that has a second name, which may lie anywhere, is replaced by a copy.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    file = os.fdopen(_regular(path, flags), "ab")
    if os.fstat(file.fileno()).st_nlink > 1:
        file.close()
        with open_to_read(path, path.parent) as shared:
            write_atomic(path, shared.read())
        file = os.fdopen(_regular(path, flags), "ab")
    return file


def _regular(path: Path, flags: int) -> int:
    try:
        handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError:
        if flags & os.O_NOFOLLOW and path.is_symlink():
            raise OSError(errno.ELOOP, IS_LINK, str(path)) from None
        raise
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode) or (not facts.st_size and _is_made_up(handle)):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return handle


def _is_made_up(handle: int) -> bool:
    """Whether the kernel writes what is read there: /proc/kmsg passes for a regular file, and keeps its readers."""
    with contextlib.suppress(OSError):  # a system without /proc has no such files
        return os.readlink(f"/proc/self/fd/{handle}").startswith(("/proc/", "/sys/"))
    return False


def refuse_links(path: Path, below: Path) -> None:
    """Raise OSError where a link is on the way from the folder `below` to `path`, or at its end."""
    for part in (path, *path.parents):
        if part == below:
            return
        if part.is_symlink():
            raise OSError(errno.ELOOP, IS_LINK, str(part))


def is_own_file(path: Path, below: Path) -> bool:
    """Whether there is a regular file, to which no link leads from the folder `below` on."""
    try:
        refuse_links(path, below)
        return path.is_file()
    except OSError:
        return False


def make_folder(path: Path) -> None:
    """Make a folder of a run's, where it is not there. Raises OSError for a link, and where the run itself is gone."""
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    if path.is_symlink():
        raise OSError(errno.ELOOP, IS_LINK, str(path))


def read_limited(path: Path, limit: int = LARGEST, below: Path | None = None) -> bytes:
    """The whole of a regular file. Raises OSError for everything else, and for one that is too large."""
    with open_to_read(path, below) as file:
        data = file.read(limit + 1) or b""  # None where it would have to be waited for
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
    return data


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """A file's checksum. Raises OSError for what is no regular file."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open_to_read(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_json(path: Path, limit: int = LARGEST, below: Path | None = None, *, as_it_is: bool = False) -> dict[str, Any]:
    """A JSON object from a file, as `strict` has it; empty when the file is missing, damaged or something else.

    `as_it_is`: numbers that are not finite stay, for who checks every value.
    """
    try:
        value = json.loads(read_limited(path, limit, below))
        value = value if as_it_is else strict(value)
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_tensors(
    path: Path, below: Path | None = None, limit: float = math.inf
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and its metadata.

    Raises OSError where it cannot be opened; ValueError, one line, where it is damaged, or has more than `limit` bytes.
    """
    import safetensors

    with open_to_read(path, below) as file:  # a pipe or a device would keep safetensors waiting
        size = os.fstat(file.fileno()).st_size
    if size > limit:
        raise ValueError(f"{size} bytes, more than {limit}")
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as whole:
            return {name: whole.get_tensor(name) for name in whole.keys()}, whole.metadata() or {}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from None


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
    """Replace a file whole: readers see the old one or the new one, and a failure leaves the old one.

    Raises OSError, with the name of the file that was to be written.
    """
    temporary = path.with_name(f".{path.name[:STEM]}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with os.fdopen(_new(temporary), "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None  # nobody has asked for the temporary one
        raise
    if durable:
        _sync_folder(path.parent)


def _new(path: Path) -> int:
    """A file that was not there: what somebody has put in its place is neither written to nor followed."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def write_in_place(path: Path, text: str) -> bool:
    """Write JSON over that of a file, in the room that it has on the disk: where there is none for a second file.

    It is written at once, and the rest of a longer text before it becomes spaces. Returns whether it did fit.
    """
    try:
        with os.fdopen(_regular(path, os.O_WRONLY | os.O_NOFOLLOW), "wb", buffering=0) as file:
            before = os.fstat(file.fileno())
            data = text.encode().ljust(before.st_size)
            if len(data) > max(before.st_size, before.st_blocks * 512) or before.st_nlink > 1:
                return False
            return file.write(data) == len(data)
    except OSError:
        return False


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
        file_stat = path.stat()
    except OSError:
        return math.inf
    return time.time() + _clock_ahead(path.parent.parent, file_stat.st_dev) - file_stat.st_mtime


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


def lock(path: Path, patience_s: float = 0.0) -> IO[bytes]:
    """Hold a lock file, which is made where it is not there, until what is returned is closed.

    Raises BlockingIOError where another process holds it for longer, OSError where it cannot be locked.
    """
    file = os.fdopen(_regular(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW), "rb")
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except OSError as error:
            if not isinstance(error, BlockingIOError) or time.monotonic() >= deadline:
                file.close()
                raise
        time.sleep(LOCK_POLL_S)


def is_locked(path: Path) -> bool:
    """True if a process holds the lock file `path`, or if that cannot be told; False if it is free or not there."""
    try:
        with open_to_read(path, path.parent) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given back when the file is closed
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno not in (errno.EINVAL, errno.ELOOP)
    return False


def refused(error: OSError, message: str) -> RunError:
    """The error of a folder that cannot be written: `message`, and why not. A full disk is nobody's bad input."""
    kind = StorageError if error.errno in NO_ROOM else RunError
    return kind(f"{message}: {error.strerror or error}")
